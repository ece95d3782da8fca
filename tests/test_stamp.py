"""The header that tells the generation: on every answer of the application, on none of the control routes."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_hotreload import HotRPC

BODY = """
from flask import Response
from werkzeug.exceptions import NotFound

@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount

@app.get("/stream")
def stream():
    return Response((chunk for chunk in ["a", "b"]), content_type="text/plain")

@app.get("/events")
def events():
    return Response((f"data: {n}\\n\\n" for n in range(2)), content_type="text/event-stream")

@app.get("/fails")
def fails():
    raise RuntimeError("as intended")

@app.get("/own")
def own():
    return "own", 200, {"x-generation": "mine"}

@app.get("/exempt")
def exempt():
    return "not held"

@app.get("/nested")
def nested():
    return app.test_client().get("/own").headers["X-Generation"]
"""


@pytest.fixture
def service(site):
    site.serve(BODY, header="X-Generation", exempt=["/exempt"])
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    return site


def stamps(site, path, method="GET", **options):
    with site.client().open(path, method=method, **options) as response:
        response.get_data()
        return response.headers.getlist("X-Generation")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/stream"),
        ("GET", "/events"),
        ("GET", "/fails"),
        ("GET", "/own"),
        ("GET", "/exempt"),
        ("GET", "/nobody-is-here"),
        ("HEAD", "/own"),
        ("OPTIONS", "/own"),
        ("DELETE", "/own"),
        ("POST", "/api"),
    ],
)
def test_every_answer_of_the_application_tells_its_generation_once(service, method, path):
    assert stamps(service, path, method) == ["0"]
    service.reload("rate")
    assert stamps(service, path, method) == ["1"]


def test_what_a_dispatcher_answers_tells_it_too(service):
    assert stamps(service, "/api/rate", "POST", json={"amount": 1}) == ["0"]


def test_a_request_that_calls_the_application_itself_stays_in_its_generation(service):
    with service.client().get("/nested") as response:
        assert (response.get_data(as_text=True), response.headers["X-Generation"]) == ("0", "0")


def test_control_routes_do_not_tell_it(service):
    for route in ("", "/health", "/metrics", "/generations"):
        assert "X-Generation" not in service.control(route).headers


def test_a_new_application_and_one_that_is_rolled_back_to_tell_their_numbers(service):
    service.rewrite(BODY + "EDITION = 2\n")
    service.rpc.reload()
    assert stamps(service, "/stream") == ["1"]
    service.rpc.rollback()
    assert stamps(service, "/stream") == ["2"]


def test_a_straggler_tells_the_generation_that_it_runs(site):
    site.serve(
        """
        from flask import Response
        @rpc.dispatcher("/api")
        def rate(amount: int) -> int:
            return amount
        @app.get("/stream")
        def stream():
            return Response(iter(["a", "b"]), content_type="text/plain")
        """,
        header="X-Generation",
    )
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    with site.client().get("/stream", buffered=False) as old:
        site.reload("rate", timeout=0)
        assert old.headers["X-Generation"] == "0"
        assert stamps(site, "/stream") == ["1"]


def test_without_the_setting_nothing_is_in_the_way(site):
    site.serve(BODY)
    assert stamps(site, "/stream") == []
    generation = site.rpc._served.reloader.current
    assert generation.wsgi_app == site.app.__class__.wsgi_app.__get__(site.app), "the application's own, not wrapped"


@pytest.mark.parametrize("header", ["X Generation", "X-Generation:", "", "Größe", "X\r\nY"])
def test_a_header_that_cannot_be_one_is_refused(header):
    with pytest.raises(ValueError, match="HOTRELOAD_HEADER"):
        HotRPC(Flask(__name__), header=header)

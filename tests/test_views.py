"""Dispatchers are Flask views: contexts, hooks, sessions, signals, errors, statuses, content types."""

import logging

import pytest
from conftest import Refused, call
from flask import (
    Flask,
    abort,
    g,
    got_request_exception,
    has_app_context,
    has_request_context,
    request,
    request_started,
    session,
)

from flask_hotreload import HotRPC, JSONRPCError

PROBLEM = "application/problem+json"


@pytest.fixture
def app():
    app = Flask(__name__)
    app.secret_key = "only for tests"
    return app


@pytest.fixture
def rpc(app):
    return HotRPC(app)


@pytest.fixture
def client(app):
    return app.test_client()


def serve(rpc, **functions):
    for name, function in functions.items():
        rpc.register_function(function, "/api", name=name)


def fails():
    raise KeyError("the text is nobody's business")


# As in any view --------------------------------------------------------------------------------------------------


def test_a_dispatcher_runs_in_the_contexts_of_its_request(rpc, client):
    serve(rpc, where=lambda: [request.path, request.endpoint, has_app_context(), has_request_context()])
    assert call(client, "where") == ["/api", "rpc:/api", True, True]
    assert client.post("/api/where").get_json() == ["/api/where", "rpc:/api/where", True, True]


def test_hooks_run_around_a_dispatcher(app, rpc, client):
    order = []
    serve(rpc, run=lambda: order.append("dispatcher") or g.value)

    @app.before_request
    def before():
        order.append("before")
        g.value = 5

    @app.after_request
    def after(response):
        order.append("after")
        response.headers["X-Seen"] = "yes"
        return response

    @app.teardown_request
    def teardown(error):
        order.append(f"teardown {error}")

    with client.post("/api/run") as response:
        assert (response.get_json(), response.headers["X-Seen"]) == (5, "yes")
    assert order == ["before", "dispatcher", "after", "teardown None"]


def test_what_a_before_request_hook_answers_is_passed_through(app, rpc, client):
    serve(rpc, run=lambda: 1)

    @app.before_request
    def before():
        if "X-Key" not in request.headers:
            return {"login": "please"}, 401
        return None

    for url in ("/api", "/api/run"):
        response = client.post(url, json={})
        assert (response.status_code, response.get_json()) == (401, {"login": "please"})
    assert client.post("/api/run", headers={"X-Key": "1"}).get_json() == 1


def test_a_session_is_kept_between_calls(rpc, client):
    def count() -> int:
        session["count"] = session.get("count", 0) + 1
        return session["count"]

    serve(rpc, count=count)
    assert [call(client, "count") for _ in range(3)] == [1, 2, 3]


def test_the_signals_of_flask_are_sent(app, rpc, client):
    serve(rpc, run=lambda: 1)
    seen = []

    def started(sender, **keywords):
        seen.append(sender)

    with request_started.connected_to(started, app):
        call(client, "run")
    assert seen == [app]


@pytest.mark.parametrize("url", ["/api", "/api/fails"])
def test_an_exception_is_logged_and_signalled_and_its_text_is_not_answered(app, rpc, client, caplog, url):
    serve(rpc, fails=fails)
    heard = []

    def receive(sender, exception, **keywords):
        heard.append(exception)

    with got_request_exception.connected_to(receive, app), caplog.at_level(logging.ERROR):
        response = client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "fails"} if url == "/api" else None)
    assert [type(error) for error in heard] == [KeyError]
    assert f"Exception on {url} [POST]" in caplog.text
    assert "KeyError" in caplog.text
    assert "business" not in response.text
    if url == "/api":
        assert response.get_json()["error"] == {"code": -32603, "message": "Internal error"}
    else:
        assert (response.status_code, response.mimetype) == (500, PROBLEM)


def test_in_debug_mode_the_exceptions_text_is_answered(app, rpc, client):
    app.debug = True
    serve(rpc, fails=fails)
    with pytest.raises(Refused, match=r"KeyError.*business"):
        call(client, "fails")


def test_an_asynchronous_dispatcher_works_where_flasks_do(rpc, client):
    pytest.importorskip("asgiref")

    async def run(amount: int) -> str:
        return f"{request.path} {amount}"

    serve(rpc, run=run)
    assert call(client, "run", 5) == "/api 5"
    with pytest.raises(Refused) as caught:
        call(client, "run", "x")
    assert caught.value.code == -32602


# Errors ----------------------------------------------------------------------------------------------------------


def test_an_http_exception_is_an_error_with_status_and_name(rpc, client):
    serve(rpc, gone=lambda: abort(410, "it was here yesterday"))
    with pytest.raises(Refused) as caught:
        call(client, "gone")
    assert caught.value.error == {
        "code": -32000,
        "message": "it was here yesterday",
        "data": {"status": 410, "name": "Gone"},
    }


def test_a_dispatcher_chooses_its_error(rpc, client):
    def poor():
        raise JSONRPCError(17, "not enough money", {"missing": 5})

    serve(rpc, poor=poor)
    with pytest.raises(Refused) as caught:
        call(client, "poor")
    assert caught.value.error == {"code": 17, "message": "not enough money", "data": {"missing": 5}}
    response = client.post("/api/poor")
    assert (response.status_code, response.mimetype) == (400, PROBLEM)
    body = response.get_json()
    assert (body["detail"], body["code"], body["data"]) == ("not enough money", 17, {"missing": 5})


def test_authorize_is_asked_in_the_requests_context_before_each_call(rpc, client):
    rpc.register_function(lambda: "open", "/api", name="door", authorize=lambda: request.headers.get("X-Key") == "1")
    with pytest.raises(Refused) as caught:
        call(client, "door")
    assert caught.value.error == {"code": -32001, "message": "Forbidden"}
    response = client.post("/api/door")
    assert (response.status_code, response.mimetype) == (403, PROBLEM)
    assert client.post("/api/door", headers={"X-Key": "1"}).get_json() == "open"


def test_without_validation_parameters_are_taken_as_they_are(rpc, client):
    def echo(amount: int):
        return amount

    rpc.register_function(echo, "/api", name="strict")
    rpc.register_function(echo, "/api", name="loose", validate=False)
    assert call(client, "loose", "five") == "five"
    with pytest.raises(Refused, match="amount"):
        call(client, "strict", "five")


# Direct calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"amount": 5}', 200),
        (b"[5]", 200),
        (b"", 422),
        (b"{", 400),
        (b"5", 422),
        (b'["x"]', 422),
        (b'{"sum": 5}', 422),
        (b"[5, 6]", 422),
    ],
)
def test_the_body_of_a_direct_call_is_its_params(rpc, client, body, status):
    def double(amount: int) -> int:
        return 2 * amount

    serve(rpc, double=double)
    response = client.post("/api/double", data=body, content_type="application/json")
    assert response.status_code == status
    if status == 200:
        assert (response.get_json(), response.mimetype) == (10, "application/json")
    else:
        problem = response.get_json()
        assert response.mimetype == PROBLEM
        assert (problem["status"], problem["type"]) == (status, "about:blank")
        assert problem["title"]
        assert problem["detail"]


def test_a_dispatcher_without_parameters_needs_no_body_and_no_type(rpc, client):
    serve(rpc, five=lambda: 5)
    assert client.post("/api/five").get_json() == 5


def test_an_unknown_name_is_not_found(rpc, client):
    serve(rpc, five=lambda: 5)
    assert client.post("/api/six").status_code == 404


# Content types and sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("Application/JSON", True),
        ("application/json-rpc", True),
        ("application/vnd.shop+json", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
        ("text/json", False),
        ("", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("url", ["/api", "/api/five"])
def test_only_json_is_accepted_so_that_a_form_cannot_call(rpc, client, url, content_type, accepted):
    called = []
    serve(rpc, five=lambda: called.append(1) or 5)
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "five"}' if url == "/api" else b"[]"
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.post(url, data=body, headers=headers)
    assert response.status_code == (200 if accepted else 415)
    assert len(called) == accepted
    if not accepted:
        assert response.mimetype == PROBLEM
        assert "application/json" in response.get_json()["detail"]


def test_a_notification_is_answered_by_nothing(rpc, client):
    called = []
    serve(rpc, five=lambda: called.append(1))
    response = client.post("/api", json={"jsonrpc": "2.0", "method": "five"})
    assert (response.status_code, response.data, called) == (204, b"", [1])


@pytest.mark.parametrize("url", ["/api", "/api/five"])
def test_a_body_above_the_applications_limit_is_too_large(app, rpc, client, url):
    app.config["MAX_CONTENT_LENGTH"] = 100
    serve(rpc, five=lambda: 5)
    response = client.post(url, data=b" " * 101, content_type="application/json")
    assert (response.status_code, response.mimetype) == (413, PROBLEM)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"null", b'"x"', b"5", b"{}", b'{"jsonrpc":"2.0","method":5,"id":1}']
)
def test_no_body_makes_an_html_page_or_a_server_error(rpc, client, body):
    serve(rpc, five=lambda: 5)
    response = client.post("/api", data=body, content_type="application/json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.get_json()["error"]["code"] in (-32700, -32600)


def test_nested_calls_of_the_application_are_answered(app, rpc, client):
    serve(rpc, inner=lambda: 5, outer=lambda: call(app.test_client(), "inner") + 1)
    assert call(client, "outer") == 6

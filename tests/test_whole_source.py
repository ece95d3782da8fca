"""A reload of the whole source in one process: the application is made anew, beside the one that runs."""

import pytest
from conftest import Refused

from flask_hotreload import ReloadInvalid

ECHO = """
calls = []

@rpc.dispatcher("/api")
def echo(data: str = "Hello world") -> str:
    return data

@app.get("/")
def home():
    return "home"
"""


@pytest.fixture
def service(site):
    return site.serve(ECHO)


def page(service, url="/"):
    with service.client().get(url) as response:
        return response.status_code, response.get_data(as_text=True)


def test_views_and_dispatchers_added_changed_and_removed_behave_so(service):
    service.rewrite(
        """
        @rpc.dispatcher("/api")
        def shout(data: str) -> str:
            return data.upper()

        @app.get("/")
        def home():
            return "new home"

        @app.get("/more")
        def more():
            return "more"
        """
    )
    report = service.rpc.reload()
    assert (report.status, report.generation, report.previous) == ("committed", 1, 0)
    assert page(service) == (200, "new home")
    assert page(service, "/more") == (200, "more")
    assert service.call("shout", "x") == "X"
    with pytest.raises(Refused):
        service.call("echo", "x")
    service.rewrite(ECHO)
    service.rpc.reload()
    assert page(service) == (200, "home")
    assert page(service, "/more")[0] == 404
    assert service.call("echo", "x") == "x"


def test_an_empty_body_reloads_the_whole_source_over_http(service):
    service.rewrite(ECHO.replace('return "home"', 'return "new home"'))
    with service.control(method="POST") as response:
        assert response.status_code == 200, response.get_json()
        assert response.get_json()["status"] == "committed"
    assert page(service) == (200, "new home")


def test_nothing_happens_when_no_byte_differs(service):
    report = service.rpc.reload()
    assert (report.status, report.generation) == ("unchanged", 0)
    service.rewrite(ECHO.replace('return "home"', 'return "new home"'))
    assert service.rpc.reload().status == "committed"
    assert service.rpc.reload().status == "unchanged"
    assert service.rpc.generation == 1


def test_a_rollback_serves_the_generation_before_and_another_one_goes_further_back(service):
    for number in (1, 2, 3):
        service.rewrite(ECHO.replace('return "home"', f'return "home {number}"'))
        service.rpc.reload()
    report = service.rpc.rollback()
    assert (report.generation, report.restores, report.trigger) == (4, 2, "rollback")
    assert page(service) == (200, "home 2")
    assert service.rpc.rollback().restores == 1
    assert page(service) == (200, "home 1")
    assert service.rpc.rollback().restores == 0
    assert page(service) == (200, "home")
    with pytest.raises(ReloadInvalid, match="nothing to roll back to"):
        service.rpc.rollback()
    assert service.rpc.rollback(3).restores == 3
    assert page(service) == (200, "home 3")

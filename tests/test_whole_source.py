"""A reload of the whole source in one process: the application is made anew, beside the one that runs."""

import gc
import threading
import weakref

import pytest
from conftest import Refused

from flask_hotreload import ReloadInvalid
from flask_hotreload.interpreter import interpreter

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


def test_generations_that_are_not_kept_are_garbage_although_each_took_over_the_locks_of_the_one_before(site):
    service = site.serve(ECHO, keep_generations=1)
    applications = []
    for number in range(5):
        service.rewrite(ECHO.replace('dispatcher("/api")', 'dispatcher("/api", lock=True)') + f"EDITION = {number}\n")
        service.rpc.reload()
        applications.append(weakref.ref(interpreter.live[service.name].app))
    gc.collect()
    assert [application() is not None for application in applications] == [False, False, False, True, True]


RELEASED = """
import importlib

steps = rpc.keep("steps", dict)
EDITION = 0

class Releasing(Flask):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "url_map" and steps:  # it is being released: new modules are live, its requests are still held
            steps["released"].set()
            steps["answered"].wait(10)

app.__class__ = Releasing

@app.get("/slow")
def slow():
    steps["inside"].set()
    steps["released"].wait(10)
    return str(importlib.import_module(__name__).EDITION)
"""


def test_a_request_that_is_overtaken_finds_its_own_modules_from_the_moment_that_new_ones_are_live(site):
    service = site.serve(RELEASED)
    steps = {name: threading.Event() for name in ("inside", "released", "answered")}
    service.rpc.keep("steps", dict).update(steps)
    answers = []

    def ask():
        answers.append(page(service, "/slow"))
        steps["answered"].set()

    request = threading.Thread(target=ask)
    request.start()
    steps["inside"].wait(10)
    service.rewrite(RELEASED.replace("EDITION = 0", "EDITION = 1"))
    service.rpc.reload(timeout=0)
    request.join(10)
    assert answers == [(200, "0")]

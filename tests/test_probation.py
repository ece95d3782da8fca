"""A generation that makes too many errors after its commit is rolled back by itself: in one process."""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import pytest
from conftest import Refused, call, until
from flask import got_request_exception, request_finished, request_started

from flask_hotreload import ReloadBusy, ReloadInvalid, StoreUnavailable
from flask_hotreload.probation import Probation, Tally
from flask_hotreload.probation_watch import Alone, Watch
from flask_hotreload.signals import reload_committed

GOOD = """
@rpc.dispatcher("/api")
def echo(data: str = "Hello world") -> str:
    return data

@app.get("/page")
def page():
    return "page"
"""
BAD = """
import threading

@rpc.dispatcher("/api")
def echo(data: str = "Hello world") -> str:
    if data == "refuse":
        raise JSONRPCError(1, "refused")
    if data == "wrong":
        raise KeyError(data)  # line {line}
    return data

@app.get("/page")
def page():
    return {{}}["page"]

@app.get("/status/<int:code>")
def status(code):
    return "told", code

@app.get("/handled")
def handled():
    raise LookupError("handled")

@app.errorhandler(LookupError)
def on_lookup_error(error):
    if type(error) is LookupError:
        return "handled", 400
    raise error
"""
LONG = 600  # seconds in which every test has ended


@pytest.fixture(autouse=True)
def no_tracebacks(site):
    """Flask logs each error; a record that pytest keeps would keep the frames of it, and so the application."""
    logging.getLogger(site.name).disabled = True


@pytest.fixture
def service(site):
    return site.serve(GOOD)


def reload_bad(service, *, max_errors=None, seconds=LONG, **more):
    service.rewrite(BAD.format(line=14))
    limit = {} if max_errors is None else {"maxErrors": max_errors}
    report = service.rpc.reload(probation={"seconds": seconds, **limit, **more})
    assert report.status == "committed"
    return report


def fail(service, times=1):
    """As many calls that are answered -32603."""
    for _ in range(times):
        with pytest.raises(Refused) as refused:
            service.call("echo", "wrong")
        assert refused.value.code == -32603


def get(service, url):
    with service.client().get(url) as response:
        return response.status_code


def probation(service):
    return service.rpc.status()["probation"]


def rolled_back(service):
    """The report of the rollback, once there is one."""
    until(lambda: service.rpc.history()[0].trigger == "rollback", "nothing is rolled back")
    return service.rpc.history()[0]


def passed(service):
    until(lambda: probation(service)["state"] != "running", "the probation does not end")
    assert probation(service)["state"] == "passed"
    return probation(service)


# The limit -------------------------------------------------------------------------------------------------------


def test_one_error_more_than_allowed_rolls_back_and_the_report_says_which_errors(service, caplog):
    reload_bad(service, max_errors=2)
    fail(service, 2)
    assert get(service, "/page") == 500
    report = rolled_back(service)
    assert (report.status, report.generation, report.restores) == ("committed", 2, 0)
    assert (report.trigger, report.actor) == ("rollback", "probation")
    file = service.folder / f"{service.name}.py"
    lines = file.read_text().splitlines()
    first, *kinds = report.warnings
    assert first == (
        "generation 1 was on probation (600 s, maxErrors 2) and over its limit: 3 errors in 3 requests, "
        "over all workers"
    )
    assert kinds == [
        f"2 × KeyError at {file}:{1 + next(i for i, line in enumerate(lines) if 'raise KeyError' in line)}",
        f"1 × KeyError at {file}:{1 + next(i for i, line in enumerate(lines) if 'return {}[' in line)}",
    ]
    assert get(service, "/page") == 200
    until(lambda: f"; {kinds[0]}; {kinds[1]}; it was rolled back" in caplog.text, "no warning is logged")
    told = probation(service)
    assert (told["generation"], told["state"], told["errors"], told["left_ms"]) == (1, "rolled-back", 3, 0)


def test_as_many_errors_as_are_allowed_pass_and_the_log_says_so(service, caplog):
    caplog.set_level(logging.INFO, "flask_hotreload")
    reload_bad(service, max_errors=3, seconds=0.5)
    fail(service, 3)
    service.call("echo", "fine")
    told = passed(service)
    assert (told["errors"], told["requests"], told["error"]) == (3, 4, None)
    line = "generation 1 has passed its probation (4 requests, 3 errors)"
    until(lambda: line in caplog.text, "the log does not say so")
    assert service.rpc.generation == 1
    fail(service)
    assert probation(service)["errors"] == 3


def test_a_limit_of_no_errors_takes_the_first_one(service):
    reload_bad(service, max_errors=0)
    fail(service)
    assert rolled_back(service).generation == 2


def test_a_ratio_counts_only_once_there_are_enough_requests(service):
    reload_bad(service, errorRatio=0.5, minRequests=10)
    fail(service, 9)
    assert probation(service)["state"] == "running"
    assert service.rpc.generation == 1
    fail(service)
    report = rolled_back(service)
    assert "(600 s, errorRatio 0.5 from 10 requests on)" in report.warnings[0]


def test_a_ratio_at_its_limit_passes(service):
    reload_bad(service, errorRatio=0.5, minRequests=2, seconds=0.5)
    service.call("echo", "fine")
    fail(service)
    assert passed(service)["errors"] == 1


def test_a_ratio_is_looked_at_again_when_requests_have_made_it_enough(service):
    reload_bad(service, errorRatio=0.1, minRequests=10)
    fail(service, 2)
    for _ in range(8):
        service.call("echo", "fine")
    assert "2 errors in 10 requests" in rolled_back(service).warnings[0]


# What counts -----------------------------------------------------------------------------------------------------


def test_an_exception_that_becomes_an_answer_500_counts_once(service):
    reload_bad(service, max_errors=100)
    assert get(service, "/page") == 500
    with service.client().post("/api/echo", json={"data": "wrong"}) as response:
        assert response.status_code == 500
    told = probation(service)
    assert (told["errors"], told["requests"]) == (2, 2)
    assert [(kind["type"], kind["count"]) for kind in told["kinds"]] == [("KeyError", 1), ("KeyError", 1)]


def test_an_answer_5xx_counts_without_an_exception_by_its_route(service):
    reload_bad(service, max_errors=100)
    assert get(service, "/status/503") == 503
    assert get(service, "/status/500") == 500
    kinds = {(kind["type"], kind["place"]) for kind in probation(service)["kinds"]}
    assert kinds == {("HTTP 503", "GET /status/<int:code>"), ("HTTP 500", "GET /status/<int:code>")}


def test_what_is_handled_refused_or_not_found_is_no_error(service):
    reload_bad(service, max_errors=0)
    assert get(service, "/handled") == 400
    assert get(service, "/missing") == 404
    assert get(service, "/status/404") == 404
    with pytest.raises(Refused):
        service.call("echo", "refuse")
    with pytest.raises(Refused):
        service.call("missing")
    with pytest.raises(Refused):
        service.call("echo", 5)
    told = probation(service)
    assert (told["state"], told["errors"], told["requests"]) == ("running", 0, 6)


def test_each_call_of_a_batch_counts_and_a_notification_too(service):
    reload_bad(service, max_errors=100)
    wrong = {"jsonrpc": "2.0", "method": "echo", "params": ["wrong"]}
    with service.client().post("/api", json=[{**wrong, "id": 1}, {**wrong, "id": 2}, wrong]) as response:
        assert response.status_code == 200
    told = probation(service)
    assert (told["errors"], told["requests"]) == (3, 1)
    assert [kind["count"] for kind in told["kinds"]] == [3]


def test_requests_that_began_before_the_commit_do_not_count(site):
    entered, leave = threading.Event(), threading.Event()
    slow = (
        GOOD
        + "\n@rpc.dispatcher('/api')\ndef slow() -> int:\n    events[0].set(); events[1].wait(10); return 1 / 0\n"
    )
    site.serve("events = []\n" + slow)
    site.module.events.extend([entered, leave])
    outcome = []

    def ask():
        try:
            site.call("slow")
        except Refused as refused:
            outcome.append(refused.code)

    thread = threading.Thread(target=ask)
    thread.start()
    assert entered.wait(10)
    site.rewrite(BAD.format(line=0))
    site.rpc.reload(timeout=0, probation={"seconds": LONG, "maxErrors": 0})
    leave.set()
    thread.join(10)
    assert outcome == [-32603]
    told = probation(site)
    assert (told["state"], told["errors"], told["requests"]) == ("running", 0, 0)


def test_an_error_that_is_told_outside_of_a_request_does_not_count(service):
    reload_bad(service, max_errors=0)
    app = service.rpc._served.app
    got_request_exception.send(app, exception=ValueError())
    assert probation(service)["errors"] == 0


def test_errors_of_another_application_in_the_process_do_not_count(service):
    service.write(
        "other.py",
        """
        from flask import Flask
        app = Flask(__name__)
        app.logger.disabled = True
        @app.get("/")
        def home(): return 1 / 0
        """,
    )
    other = service.load("other").app
    reload_bad(service, max_errors=0)
    with other.test_client().get("/") as response:
        assert response.status_code == 500
    assert (probation(service)["errors"], probation(service)["requests"]) == (0, 0)


def test_many_kinds_of_errors_are_not_told_apart_without_end(service):
    service.rewrite(
        "@rpc.dispatcher('/api')\ndef fail(number: int) -> int:\n    raise type(f'Error{number}', (Exception,), {})\n"
    )
    service.rpc.reload(probation={"seconds": LONG, "maxErrors": 49})
    client = service.client()
    for number in range(50):
        with pytest.raises(Refused):
            call(client, "fail", number)
    _, *kinds = rolled_back(service).warnings
    assert len(kinds) == 11
    assert kinds[-1].endswith(" of other kinds")
    assert sum(int(kind.split()[0]) for kind in kinds) == 50


# How it is asked for ---------------------------------------------------------------------------------------------


def test_dispatchers_alone_can_be_put_on_probation_over_http(service):
    service.write("handlers.py", "def echo(data: str = '') -> str: raise ValueError(data)")
    entry = {"dispatcher": "echo", "scriptPath": "handlers.py", "path": "/api"}
    with service.reload_over_http(data=[entry], probation={"seconds": LONG, "maxErrors": 1}) as response:
        assert response.status_code == 200, response.get_json()
    with service.control() as response:
        told = response.get_json()["probation"]
    assert 0 < told.pop("left_ms") <= LONG * 1000
    assert told == {
        "generation": 1, "state": "running", "seconds": LONG, "max_errors": 1, "error_ratio": None,
        "min_requests": None, "requests": 0, "errors": 0, "kinds": [], "error": None,
    }  # fmt: skip
    fail(service, 2)
    assert rolled_back(service).restores == 0
    assert service.call("echo", "wrong") == "wrong"


def test_a_service_that_keeps_no_generation_refuses_a_probation(site):
    site.serve(GOOD, keep_generations=0)
    site.rewrite(BAD.format(line=0))
    with pytest.raises(ReloadInvalid, match="HOTRELOAD_KEEP_GENERATIONS"):
        site.rpc.reload(probation={"seconds": 1, "maxErrors": 0})
    assert site.rpc.generation == 0


def test_nothing_is_on_probation_when_nothing_was_changed_or_the_reload_was_refused(service):
    assert service.rpc.reload(probation={"seconds": LONG, "maxErrors": 0}).status == "unchanged"
    service.rewrite("1 / 0")
    with service.reload_over_http(probation={"seconds": LONG, "maxErrors": 0}) as response:
        assert response.status_code == 422
    assert probation(service) is None


# Its end ---------------------------------------------------------------------------------------------------------


def test_a_reload_on_top_ends_a_probation_and_nothing_newer_is_rolled_back(service):
    reload_bad(service, max_errors=0)
    service.rewrite(BAD.format(line=0))
    service.rpc.reload()
    told = probation(service)
    assert (told["generation"], told["state"]) == (1, "replaced")
    fail(service, 3)
    assert service.rpc.generation == 2
    assert [report.trigger for report in service.rpc.history()] == ["python", "python"]


def test_a_probation_on_top_of_another_leads_back_to_the_generation_before_it(service):
    reload_bad(service, max_errors=5)
    fail(service)
    service.rewrite(BAD.format(line=0))
    service.rpc.reload(probation={"seconds": LONG, "maxErrors": 0})
    fail(service)
    assert rolled_back(service).restores == 1
    fail(service)
    assert service.rpc.generation == 3  # what was restored is on no probation


def test_a_rollback_by_hand_ends_a_probation(service):
    reload_bad(service, max_errors=0)
    service.rpc.rollback()
    assert probation(service)["state"] == "replaced"


def test_a_rollback_that_expects_a_generation_is_refused_when_another_one_is_served(service):
    reload_bad(service, max_errors=0)
    reloader = service.app.extensions["hotreload"]._served.reloader
    with pytest.raises(ReloadBusy, match="generation 1 is live, not 7"):
        reloader.rollback(None, expect=7)
    assert service.rpc.generation == 1


def test_nobody_listens_and_no_thread_runs_but_while_something_is_on_probation(service):
    def listened():
        app = service.rpc._served.app
        return [
            bool(list(signal.receivers_for(app)))
            for signal in (request_started, request_finished, got_request_exception)
        ]

    def watched():
        return [thread for thread in threading.enumerate() if thread.name == "hotreload-probation"]

    assert listened() == [False] * 3
    reload_bad(service, max_errors=0)
    assert listened() == [True] * 3
    assert len(watched()) == 1
    fail(service)
    rolled_back(service)
    assert listened() == [False] * 3
    until(lambda: not watched(), "the thread runs on")


@pytest.mark.parametrize("limit", [1, 0])
def test_the_end_of_a_probation_keeps_no_generation_alive(site, limit):
    page = '@app.get("/page")\ndef page():\n    return "page", 200\n'
    site.serve(page, keep_generations=1)
    site.rewrite(page.replace("200", "500"))
    site.rpc.reload(probation={"seconds": 0.5, "maxErrors": limit})
    app = weakref.ref(site.rpc._served.app)
    assert get(site, "/page") == 500
    until(lambda: probation(site)["state"] != "running", "the probation does not end")
    assert probation(site)["state"] == ("passed" if limit else "rolled-back")
    for number in range(3):
        site.rewrite(page + f"# {number}")
        site.rpc.reload()

    def gone():
        gc.collect()
        return app() is None

    until(gone, "the application of a generation that was on probation is alive")


def test_a_service_that_nobody_serves_any_more_leaves_no_thread_behind(service):
    reload_bad(service, max_errors=0)
    # The rest is the fixture's: it fails if a thread is left.


# What goes wrong -------------------------------------------------------------------------------------------------


def test_a_rollback_that_fails_is_logged_with_the_remedy_and_the_generation_serves_on(site, caplog):
    flag = site.folder / "broken"
    code = f"import os\nif os.path.exists({str(flag)!r}): raise OSError('gone')\nrpc.on_retire(lambda: None)\n" + GOOD
    site.serve(code)
    reload_bad(site, max_errors=1)
    flag.write_text("")
    fail(site, 2)
    until(lambda: probation(site)["state"] == "failed", "it does not end")
    assert "OSError" in probation(site)["error"]
    assert site.rpc.generation == 1
    assert site.call("echo", "fine") == "fine"
    [told] = [record for record in caplog.records if "goes on serving" in record.getMessage()]
    assert told.levelname == "WARNING"
    assert 'POST /_reload/rollback, {"to": N}' in told.getMessage()


def watch_of(counts, roll_back, *, siblings=None, seconds=60.0, max_errors=0):
    watch = Watch(
        Probation(seconds, max_errors),
        3,
        until=(siblings or Alone()).now() + seconds,
        siblings=siblings or Alone(),
        roll_back=roll_back,
    )
    watch.counted = counts
    return watch


class Counts:
    """What a worker has counted."""

    def __init__(self, errors):
        self.errors = errors

    def tally(self, until):
        return Tally(3, until, self.errors, self.errors)

    def end(self):
        pass


def test_a_rollback_that_fails_for_a_reason_that_passes_is_tried_again():
    asked, done = [], threading.Event()

    def roll_back(reason, attempt):
        asked.append(attempt)
        if len(asked) < 3:
            raise StoreUnavailable("away")
        done.set()

    watch = watch_of(Counts(1), roll_back)
    watch.start()
    assert done.wait(10)
    until(lambda: watch.state == "rolled-back", "it does not end")
    assert asked == [1, 1, 1]  # none of them began


class Away(Alone):
    """Other workers that cannot be asked until they are ``back``, and that have counted an error."""

    def __init__(self):
        self.back = threading.Event()
        self.asked = threading.Event()

    def publish(self):
        if not self.back.is_set():
            self.asked.set()
            raise StoreUnavailable("the store is away")

    def tallies(self):
        return {"dead": Tally(3, 0.0, 1, 1), "older": Tally(2, 0.0, 50, 50)}


def test_as_long_as_the_others_cannot_be_asked_nothing_is_decided(caplog):
    reasons, done, siblings = [], threading.Event(), Away()

    def roll_back(reason, attempt):
        reasons.extend(reason)
        done.set()

    watch = watch_of(Counts(2), roll_back, siblings=siblings, max_errors=2)
    watch.start()
    watch.wake()
    assert siblings.asked.wait(10)
    assert watch.state == "running"
    siblings.back.set()
    assert done.wait(10)
    until(lambda: watch.state == "rolled-back", "it does not end")
    assert "3 errors in 3 requests" in reasons[0]
    assert [record.getMessage() for record in caplog.records if "cannot be told" in record.getMessage()]


def test_a_receiver_of_the_rollbacks_signal_gets_the_reasons(service):
    told = []
    reload_bad(service, max_errors=0)
    with reload_committed.connected_to(lambda app, report, **_: told.append(report)):
        fail(service)
        until(lambda: told, "no signal is sent")
    assert told[0].warnings[0].startswith("generation 1 was on probation")

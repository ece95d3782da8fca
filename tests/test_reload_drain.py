"""Holding and draining: who waits for whom, and for how long."""

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import call, until

from flask_hotreload import ApplyError, DrainTimeout

SLOW = """
import threading
entered, leave = threading.Semaphore(0), threading.Event()

@rpc.dispatcher("/api")
def version() -> int:
    return 1

@rpc.dispatcher("/api")
def slow() -> int:
    entered.release()
    assert leave.wait(30)
    return version()
"""
NEW = "def version() -> int: return 2"


@pytest.fixture
def service(site):
    site.serve(SLOW)
    site.write("handlers.py", NEW)
    yield site
    site.module.leave.set()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask(service, threads, method):
    """The future answer of a call by a client of its own."""
    return threads.submit(contextvars.Context().run, call, service.app.test_client(), method)


def ask_slowly(service, threads, count=1):
    futures = [ask(service, threads, "slow") for _ in range(count)]
    for _ in futures:
        assert service.module.entered.acquire(timeout=10)
    return futures


def test_a_reload_waits_for_the_requests_inside_and_holds_those_that_come(service, threads):
    [slow] = ask_slowly(service, threads)
    reload = threads.submit(service.reload, "version")
    until(lambda: service.rpc._service.reloader.lock.closed, "the gate was not closed")
    held = ask(service, threads, "version")
    until(lambda: service.rpc.status()["held"] == 1, "the request was not held")
    assert service.rpc.generation == 0
    assert not reload.done()
    service.module.leave.set()
    report = reload.result(10)
    assert (slow.result(10), held.result(10)) == (1, 2)
    assert (report.drain.in_flight, report.drain.stragglers, report.drain.held) == (1, (), 1)
    assert report.timings.pause_ms >= report.timings.drain_ms > 0


def test_with_a_time_out_of_zero_nobody_is_waited_for(service, threads):
    [slow] = ask_slowly(service, threads)
    report = service.reload("version", timeout=0)
    assert (report.status, report.drain.in_flight) == ("committed", 1)
    [straggler] = report.drain.stragglers
    assert (straggler.method, straggler.path) == ("POST", "/api")
    assert straggler.age_ms > 0
    assert service.call("version") == 2
    service.module.leave.set()
    assert slow.result(10) == 1


def test_a_straggler_finishes_on_its_own_generation(site, threads):
    site.serve(
        """
        import threading
        entered, leave = threading.Semaphore(0), threading.Event()
        @rpc.dispatcher("/api")
        def version() -> int: return 1
        @rpc.dispatcher("/api")
        def slow() -> list:
            entered.release()
            assert leave.wait(30)
            answer = app.test_client().post("/api/version").get_json()
            return [answer, rpc.generation, rpc.get("version", "/api")()]
        """
    )
    site.write("handlers.py", NEW)
    [slow] = ask_slowly(site, threads)
    site.reload("version", timeout=0.01)
    site.module.leave.set()
    assert slow.result(10) == [1, 0, 1]
    assert site.rpc.generation == 1


def test_a_straggler_finds_the_modules_of_its_own_generation(site, threads):
    site.write("handlers.py", "VERSION = 1\ndef version() -> int: return VERSION")
    site.serve(
        """
        import importlib, sys, threading
        import handlers
        rpc.register_function(handlers.version, "/api")
        entered, leave = threading.Semaphore(0), threading.Event()
        @rpc.dispatcher("/api")
        def slow() -> list:
            entered.release()
            assert leave.wait(30)
            import handlers
            found = handlers, sys.modules["handlers"], importlib.import_module("handlers")
            return [module.VERSION for module in found]
        """
    )
    [slow] = ask_slowly(site, threads)
    site.write("handlers.py", "VERSION = 2\ndef version() -> int: return VERSION")
    site.reload("version", timeout=0)
    assert (site.call("version"), site.load("handlers").VERSION) == (2, 2)
    site.module.leave.set()
    assert slow.result(10) == [1, 1, 1]


def test_the_configured_time_out_holds_where_the_document_names_none(site, threads):
    site.serve(SLOW, timeout=0.01)
    site.write("handlers.py", NEW)
    [slow] = ask_slowly(site, threads)
    assert len(site.reload("version").drain.stragglers) == 1
    site.module.leave.set()
    assert slow.result(10) == 1


def test_as_many_requests_as_told_are_not_waited_for(service, threads):
    slow = ask_slowly(service, threads, 2)
    with pytest.raises(DrainTimeout):
        service.reload("version", processing_dispatcher_count_max=1, timeout=0.01, on_timeout="abort")
    report = service.reload("version", processing_dispatcher_count_max=2, timeout=10, on_timeout="abort")
    assert report.status == "committed"
    assert len(report.drain.stragglers) == 2
    service.module.leave.set()
    assert [each.result(10) for each in slow] == [1, 1]


def test_abort_at_the_time_out_changes_nothing_and_names_who_is_inside(service, threads):
    [slow] = ask_slowly(service, threads)
    ran = []
    entry = {"dispatcher": "version", "scriptPath": "handlers.py", "path": "/api"}
    with pytest.raises(DrainTimeout, match=r"POST /api \(\d+ ms\)") as caught:
        service.reload({**entry, "overload": lambda *given: ran.append(given)}, timeout=0.01, on_timeout="abort")
    assert caught.value.seconds == 0.01
    assert [(reader.method, reader.path) for reader in caught.value.readers] == [("POST", "/api")]
    assert caught.value.report.status == "aborted"
    assert ran == []
    assert service.call("version") == 1
    service.module.leave.set()
    assert slow.result(10) == 1


def test_who_asks_from_inside_a_request_does_not_wait_for_itself(site):
    site.serve(
        SLOW
        + """
@rpc.dispatcher("/api")
def deploy() -> list:
    report = rpc.reload([{"dispatcher": "version", "scriptPath": "handlers.py", "path": "/api"}], timeout=10)
    return [report.status, report.drain.in_flight, rpc.generation]
"""
    )
    site.write("handlers.py", NEW)
    assert site.call("deploy") == ["committed", 0, 0]  # its own request goes on in its generation
    assert site.call("version") == 2


def test_a_response_that_a_test_forgot_to_close_delays_nothing(service):
    forgotten = service.client().post("/api/version", buffered=False)
    report = service.reload("version", timeout=10, on_timeout="abort")
    assert (report.drain.in_flight, report.drain.stragglers) == (0, ())
    assert service.call("version") == 2
    assert forgotten.get_json() == 1
    forgotten.close()


def test_a_retry_that_comes_before_the_end_gets_the_same_report(service, threads):
    [slow] = ask_slowly(service, threads)
    both = [threads.submit(service.reload, "version", id="deploy-77") for _ in range(2)]
    until(lambda: service.rpc._service.reloader.lock.closed, "the gate was not closed")
    service.module.leave.set()
    assert both[0].result(10) is both[1].result(10)
    assert slow.result(10) == 1
    assert service.rpc.generation == 1


def test_reloads_take_turns(service, threads):
    [slow] = ask_slowly(service, threads)
    first = threads.submit(service.reload, "version")
    until(lambda: service.rpc._service.reloader.lock.closed, "the gate was not closed")
    second = threads.submit(service.reload, "version")
    service.module.leave.set()
    assert {first.result(10).generation, second.result(10).generation} == {1, 2}
    assert slow.result(10) == 1


def test_two_requests_that_reload_at_once_do_not_wait_for_each_other(site, threads):
    site.serve(
        SLOW
        + """
both = threading.Barrier(2)

@rpc.dispatcher("/api")
def deploy() -> str:
    both.wait(10)
    entry = {"dispatcher": "version", "scriptPath": "handlers.py", "path": "/api"}
    return rpc.reload([entry], timeout=10, on_timeout="abort").status
"""
    )
    site.write("handlers.py", NEW)
    asked = [ask(site, threads, "deploy") for _ in range(2)]
    assert [each.result(20) for each in asked] == ["committed", "committed"]


def test_requests_are_held_no_longer_than_the_budget(site, threads):
    """The drain's time-out is within the budget by the document's check; apply gets what the drain has left."""
    site.serve(SLOW, max_hold=0.4, timeout=0.3)
    site.write("handlers.py", NEW)
    [slow] = ask_slowly(site, threads)
    stop = threading.Event()
    entry = {"dispatcher": "version", "scriptPath": "handlers.py", "path": "/api"}

    def hang(server, module, dispatcher):
        while not stop.wait(0.001):  # interruptible between two waits
            pass

    with pytest.raises(ApplyError, match=r"had not ended after 0\.\d+ s"):
        site.reload({**entry, "overload": hang})
    stop.set()
    assert not site.rpc._service.reloader.lock.closed
    site.module.leave.set()
    assert slow.result(10) == 1

"""Rolling back while requests are inside, from within requests, and from several threads at once."""

import os
import threading
import traceback

import pytest
from conftest import Refused, until
from flask import got_request_exception
from staying import WAIT, Stay

from flask_hotreload import ReloadBusy, signals

BODY = (
    """
import parts
number = {number}

@rpc.dispatcher("/api")
def which() -> int:
    return number

@rpc.dispatcher("/api")
def back(to: int | None = None) -> list:
    report = rpc.rollback(to)
    return [number, rpc.generation, report.generation, report.restores]

@rpc.dispatcher("/api")
def anew() -> list:
    report = rpc.reload()
    return [number, rpc.generation, report.generation]

# {number} lines up with what follows
@rpc.dispatcher("/api")
def fail() -> None:
    parts.fail()
"""
    + WAIT
)
PARTS = "{blank}def fail():\n    raise ValueError('generation {number}')\nclass Part: number = {number}\n"
TELL = "(number, parts.Part.number, __import__('parts') is parts, rpc.generation)"


def write(site, number, more=""):
    site.write("parts.py", PARTS.format(number=number, blank="\n" * number))
    site.rewrite(BODY.replace("{number}", str(number)) + more)


@pytest.fixture
def service(site):
    """One whose reloads and rollbacks wait for nobody."""
    site.write("parts.py", PARTS.format(number=0, blank=""))
    return site.serve(BODY.replace("{number}", "0"), timeout=0.0, keep_generations=9)


def release(service, *numbers, more=""):
    for number in numbers:
        write(service, number, more)
        service.rpc.reload()


# Requests inside ---------------------------------------------------------------------------------------------------


def test_a_request_of_each_generation_finishes_on_its_own_over_rollbacks(service):
    with Stay(service, TELL) as zero:
        release(service, 1)
        with Stay(service, TELL) as one:
            release(service, 2)
            with Stay(service, TELL) as two:
                service.rpc.rollback()
                with Stay(service, TELL) as three:
                    service.rpc.rollback()
                    assert service.call("which") == 0
                    assert three.leave() == "(1, 1, True, 3)"
                assert two.leave() == "(2, 2, True, 2)"
            assert one.leave() == "(1, 1, True, 1)"
        assert zero.leave() == "(0, 0, True, 0)"
    assert service.call("which") == 0


def test_a_request_of_the_restored_generation_that_never_left_goes_on_with_the_same_modules(service):
    release(service, 1)
    with Stay(service, f"{TELL}, id(parts)") as request:
        release(service, 2)
        service.rpc.rollback()
        there = id(service.load("parts"))
        assert request.leave() == f"((1, 1, True, 1), {there})"
    assert service.call("which") == 1


def test_what_a_request_of_an_old_generation_is_the_first_to_import_is_shared_when_it_is_restored(service):
    service.write("afterwards.py", "number = 1")
    release(service, 1)
    with Stay(service, "__import__('afterwards').__dict__.setdefault('mark', 5)") as request:
        service.write("afterwards.py", "number = 2")
        release(service, 2)
        assert request.leave() == "5"
    service.rpc.rollback()
    with Stay(service, "(__import__('afterwards').number, __import__('afterwards').mark)") as request:
        assert request.leave() == "(1, 5)"


def test_a_rollback_waits_for_those_inside_and_holds_those_that_come(site):
    site.write("parts.py", PARTS.format(number=0, blank=""))
    site.serve(BODY.replace("{number}", "0"))
    release(site, 1)
    with Stay(site, TELL) as request:
        rolling = threading.Thread(target=site.rpc.rollback)
        rolling.start()
        answers = []
        asking = threading.Thread(target=lambda: answers.append(site.call("which")))
        until(lambda: site.rpc._service.reloader.lock.closed, "the rollback did not close the lock")
        asking.start()
        until(lambda: site.rpc.status()["held"] == 1, "the request is not held")
        assert request.leave() == "(1, 1, True, 1)"
        rolling.join(10)
        asking.join(10)
    assert answers == [0]


def test_a_generation_restored_while_requests_of_both_its_lives_are_inside_retires_each_once(service):
    seen = []

    def retired(sender, generation, **_):
        seen.append(generation)

    signals.generation_retired.connect(retired)
    try:
        release(service, 1)
        with Stay(service) as first:
            release(service, 2)
            service.rpc.rollback()
            with Stay(service) as second:
                release(service, 4)
                until(lambda: seen == [0, 2], "generations 0 and 2 were not retired")
                assert first.leave() == "1"
                until(lambda: seen == [0, 2, 1], "generation 1 was not retired")
                assert second.leave() == "1"
                until(lambda: seen == [0, 2, 1, 3], "generation 3 was not retired")
    finally:
        signals.generation_retired.disconnect(retired)


# Tracebacks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quoted(service, caplog):
    """Tells the line that a traceback quotes for where ``fail`` of ``parts`` raised."""
    seen = []

    def remember(sender, exception, **_):
        seen.append(traceback.extract_tb(exception.__traceback__)[-1].line)

    def quote():
        with pytest.raises(Refused, match="32603"):
            service.call("fail")
        caplog.clear()  # the log keeps the frames of what it tells
        return seen.pop()

    got_request_exception.connect(remember)
    yield quote
    got_request_exception.disconnect(remember)


@pytest.mark.parametrize("more", ["", "rpc.on_retire(lambda: rpc.keep('ended', list).append(number))"])
def test_tracebacks_quote_the_lines_that_run_after_a_rollback(service, quoted, more):
    release(service, 1, 2, more=more)
    assert quoted() == "raise ValueError('generation 2')"
    if more:
        until(lambda: service.rpc.keep("ended", list) == [1], "generation 1 was not retired")
    service.rpc.rollback()
    assert quoted() == "raise ValueError('generation 1')"
    service.write("parts.py", "something = 'else'\n" * 9)
    assert quoted() == "raise ValueError('generation 1')"
    service.rpc.rollback()
    assert quoted() == "raise ValueError('generation 0')"


def test_tracebacks_of_the_first_generation_quote_its_lines_though_the_file_is_gone(service, quoted):
    release(service, 1)
    os.remove(service.folder / "parts.py")
    service.rpc.rollback()
    assert quoted() == "raise ValueError('generation 0')"


# From within requests, and at once ---------------------------------------------------------------------------------


def test_a_dispatcher_may_roll_back_and_finishes_on_its_own_generation(service):
    release(service, 1, 2)
    assert service.call("back") == [2, 2, 3, 1]
    assert service.call("back", 0) == [1, 3, 4, 0]
    assert service.call("which") == 0


def test_a_dispatcher_may_reload_the_whole_source_and_roll_back_again(service):
    write(service, 1)
    assert service.call("anew") == [0, 0, 1]
    assert service.call("back") == [1, 1, 2, 0]
    assert service.call("which") == 0


def test_the_receiver_of_a_commits_signal_may_roll_back(service):
    answers = []

    def committed(sender, report, **_):
        if report.restores is None:
            answers.append(service.rpc.rollback().restores)

    signals.reload_committed.connect(committed)
    try:
        release(service, 1)
    finally:
        signals.reload_committed.disconnect(committed)
    assert answers == [0]
    assert service.call("which") == 0


def test_new_code_cannot_roll_back(service):
    write(service, 1, "rpc.rollback()")
    with pytest.raises(Exception, match="cannot reload: do it on a thread of its own"):
        service.rpc.reload()
    assert service.call("which") == 0


def test_rollbacks_and_reloads_asked_at_once_take_turns(service):
    release(service, 1, 2, 3)
    write(service, 4)
    start = threading.Barrier(4)
    reports, errors = [], []

    def ask(what):
        start.wait(10)
        try:
            reports.append(what())
        except Exception as error:
            errors.append(error)

    asked = [service.rpc.rollback, service.rpc.rollback, service.rpc.reload, lambda: service.rpc.rollback(2)]
    threads = [threading.Thread(target=ask, args=(what,)) for what in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    committed = sorted((report.generation, report.previous) for report in reports)
    assert committed == [(4, 3), (5, 4), (6, 5), (7, 6)]
    expected = {number: number for number in range(4)}
    for report in sorted(reports, key=lambda each: each.generation):
        expected[report.generation] = 4 if report.restores is None else expected[report.restores]
    assert service.call("which") == expected[7]


def test_a_rollback_that_waits_its_turn_goes_back_from_what_is_live_then(service):
    release(service, 1)
    staging, go = threading.Event(), threading.Event()
    service.rpc.keep("go", lambda: (staging, go))
    write(service, 2, "staging, go = rpc.keep('go', list)\nstaging.set()\nassert go.wait(10)")
    reloading = threading.Thread(target=service.rpc.reload)
    reloading.start()
    assert staging.wait(10)
    reports = []
    rolling = threading.Thread(target=lambda: reports.append(service.rpc.rollback()))
    rolling.start()
    go.set()
    reloading.join(10)
    rolling.join(10)
    assert reports[0].restores in (0, 1)  # which of the two begins first is open; each goes back from what it finds
    assert service.call("which") == {1: 1, 0: 2}[reports[0].restores]


def test_a_rollback_that_finds_another_reload_running_for_too_long_is_busy(site):
    site.write("parts.py", PARTS.format(number=0, blank=""))
    site.serve(BODY.replace("{number}", "0"), timeout=0.0, prepare_timeout=0.2)
    release(site, 1)
    site.rpc._service.reloader._turn.lock.acquire()
    try:
        with pytest.raises(ReloadBusy, match="another reload has been running"):
            site.rpc.rollback()
    finally:
        site.rpc._service.reloader._turn.lock.release()
    assert site.rpc.rollback().restores == 0

"""Reloads under steady load on four workers: nobody is refused, and nobody gets an old answer after a new one."""

from __future__ import annotations

import signal

import pytest
from checker import Checker
from cluster import DOCUMENT, cluster, service, until

pytestmark = pytest.mark.alone

BROKEN = "\nraise RuntimeError('broken on purpose')\n"
FAILING = "\ndef fail(server, module, dispatcher):\n    raise RuntimeError('fails on purpose')\n"


@pytest.fixture
def start(tmp_path):
    """Start the service in a folder of its own."""

    def start(**options):
        return cluster(service(tmp_path / "service"), **options)

    return start


def reload_many(running, number, *, broken=True):
    """``number`` good reloads; between them callbacks that fail and, if ``broken``, code that does not import.

    Return the pauses in milliseconds.
    """
    pauses = []
    edition = generation = running.call("where")["generation"]
    for attempt in range(number):
        edition += 1
        if broken and attempt % 5 == 2:
            running.edit(edition, extra=BROKEN)
            assert running.post_reload()[0] == 422
            edition += 1
        if attempt % 7 == 3:
            running.edit(edition, extra=FAILING)
            entry = {**DOCUMENT["data"][0], "overload": "fail"}
            assert running.post_reload({"data": [entry]})[0] == 422
            edition += 1
        running.edit(edition)
        report = running.reload()
        generation += 1
        assert report["generation"] == generation
        pauses.append(report["timings"]["pause_ms"])
    return pauses


def check_load(running, number, *, first=frozenset(), successors=0, broken=True, **options):
    """Reload ``number`` times, and on until that many workers that are not of the ``first`` have answered."""
    pauses = []
    with Checker(running.address, **options) as checker:
        while len(pauses) < number or len(checker.processes() - first) < successors:
            assert len(pauses) < 50 * number, "no worker has been replaced"
            pauses += reload_many(running, min(number, 20), broken=broken)
        checker.another_round()
    verdict = checker.verdict()
    verdict.assert_clean()
    print(
        f"{verdict.requests} requests to {len(verdict.processes)} processes over {len(pauses)} reloads; longest wait "
        f"{verdict.longest_wait * 1000:.1f} ms; longest pause {max(pauses):.1f} ms"
    )
    return verdict


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_reloads_under_load_lose_nobody_and_never_go_back(start, worker_class):
    with start(worker_class=worker_class) as running:
        workers = running.await_members()
        verdict = check_load(running, 20)
        assert len(verdict.processes) > 1
        assert set(verdict.processes) <= workers
        assert {0, 20} <= set(verdict.generations)


@pytest.mark.long
@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_three_hundred_reloads_under_load_lose_nobody_and_never_go_back(start, worker_class):
    with start(worker_class=worker_class) as running:
        running.await_members()
        check_load(running, 300)


def check_with_workers_that_come_and_go(start, worker_class, number):
    # Without kept-alive connections: a client that sends on one which the server is just closing cannot know.
    options = ("--max-requests", "50", "--max-requests-jitter", "30", "--keep-alive", "0")
    with start(worker_class=worker_class, options=options) as running:
        first = running.await_members()
        # gunicorn ends the service if a worker cannot import what lies on disk: no file may be broken just then.
        check_load(running, number, first=first, successors=4, broken=False, rate=250.0)


@pytest.mark.parametrize(
    "worker_class",
    [pytest.param("sync", marks=pytest.mark.long), "gthread", pytest.param("gevent", marks=pytest.mark.long)],
)
def test_workers_that_come_and_go_under_load_join_without_going_back(start, worker_class):
    check_with_workers_that_come_and_go(start, worker_class, 20)


@pytest.mark.long
@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_workers_that_come_and_go_over_three_hundred_reloads_join_without_going_back(start, worker_class):
    check_with_workers_that_come_and_go(start, worker_class, 300)


def test_preloaded_workers_under_load_lose_nobody_and_never_go_back(start):
    with start(options=("--preload",)) as running:
        running.await_members()
        check_load(running, 15)


def test_a_killed_worker_loses_its_own_requests_only(start):
    with start() as running:
        workers = running.await_members()
        victim = max(workers)
        with Checker(running.address) as checker:
            reload_many(running, 5)
            running.kill(victim)
            running.await_members()
            running.edit(100)
            running.reload()
        checker.verdict(lost_with=victim).assert_clean()


def test_adding_and_removing_workers_under_load_loses_nobody(start):
    with start(workers=2, options=("--keep-alive", "0")) as running:
        running.await_members()
        with Checker(running.address) as checker:
            for edition in range(1, 5):
                running.signal(signal.SIGTTIN if edition % 2 else signal.SIGTTOU)
                running.edit(edition)
                running.reload()
                running.await_members(3 if edition % 2 else 2)
        checker.verdict().assert_clean()


def test_a_hup_under_load_loses_nobody(start):
    with start(workers=2, options=("--keep-alive", "0")) as running:
        before = running.await_members()
        with Checker(running.address, one_code=False) as checker:
            running.edit(1)
            running.reload()
            running.edit(2)
            running.signal(signal.SIGHUP)
            until(lambda: not running.workers() & before, "the old workers do not end")
            running.await_members()
            running.edit(3)
            running.reload()
        checker.verdict().assert_clean()

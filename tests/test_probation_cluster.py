"""A generation on probation over all workers of one real gunicorn: what they count is added up."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from checker import Checker
from cluster import DOCUMENT, ask, cluster, service, until

#: A ``where`` that fails when it is told to.
FAILING = """

told = where


def where(fail: bool = False) -> dict:
    if fail:
        raise LookupError("failing on purpose")
    return told()
"""
LOGGING = "\nimport logging\n\nlogging.basicConfig(level=logging.INFO)\n"
WHOLE: dict[str, object] = {}
LONG = 600  # seconds in which every test has ended


@pytest.fixture
def start(tmp_path):
    """Start the service in a folder of its own, its log told from INFO on, with three workers."""

    def start(**options):
        folder = service(tmp_path / "service")
        with (folder / "app.py").open("a") as file:
            file.write(LOGGING)
        options = {"workers": 3, "options": ("--config", "python:flask_hotreload.gunicorn"), **options}
        return cluster(folder, **options)

    return start


def put_on_probation(running, *, document=WHOLE, edition=1, seconds=LONG, **limit):
    running.edit(edition, extra=FAILING)
    return running.reload({**document, "probation": {"seconds": seconds, **limit}})


def fail(running, pid, times=1):
    """That many calls of ``where`` that fail, in the worker ``pid``."""
    with running.connected_to(pid) as connection:
        fail_on(connection, times)


def fail_on(connection, times):
    for _ in range(times):
        body = {"jsonrpc": "2.0", "id": 1, "method": "where", "params": [True]}
        status, answer = ask(connection, "POST", "/api", body)
        assert (status, answer["error"]["code"]) == (200, -32603)


def rolled_back(running):
    """The report of the rollback, once there is one."""

    def last():
        report = running.status()["last"]
        return report if report["trigger"] == "rollback" and report["status"] == "committed" else None

    return until(last, f"nothing is rolled back: {running.status()}")


def served(running):
    """Edition and generation, which must be the same in every worker."""
    [answer] = {(answer["edition"], answer["generation"]) for answer in running.everywhere().values()}
    return answer


def probations(running):
    """What each worker says of the probation, by process id."""
    told = {}
    for pid in running.workers():
        with running.connected_to(pid) as connection:
            told[pid] = running.status(connection=connection)["probation"]
    return told


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_errors_of_which_no_worker_has_too_many_are_too_many_together(start, worker_class):
    with start(worker_class=worker_class) as running:
        workers = sorted(running.await_members())
        with Checker(running.address) as checker:
            put_on_probation(running, maxErrors=5)
            for pid in workers:
                assert running.status()["probation"]["state"] == "running"
                fail(running, pid, 2)
            report = rolled_back(running)
            checker.another_round()
        checker.verdict().assert_clean()
        assert (report["generation"], report["restores"], report["actor"]) == (2, 0, "probation")
        assert len(report["workers"]) == 3
        summed, kind = report["warnings"]
        assert "6 errors in " in summed
        assert kind == f"6 × LookupError at {running.folder / 'where.py'}:{line_of(running, 'raise LookupError')}"
        assert served(running) == (0, 2)
        assert {(told["state"], told["generation"]) for told in probations(running).values()} == {("rolled-back", 1)}
        triggers = [each["trigger"] for each in running.get("/_reload/generations")]
        assert triggers == ["rollback", "http"]


def line_of(running, text):
    lines = (running.folder / "where.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_however_many_workers_see_too_many_errors_at_once_there_is_one_rollback(start):
    def fail_until_it_is_rolled_back(connection):
        body = {"jsonrpc": "2.0", "id": 1, "method": "where", "params": [True]}
        codes = [-32603]
        while codes[-1] == -32603:
            codes.append(ask(connection, "POST", "/api", body)[1]["error"]["code"])
        return codes[-1]

    with start() as running, ExitStack() as stack, ThreadPoolExecutor(6) as threads:
        pids = sorted(running.await_members())
        connections = [stack.enter_context(running.connected_to(pid)) for pid in (*pids, *pids)]
        put_on_probation(running, maxErrors=20)
        # The old code takes no parameters.
        assert set(threads.map(fail_until_it_is_rolled_back, connections)) == {-32602}
        rolled_back(running)
        history = running.get("/_reload/generations")
        assert [(each["trigger"], each["status"]) for each in history] == [
            ("rollback", "committed"),
            ("http", "committed"),
        ]
        assert served(running) == (0, 2)


def test_a_reload_of_dispatchers_is_rolled_back_as_well(start):
    with start() as running:
        workers = sorted(running.await_members())
        put_on_probation(running, document=DOCUMENT, maxErrors=2)
        for pid in workers:
            fail(running, pid)
        assert rolled_back(running)["restores"] == 0
        assert served(running) == (0, 2)


def test_errors_of_a_killed_worker_and_of_its_successor_count(start):
    with start() as running:
        victim, *others = sorted(running.await_members())
        put_on_probation(running, maxErrors=5)
        fail(running, victim, 2)
        with running.connected_to(others[0]) as connection:
            until(lambda: running.status(connection=connection)["probation"]["errors"] == 2, "it has told nobody")
        running.kill(victim)
        [successor] = running.await_members() - {*others}
        with running.connected_to(successor) as connection:
            told = running.status(connection=connection)["probation"]
        assert (told["generation"], told["state"], told["errors"]) == (1, "running", 2)
        assert 0 < told["left_ms"] < LONG * 1000
        fail(running, others[0], 2)
        fail(running, successor, 2)
        assert "6 errors in " in rolled_back(running)["warnings"][0]
        assert served(running) == (0, 2)


def test_a_worker_that_asks_for_the_rollback_and_dies_leaves_it_to_the_others(start, tmp_path):
    stops = tmp_path / "stops"
    stops.mkdir()
    with start(env={"CLUSTER_STOPS": str(stops)}) as running:
        victim = max(running.await_members())
        put_on_probation(running, maxErrors=1)
        pipe = stops / f"{victim}.coordinator.staging"
        os.mkfifo(pipe)
        fail(running, victim, 2)
        with pipe.open() as reached:
            assert reached.readline() == "reached\n"
        running.kill(victim)
        assert rolled_back(running)["restores"] == 0
        running.await_members()
        assert served(running) == (0, 2)


def test_while_the_store_takes_nothing_there_is_no_rollback_and_afterwards_there_is(start):
    with start() as running:
        workers = sorted(running.await_members())
        put_on_probation(running, maxErrors=5)
        (file,) = running.store().glob("*.sqlite")
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # nobody else writes from here on
            for pid in workers:
                fail(running, pid, 2)
            until(lambda: "cannot be rolled back as long as" in running.logged(), "nobody misses the store")
            assert served(running) == (1, 1)
            database.execute("ROLLBACK")
        assert "6 errors in " in rolled_back(running)["warnings"][0]
        assert served(running) == (0, 2)


def test_a_ratio_is_one_of_the_requests_of_all_workers(start):
    options = ("--config", "python:flask_hotreload.gunicorn", "--keep-alive", "60")
    with start(options=options) as running, ExitStack() as stack:
        # Connected before the commit: looking for a worker costs requests, too.
        one, *others = [stack.enter_context(running.connected_to(pid)) for pid in running.await_members()]
        put_on_probation(running, errorRatio=0.1, minRequests=100)
        fail_on(one, 9)  # all that it has answered, and too few to say anything
        for connection in others:
            for _ in range(60):
                running.call("where", connection=connection)
        told = running.status(connection=one)["probation"]
        assert (told["state"], told["errors"]) == ("running", 9)
        until(lambda: running.status(connection=one)["probation"]["requests"] == 129, "not all is told")
        fail_on(others[0], 4)  # 13 of 133
        assert running.status(connection=one)["probation"]["state"] == "running"
        fail_on(others[1], 1)  # 14 of 134
        report = rolled_back(running)
        assert report["warnings"][0].endswith("14 errors in 134 requests, over all workers")
        assert "errorRatio 0.1 from 100 requests on" in report["warnings"][0]
        assert served(running) == (0, 2)


def test_a_generation_with_few_errors_passes_and_one_worker_logs_it(start):
    options = ("--config", "python:flask_hotreload.gunicorn", "--keep-alive", "60")
    with start(options=options) as running, ExitStack() as stack:
        workers = sorted(running.await_members())
        connections = [stack.enter_context(running.connected_to(pid)) for pid in workers]
        put_on_probation(running, maxErrors=3, seconds=3)
        for connection in connections:
            fail_on(connection, 1)
        until(lambda: {told["state"] for told in probations(running).values()} == {"passed"}, "it does not end")
        [line] = [line for line in running.logged().splitlines() if "has passed its probation" in line]
        assert "generation 1 has passed its probation (" in line
        assert "requests, 3 errors)" in line
        running.kill(workers[0])
        [successor] = running.await_members() - set(workers)
        fail(running, successor, 9)
        with running.connected_to(successor) as connection:
            told = running.status(connection=connection)["probation"]
        assert told["state"] == "passed"
        assert served(running) == (1, 1)
        assert running.logged().count("has passed its probation") == 1


def test_a_reload_on_top_ends_the_probation_on_every_worker(start):
    with start() as running:
        workers = sorted(running.await_members())
        put_on_probation(running, maxErrors=0)
        running.edit(2, extra=FAILING)
        running.reload(WHOLE)
        assert {told["state"] for told in probations(running).values()} == {"replaced"}
        for pid in workers:
            fail(running, pid)
        assert served(running) == (2, 2)

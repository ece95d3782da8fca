"""Reloads over all workers of one real gunicorn: what is answered, told and refused."""

from __future__ import annotations

import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest
from cluster import DOCUMENT, ask, cluster, service, until

#: Short enough for a test of a worker that says nothing.
QUICK = {"HOTRELOAD_PREPARE_TIMEOUT": "1", "HOTRELOAD_TIMEOUT": "1", "HOTRELOAD_APPLY_TIMEOUT": "1"}


@pytest.fixture
def start(tmp_path):
    """Start the service in a folder of its own."""

    def start(**options):
        return cluster(service(tmp_path / "service"), **options)

    return start


def editions(running, pids=None):
    return {pid: answer["edition"] for pid, answer in running.everywhere(pids=pids).items()}


def generations(running):
    return {answer["generation"] for answer in running.everywhere().values()}


# One reload for all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_one_request_reloads_every_worker(start, worker_class, options):
    with start(worker_class=worker_class, options=options) as running:
        workers = running.await_members(4)
        running.edit(1)
        report = running.reload()
        assert editions(running) == dict.fromkeys(workers, 1)
        assert {worker["pid"] for worker in report["workers"]} == workers
        assert all(worker["ok"] and worker["error"] is None for worker in report["workers"])
        assert (report["generation"], report["previous"]) == (1, 0)
        assert report["timings"]["pause_ms"] == max(worker["pause_ms"] for worker in report["workers"])


def test_any_worker_can_be_asked(start):
    with start(workers=3) as running:
        for number, pid in enumerate(sorted(running.await_members()), start=1):
            running.edit(number)
            with running.connected_to(pid) as connection:
                assert running.reload(connection=connection)["generation"] == number
            assert set(editions(running).values()) == {number}


def test_reloads_that_are_asked_for_at_once_happen_one_after_the_other(start):
    with start() as running:
        running.await_members()
        with ThreadPoolExecutor(8) as threads:
            reports = list(threads.map(lambda _: running.reload(), range(8)))
        assert sorted(report["generation"] for report in reports) == list(range(1, 9))
        assert generations(running) == {8}


def test_each_worker_is_signalled_once_and_a_receiver_may_reload(start):
    receiver = """
from flask_hotreload.signals import reload_committed

@reload_committed.connect_via(app)
def committed(app, report, generation):
    with open(f"heard-{os.getpid()}", "a") as heard:
        heard.write(f"{generation} ")
    if generation == 1:
        try:
            rpc.reload([{"dispatcher": "where", "scriptPath": "where.py", "path": "/api"}], expect=1)
        except HotReloadError:
            pass  # another worker was faster
"""
    with start(workers=3) as running:
        workers = running.await_members()
        with (running.folder / "app.py").open("a") as file:
            file.write(receiver)
        assert running.reload({})["generation"] == 1
        heard = {pid: running.folder / f"heard-{pid}" for pid in workers}
        until(lambda: all(file.exists() and "2" in file.read_text() for file in heard.values()), "not all hear of 2")
        assert [sorted(file.read_text().split()) for file in heard.values()] == [["1", "2"]] * 3
        assert generations(running) == {2}


def test_a_retry_with_the_same_id_reloads_nothing_again_on_any_worker(start):
    with start(workers=3) as running:
        document = {**DOCUMENT, "id": "deploy-77"}
        for pid in running.await_members():
            with running.connected_to(pid) as connection:
                assert running.reload(document, connection=connection)["generation"] == 1
        assert generations(running) == {1}


def test_broken_code_changes_no_worker_and_names_file_and_line(start):
    with start() as running:
        workers = running.await_members()
        running.edit(1, extra="\nraise ValueError('not today')\n")
        status, problem = running.post_reload()
        assert status == 422, problem
        error = problem["report"]["error"]
        assert (error["type"], error["file"]) == ("LoadError", str(running.folder / "where.py"))
        assert "not today" in error["message"]
        assert error["line"] == len((running.folder / "where.py").read_text().splitlines())
        assert editions(running) == dict.fromkeys(workers, 0)
        running.edit(2)
        assert running.reload()["generation"] == 1


def test_one_worker_that_refuses_is_named_and_all_restore(start):
    refusal = """
def choosy(server, module, dispatcher):
    if os.path.exists(f"refuse-{os.getpid()}"):
        raise RuntimeError("this process does not want to")
"""
    entry = {**DOCUMENT["data"][0], "overload": ["note_first", "choosy"]}
    with start() as running:
        workers = running.await_members()
        victim = max(workers)
        (running.folder / f"refuse-{victim}").touch()
        running.edit(1, extra=refusal)
        status, problem = running.post_reload({"data": [entry]})
        assert status == 422, problem
        told = {worker["pid"]: worker["ok"] for worker in problem["report"]["workers"]}
        assert told == {pid: pid != victim for pid in workers}
        assert problem["report"]["error"]["worker"].endswith(f":{victim}")
        assert "does not want to" in problem["report"]["error"]["message"]
        answers = running.everywhere()
        assert {(a["edition"], a["generation"], a["first"]) for a in answers.values()} == {(0, 0, None)}
        (running.folder / f"refuse-{victim}").unlink()
        assert running.reload({"data": [entry]})["generation"] == 1
        assert {answer["first"] for answer in running.everywhere().values()} == {1}


def test_a_dry_run_prepares_everywhere_and_changes_nothing(start):
    with start() as running:
        workers = running.await_members()
        running.edit(1)
        status, report = running.post_reload({**DOCUMENT, "dryRun": True})
        assert (status, report["status"]) == (200, "checked")
        assert {worker["pid"] for worker in report["workers"]} == workers
        assert editions(running) == dict.fromkeys(workers, 0)


def test_all_run_the_bytes_that_the_asker_read(start):
    """The file is another one by the time the other workers prepare: the code itself writes it."""
    rewrite = """
from pathlib import Path
Path(__file__).write_text("raise SystemError('read from the disk')")
"""
    with start() as running:
        workers = running.await_members()
        running.edit(1, extra=rewrite)
        running.reload()
        assert editions(running) == dict.fromkeys(workers, 1)


# Asking from inside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_a_dispatcher_can_reload_all_workers(start, worker_class):
    with start(worker_class=worker_class) as running:
        workers = running.await_members()
        running.edit(1)
        report = running.call("reload_inside", DOCUMENT)
        assert {worker["pid"] for worker in report["workers"]} == workers
        assert editions(running) == dict.fromkeys(workers, 1)


@pytest.mark.parametrize(("what", "remedy"), [("lambda", "top level of a module"), ("object", "by a callback")])
def test_what_other_workers_cannot_be_told_is_refused_with_the_remedy(start, what, remedy):
    with start(workers=2) as running:
        running.await_members()
        refusal = running.call("reload_unsendable", what)
        assert refusal.startswith("ReloadInvalid: ")
        assert "where" in refusal
        assert remedy in refusal
        assert generations(running) == {0}


def test_values_of_an_overload_are_the_askers_on_every_worker(start):
    with start() as running:
        running.await_members()
        given = {"text": "ä", "list": [1, 2.5, None, True], "big": 2**70}
        running.reload({"data": [{**DOCUMENT["data"][0], "overload": {"GIVEN": given}}]})
        assert [answer["given"] for answer in running.everywhere().values()] == [given] * 4


# What is told ------------------------------------------------------------------------------------------------------


def test_every_worker_tells_of_all(start):
    with start(workers=3) as running:
        workers = running.await_members()
        running.reload()
        for pid in workers:
            with running.connected_to(pid) as connection:
                told = running.status(connection=connection)
            assert {worker["pid"] for worker in told["workers"]} == workers
            assert {worker["generation"] for worker in told["workers"]} == {1}
            assert len({worker["release"] for worker in told["workers"]}) == 1
            assert {worker["state"] for worker in told["workers"]} == {"serving"}


def test_nothing_is_written_into_the_working_folder(start):
    with start(workers=2) as running:
        running.await_members()
        running.edit(1)
        before = sorted(running.folder.rglob("*"))
        running.folder.chmod(0o500)
        running.reload()
        running.folder.chmod(0o700)
        assert sorted(running.folder.rglob("*")) == before


def test_workers_meet_where_nobody_else_can_enter(start):
    with start(workers=2) as running:
        running.await_members()
        assert stat.S_IMODE(running.store().stat().st_mode) == 0o700


# Workers that come and go ------------------------------------------------------------------------------------------


def test_a_killed_worker_is_out_and_its_successor_catches_up_before_its_first_request(start):
    with start() as running:
        before = running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2)  # what lies on disk is not what was committed
        victim = max(before)
        running.kill(victim)
        after = running.await_members()
        assert victim not in after
        (fresh,) = after - before
        with running.connected_to(fresh) as connection:
            assert running.call("where", connection=connection)["edition"] == 1
        running.reload()
        assert set(editions(running).values()) == {2}


def test_the_first_request_of_a_later_worker_is_answered_by_what_is_committed(start):
    """There is one worker only, so that the request waits in the listening socket until the next one is up."""
    with start(workers=1, worker_class="sync") as running:
        (first,) = running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2)
        for _ in range(3):
            (old,) = running.workers()
            running.kill(old)
            answer = running.call("where")
            assert answer["pid"] not in (first, old)
            assert (answer["edition"], answer["generation"]) == (1, 1)


def test_a_worker_that_boots_while_the_disk_holds_refused_code_serves_what_is_committed(start):
    with start(workers=2, options=("-c", "python:flask_hotreload.gunicorn")) as running:
        before = running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2, extra="\nraise RuntimeError('broken on purpose')\n")
        assert running.post_reload()[0] == 422
        running.kill(max(before))
        (fresh,) = until(lambda: running.workers() - before, "no worker replaces the killed one")
        until(lambda: fresh not in running.workers() or fresh in running.members(), "the worker does not boot")
        assert editions(running, pids=running.await_members()) == dict.fromkeys(running.workers(), 1)


def test_before_anything_is_reloaded_a_later_worker_serves_the_disk(start):
    with start(workers=1, worker_class="sync") as running:
        (old,) = running.await_members()
        running.edit(5)
        running.kill(old)
        answer = running.call("where")
        assert (answer["edition"], answer["generation"]) == (5, 0)


def test_callbacks_run_again_in_a_worker_that_catches_up(start):
    with start(workers=2) as running:
        running.await_members()
        running.edit(1)
        running.reload({"data": [{**DOCUMENT["data"][0], "overload": ["note_first"]}]})
        running.edit(2)
        running.reload()
        running.kill(max(running.workers()))
        running.await_members()
        answers = running.everywhere().values()
        assert [(answer["edition"], answer["first"]) for answer in answers] == [(2, 1)] * 2


def test_workers_that_are_added_catch_up_and_take_part_and_those_removed_are_out(start):
    with start(workers=2) as running:
        running.await_members()
        running.edit(1)
        running.reload()
        for number in (3, 4):
            running.signal(signal.SIGTTIN)
            more = running.await_members(number)
        assert editions(running) == dict.fromkeys(more, 1)
        running.edit(2)
        assert len(running.reload()["workers"]) == 4
        assert editions(running) == dict.fromkeys(more, 2)
        for number in (3, 2, 1):
            running.signal(signal.SIGTTOU)
            left = running.await_members(number)
        (left,) = left
        running.edit(3)
        report = running.reload()
        assert [worker["pid"] for worker in report["workers"]] == [left]


def test_a_worker_that_starts_during_a_transaction_waits_for_its_end(start, tmp_path):
    slow = "\nimport time\nopen('begun', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    with start(workers=2) as running, ThreadPoolExecutor(1) as thread:
        before = running.await_members()
        running.edit(1, extra=slow)
        asked = thread.submit(running.reload)
        try:
            until((running.folder / "begun").exists, "nothing is prepared")
            running.signal(signal.SIGTTIN)
            (added,) = until(lambda: running.workers() - before, "no worker is added")
            until(lambda: f"Booting worker with pid: {added}" in running.logged(), "it does not boot")
        finally:
            (running.folder / "go").touch()
        assert {worker["pid"] for worker in asked.result()["workers"]} == before
        assert running.await_members(3) == {*before, added}
        assert set(editions(running).values()) == {1}


def test_a_stopped_worker_aborts_the_reload_is_named_and_takes_part_again_when_it_continues(start):
    with start(env=QUICK) as running:
        workers = running.await_members()
        asked, victim = min(workers), max(workers)
        with running.connected_to(asked) as connection:
            running.edit(1)
            running.stop(victim)
            status, problem = running.post_reload(connection=connection)
            assert status == 503, problem
            assert str(victim) in problem["detail"]
            told = {worker["pid"]: worker["error"] for worker in problem["report"]["workers"]}
            assert told == {pid: "silent" if pid == victim else None for pid in workers}
            assert running.call("where", connection=connection)["edition"] == 0
            running.resume(victim)
            assert running.reload(connection=connection)["generation"] == 1
        assert editions(running) == dict.fromkeys(workers, 1)


def test_children_of_a_worker_are_no_members(start):
    with start(workers=2) as running:
        workers = running.await_members()
        assert running.call("reload_in_children") == {"fork": "StoreUnavailable", "spawn": True}
        assert set(running.members()) == workers
        assert len(running.reload()["workers"]) == 2


def test_a_client_that_hangs_up_while_it_waits_for_the_report_changes_nothing(start):
    with start() as running:
        running.await_members()
        running.edit(1)
        connection = running.connection(timeout=0.001)
        try:
            ask(connection, "POST", "/_reload", DOCUMENT)
        except (OSError, HTTPException):
            pass  # it is gone before its answer
        finally:
            connection.close()
        until(lambda: set(editions(running).values()) == {1}, "the reload did not happen")


def test_any_worker_tells_the_requests_that_are_inside_the_others_now(start, tmp_path):
    hold = "\n\ndef hold(path: str) -> str:\n    with open(path) as pipe:\n        return pipe.read()\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with start(workers=2) as running, ThreadPoolExecutor(1) as pool:
        first, second = running.await_members()
        running.edit(1, extra=hold)
        running.reload({"data": [{"dispatcher": "hold", "scriptPath": "where.py", "path": "/api"}]})

        def inside():
            with running.connected_to(second) as connection:
                workers = running.status(connection=connection)["workers"]
            return {worker["pid"]: worker["in_flight"] for worker in workers}[first]

        assert inside() == 0
        with running.connected_to(first) as connection:
            answer = pool.submit(running.call, "hold", str(pipe), connection=connection)
            until(lambda: inside() == 1, "the request of the other worker is not told")
            pipe.write_text("done")
            assert answer.result() == "done"
        until(lambda: inside() == 0, "the other worker is told to be busy for ever")

"""Reloads of the whole source, and rollbacks, over all workers of one real gunicorn."""

from __future__ import annotations

import pytest
from cluster import cluster, service

WHOLE: dict[str, object] = {}


@pytest.fixture
def running(tmp_path):
    options = ("--config", "python:flask_hotreload.gunicorn")
    with cluster(service(tmp_path / "service"), workers=3, options=options) as running:
        running.await_members()
        yield running


def editions(running):
    return [answer["edition"] for answer in running.everywhere().values()]


def served(running):
    """Edition and generation, which must be the same in every worker."""
    [answer] = {(answer["edition"], answer["generation"]) for answer in running.everywhere().values()}
    return answer


def rollback(running, to=None, **options):
    status, report = running.request("POST", "/_reload/rollback", {} if to is None else {"to": to}, **options)
    assert status == 200, report
    return report


def replace_a_worker(running):
    """Kill one, and return the process id of the one that takes its place."""
    before = running.workers()
    running.kill(min(before))
    [new] = running.await_members() - before
    return new


def test_every_worker_serves_the_new_source_whichever_is_asked(running):
    for edition, pid in enumerate(sorted(running.workers()), start=1):
        running.edit(edition)
        with running.connected_to(pid) as connection:
            report = running.reload(WHOLE, connection=connection)
        assert "where" in report["modules"]
        assert "app" in report["modules"]
        assert [worker["ok"] for worker in report["workers"]] == [True] * 3
        assert served(running) == (edition, edition)


def test_nothing_happens_when_no_byte_differs(running):
    status, report = running.request("POST", "/_reload", WHOLE)
    assert (status, report["status"], report["generation"]) == (200, "unchanged", 0)
    running.edit(1)
    running.reload(WHOLE)
    status, report = running.request("POST", "/_reload", WHOLE)
    assert (status, report["status"], report["generation"]) == (200, "unchanged", 1)
    assert served(running) == (1, 1)


def test_a_worker_that_runs_what_lies_on_disk_already_reloads_those_that_do_not(running):
    running.edit(1)
    new = replace_a_worker(running)  # nothing has been reloaded: it has imported the disk
    assert sorted(editions(running)) == [0, 0, 1]
    with running.connected_to(new) as connection:
        running.reload(WHOLE, connection=connection)
    assert served(running) == (1, 1)


def test_a_broken_source_is_refused_with_file_and_line_and_changes_nothing(running):
    running.edit(1, extra="\n1 / 0\n")
    status, problem = running.request("POST", "/_reload", WHOLE)
    assert status == 422, problem
    error = problem["report"]["error"]
    assert error["file"] == str(running.folder / "where.py")
    assert error["line"] == len((running.folder / "where.py").read_text().splitlines())
    assert served(running) == (0, 0)
    running.edit(2)
    running.reload(WHOLE)
    assert served(running) == (2, 1)


def test_a_later_worker_serves_the_committed_source_whatever_lies_on_disk(running):
    running.edit(1)
    running.reload(WHOLE)
    running.edit(2)
    running.reload()  # the dispatcher alone, on top of it
    running.edit(3, extra="\n1 / 0\n")
    replace_a_worker(running)
    assert served(running) == (2, 2)
    running.edit(4)
    running.reload(WHOLE)
    running.edit(5)
    replace_a_worker(running)
    assert served(running) == (4, 3)


def test_a_rollback_leads_back_on_every_worker_and_another_one_further(running):
    for edition in (1, 2, 3):
        running.edit(edition)
        running.reload({"label": f"v{edition}"})
    report = rollback(running)
    assert (report["generation"], report["restores"], report["trigger"]) == (4, 2, "rollback")
    assert (report["label"], running.status()["label"]) == ("v2", "v2")
    assert served(running) == (2, 4)
    assert rollback(running)["restores"] == 1
    assert served(running) == (1, 5)
    assert rollback(running)["restores"] == 0
    assert served(running) == (0, 6)
    status, problem = running.request("POST", "/_reload/rollback", {})
    assert (status, problem["report"]["error"]["type"]) == (400, "ReloadInvalid")
    assert rollback(running, to=3)["restores"] == 3
    assert served(running) == (3, 7)


def test_a_worker_that_started_later_rolls_back_from_the_journal(running):
    for edition in (1, 2, 3):
        running.edit(edition)
        running.reload(
            WHOLE if edition != 2 else {"data": [{"dispatcher": "where", "scriptPath": "where.py", "path": "/api"}]}
        )
    new = replace_a_worker(running)
    assert served(running) == (3, 3)
    running.edit(9)
    with running.connected_to(new) as connection:
        assert rollback(running, connection=connection)["restores"] == 2
    assert served(running) == (2, 4)
    assert rollback(running)["restores"] == 1
    assert served(running) == (1, 5)
    assert rollback(running)["restores"] == 0
    assert served(running) == (0, 6)


def test_a_worker_that_starts_after_a_rollback_serves_what_was_restored(running):
    for edition in (1, 2):
        running.edit(edition)
        running.reload(WHOLE)
    rollback(running)
    running.edit(9)
    replace_a_worker(running)
    assert served(running) == (1, 3)
    rollback(running)
    replace_a_worker(running)
    assert served(running) == (0, 4)
    running.edit(5)
    running.reload()
    replace_a_worker(running)
    assert served(running) == (5, 5)
    assert rollback(running)["restores"] == 4
    assert served(running) == (0, 6)

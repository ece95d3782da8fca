"""What is staged on all workers of one real gunicorn: previews, commits, discards, whoever is asked."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException

import pytest
from cluster import DOCUMENT, TOKEN, cluster, service, until

WHOLE: dict[str, object] = {}
CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "where", "params": []}).encode()
HOLD = "\n\ndef hold(path: str) -> dict:\n    with open(path) as pipe:\n        pipe.read()\n    return where()\n"


@pytest.fixture
def start(tmp_path):
    with ExitStack() as stack:

        def start(**options):
            options.setdefault("options", ("--config", "python:flask_hotreload.gunicorn"))
            running = stack.enter_context(cluster(service(tmp_path / "service"), workers=3, **options))
            running.await_members()
            return running

        yield start


@pytest.fixture
def running(start):
    return start()


def preview_headers(id="next", token=TOKEN):
    return {"HotReload-Preview": id, "Authorization": f"Bearer {token}"}


def raw(connection, headers, body=CALL):
    """Status, headers and body of a call as they come."""
    connection.request("POST", "/api", body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    told = [header for header in response.getheaders() if header[0] != "Date"]
    return response.status, told, response.read()


def previewed(running, pid, **options):
    """Edition and generation of a preview that the worker ``pid`` serves, and of a call of anybody else."""
    with running.connected_to(pid) as connection:
        status, _, body = raw(connection, preview_headers(**options))
        assert status == 200, body
        result = json.loads(body)["result"]
        assert result["pid"] == pid
        live = running.call("where", connection=connection)
    return (result["edition"], result["generation"]), (live["edition"], live["generation"])


def everywhere(running, **options):
    """The same, which has to be so in every worker."""
    [answer] = {previewed(running, pid, **options) for pid in running.workers()}
    return answer


def stage(running, document=DOCUMENT, id="next", **options):
    status, report = running.post_reload({**document, "stage": True, "id": id}, **options)
    assert (status, report["status"]) == (200, "checked"), report
    return report


def commit(running, id="next", **options):
    return running.request("POST", "/_reload/commit", {"id": id}, **options)


def committed(running, id="next", **options):
    status, report = commit(running, id, **options)
    assert (status, report["status"]) == (200, "committed"), report
    return report


def discard(running, id="next", **options):
    status, answer = running.request("POST", "/_reload/discard", {"id": id}, **options)
    assert status == 200, answer
    return answer["discarded"]


def replace_a_worker(running, pid):
    """Kill it, and return the process id of the one that takes its place."""
    before = running.workers()
    running.kill(pid)
    [new] = running.await_members() - before
    return new


# Previews --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [DOCUMENT, WHOLE], ids=["dispatcher", "whole source"])
def test_every_worker_serves_the_preview_and_the_commit_is_what_was_staged(running, document):
    running.edit(1)
    report = stage(running, {**document, "label": "v1"})
    assert report["staged"]["id"] == "next"
    assert [worker["ok"] for worker in report["workers"]] == [True] * 3
    assert everywhere(running) == ((1, 1), (0, 0))
    running.edit(2, extra="\n1 / 0\n")
    for pid in running.workers():
        with running.connected_to(pid) as connection:
            staged = running.status(connection=connection)["staged"]
            assert (staged["id"], staged["generation"]) == ("next", 1)
    report = committed(running)
    assert (report["generation"], report["previous"], report["label"]) == (1, 0, "v1")
    assert [worker["ok"] for worker in report["workers"]] == [True] * 3
    assert everywhere(running) == ((1, 1), (1, 1))
    assert running.status()["staged"] is None
    replace_a_worker(running, min(running.workers()))
    assert everywhere(running) == ((1, 1), (1, 1))


@pytest.mark.parametrize("worker_class", ["sync", "gevent"])
def test_other_kinds_of_workers_preview_and_commit_too(start, worker_class):
    running = start(worker_class=worker_class)
    running.edit(1)
    stage(running, WHOLE)
    for pid in running.workers():
        with running.connected_to(pid) as connection:
            status, told, body = raw(connection, preview_headers())
        assert (status, ("HotReload-Preview", "next") in told) == (200, True)
        assert json.loads(body)["result"]["edition"] == 1
    assert {answer["edition"] for answer in running.everywhere().values()} == {0}
    committed(running)
    assert {answer["edition"] for answer in running.everywhere().values()} == {1}


def test_nobody_can_tell_without_the_token_on_any_worker(running):
    strangers = [
        {},
        {"HotReload-Preview": "next"},
        preview_headers(token="0123456789abcdef-wrong"),
        preview_headers("another"),
        {"Authorization": f"Bearer {TOKEN}"},
    ]

    def answers():
        told = {}
        for pid in running.workers():
            with running.connected_to(pid) as connection:
                told[pid] = [raw(connection, headers) for headers in strangers]
        return told

    before = answers()
    running.edit(1)
    stage(running)
    assert answers() == before
    assert everywhere(running) == ((1, 1), (0, 0))


def test_code_that_fails_stages_nothing_anywhere(running):
    running.edit(1, extra="\n1 / 0\n")
    status, problem = running.post_reload({**DOCUMENT, "stage": True, "id": "next"})
    assert (status, problem["report"]["error"]["type"]) == (422, "LoadError")
    assert everywhere(running) == ((0, 0), (0, 0))
    assert commit(running)[0] == 400


# Commits ---------------------------------------------------------------------------------------------------------


def test_any_worker_can_be_asked_to_commit_and_a_retry_on_any_gets_the_same_report(running):
    first, second, third = sorted(running.workers())
    running.edit(1)
    with running.connected_to(first) as connection:
        stage(running, connection=connection)
    reports = []
    for pid in (second, third, first):
        with running.connected_to(pid) as connection:
            reports.append(committed(running, connection=connection))
    assert reports == [reports[0]] * 3
    assert everywhere(running) == ((1, 1), (1, 1))


@pytest.mark.parametrize("document", [DOCUMENT, WHOLE], ids=["dispatcher", "whole source"])
def test_a_worker_that_starts_after_the_stage_serves_previews_and_commits_it(running, document):
    running.edit(1)
    with running.connected_to(min(running.workers())) as connection:
        stage(running, document, connection=connection)
    running.edit(0)
    new = replace_a_worker(running, min(running.workers()))
    until(lambda: previewed(running, new) == ((1, 1), (0, 0)), "the new worker serves no preview")
    running.edit(2, extra="\n1 / 0\n")
    with running.connected_to(new) as connection:
        report = committed(running, connection=connection)
    assert [worker["ok"] for worker in report["workers"]] == [True] * 3
    assert everywhere(running) == ((1, 1), (1, 1))


def test_all_workers_may_have_been_replaced_and_other_attempts_have_failed_before_the_commit(running):
    running.edit(1)
    stage(running)
    running.edit(2, extra="\n1 / 0\n")
    assert running.post_reload()[0] == 422
    running.edit(0)
    for pid in sorted(running.workers()):
        replace_a_worker(running, pid)
    running.edit(3)
    assert running.post_reload({**DOCUMENT, "dryRun": True})[0] == 200
    committed(running)
    assert everywhere(running) == ((1, 1), (1, 1))


def test_another_reload_in_between_makes_the_commit_a_409_on_every_worker(running):
    running.edit(1)
    stage(running)
    running.edit(2)
    running.reload()
    for pid in running.workers():
        with running.connected_to(pid) as connection:
            status, problem = commit(running, connection=connection)
        assert status == 409, problem
        assert "staged for generation 0, and 1 is served now" in problem["detail"]
    assert everywhere(running) == ((2, 1), (2, 1))
    stage(running, id="again")
    assert committed(running, "again")["generation"] == 2


def test_a_commit_that_fails_in_one_worker_changes_none_and_a_retry_tells_the_same(running):
    workers = running.workers()
    (running.folder / f"refuse-{max(workers)}").touch()
    refusal = """
def choosy(server, module, dispatcher):
    if os.path.exists(f"refuse-{os.getpid()}"):
        raise RuntimeError("this process does not want to")
"""
    running.edit(1, extra=refusal)
    stage(running, {"data": [{**DOCUMENT["data"][0], "overload": ["choosy"]}]})
    for _ in range(2):
        status, problem = commit(running)
        assert (status, problem["report"]["error"]["type"]) == (422, "ApplyError")
    assert everywhere(running) == ((0, 0), (0, 0))
    assert running.status()["staged"] is None


def test_a_commit_while_previews_are_inside_waits_for_them(running, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running.edit(1, extra=HOLD)
    document = {"data": [*DOCUMENT["data"], {**DOCUMENT["data"][0], "dispatcher": "hold"}]}
    stage(running, document)
    inside, asked = sorted(running.workers())[:2]
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "hold", "params": [str(pipe)]}).encode()
    with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        first, second, third = (stack.enter_context(running.connected_to(inside)) for _ in range(3))
        other = stack.enter_context(running.connected_to(asked))
        answer = pool.submit(raw, first, preview_headers(), call)
        with open(pipe, "w"):  # it opens when the request is inside
            commits = pool.submit(committed, running, connection=other)
            calls = pool.submit(call_until_held, running, second)
            until(lambda: running.status(connection=third)["held"], "no request is held")
            assert not commits.done()
        result = json.loads(answer.result()[2])["result"]
        assert (result["edition"], result["generation"], result["pid"]) == (1, 1, inside)
        assert commits.result()["drain"]["stragglers"] == []
        assert calls.result() == 1
    assert everywhere(running) == ((1, 1), (1, 1))


def call_until_held(running, connection):
    """Call until the answer is another one, which is that of the call which was held."""
    while not (edition := running.call("where", connection=connection)["edition"]):
        pass
    return edition


# The end ---------------------------------------------------------------------------------------------------------


def test_what_one_worker_discards_is_served_by_none_from_then_on(running):
    running.edit(1)
    stage(running)
    first, *others = sorted(running.workers())
    with ExitStack() as stack:
        connections = [stack.enter_context(running.connected_to(pid)) for pid in others]
        with running.connected_to(first) as connection:
            assert discard(running, connection=connection)
        for each in connections:
            assert b'"edition":0' in raw(each, preview_headers())[2]
    assert not discard(running)
    assert commit(running)[0] == 400
    for pid in running.workers():
        until(lambda pid=pid: staged_in(running, pid) is None, "it is still there")
    assert running.reload()["generation"] == 1


def staged_in(running, pid):
    with running.connected_to(pid) as connection:
        return running.status(connection=connection)["staged"]


def test_its_time_runs_out_on_every_worker(start):
    running = start(env={"HOTRELOAD_STAGE_SECONDS": "1"})
    running.edit(1)
    stage(running)
    for pid in running.workers():
        until(lambda pid=pid: staged_in(running, pid) is None, "it is still there")
    assert everywhere(running) == ((0, 0), (0, 0))
    status, problem = commit(running)
    assert status == 400
    assert "HOTRELOAD_STAGE_SECONDS" in problem["detail"]


def test_another_stage_takes_its_place_on_every_worker(running):
    running.edit(1)
    stage(running, id="first")
    running.edit(2)
    stage(running)
    assert everywhere(running, id="first") == ((0, 0), (0, 0))
    assert everywhere(running) == ((2, 1), (0, 0))
    assert commit(running, "first")[0] == 400
    committed(running)
    assert everywhere(running) == ((2, 1), (2, 1))


@pytest.mark.parametrize("step", ["coordinator.prepared", "coordinator.committed"])
def test_when_the_asked_worker_dies_in_the_commit_all_serve_the_same_and_a_retry_tells_what(start, tmp_path, step):
    stops = tmp_path / "stops"
    stops.mkdir()
    running = start(env={"CLUSTER_STOPS": str(stops)})
    running.edit(1)
    stage(running)
    running.edit(0)  # as long as nothing is committed a worker that starts serves the disk
    asked = min(running.workers())
    os.mkfifo(stops / f"{asked}.{step}")
    with ThreadPoolExecutor(1) as pool, running.connected_to(asked) as connection:
        commits = pool.submit(commit, running, connection=connection)
        with (stops / f"{asked}.{step}").open() as pipe:
            assert pipe.read() == "reached\n"
        running.kill(asked)
        with pytest.raises((OSError, HTTPException)):
            commits.result()
    running.await_members()
    done = step == "coordinator.committed"
    status, answer = commit(running)
    if done:
        assert (status, answer["status"]) == (200, "committed")
    else:
        assert (status, answer["report"]["error"]["type"]) == (503, "WorkerFailed")
    assert everywhere(running) == (((1, 1), (1, 1)) if done else ((0, 0), (0, 0)))
    running.edit(2)
    stage(running, id="again")
    committed(running, "again")
    assert {answer["edition"] for answer in running.everywhere().values()} == {2}


def test_a_worker_that_dies_during_the_commit_is_out_of_it(start, tmp_path):
    stops = tmp_path / "stops"
    stops.mkdir()
    running = start(env={"CLUSTER_STOPS": str(stops)})
    running.edit(1)
    stage(running)
    asked, *_, victim = sorted(running.workers())
    stop = stops / f"{victim}.participant.prepared"
    os.mkfifo(stop)
    with ThreadPoolExecutor(1) as pool, running.connected_to(asked) as connection:
        commits = pool.submit(committed, running, connection=connection)
        with stop.open() as pipe:
            assert pipe.read() == "reached\n"
        running.kill(victim)
        report = commits.result()
    assert {worker["pid"]: worker["ok"] for worker in report["workers"]}[victim] is False
    running.await_members()
    assert everywhere(running) == ((1, 1), (1, 1))

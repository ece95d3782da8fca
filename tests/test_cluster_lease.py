"""Workers whose store is one with leases: stopped ones, lost connections, lost data, another key."""

from __future__ import annotations

import json
import signal

import pytest
from cluster import DOCUMENT, cluster, service, until
from redis_server import RedisServer

KEY = "0123456789abcdef-signing"


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def start(tmp_path, redis):
    """Start the service in one folder, for which Redis is the store."""
    folder = service(tmp_path / "service")

    def start(**env):
        shared = {"HOTRELOAD_COORDINATOR": redis.url, "HOTRELOAD_SIGNING_KEY": KEY, "HOTRELOAD_RELEASE": "v1", **env}
        return cluster(folder, workers=2, env=shared)

    return start


def health(connection):
    connection.request("GET", "/_reload/health")
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def editions(running):
    return {answer["edition"] for answer in running.everywhere().values()}


def generations(running):
    return {worker["generation"] for worker in running.members().values()}


def test_a_worker_that_was_stopped_for_longer_than_its_lease_answers_by_what_the_others_have_committed(start):
    with start() as running:
        running.await_members()
        late, other = sorted(running.workers())
        with running.connected_to(other) as connection:
            running.stop(late)
            until(lambda: late not in running_members(running, connection), "its lease does not run out")
            running.edit(1)
            report = running.reload(connection=connection)
            assert [worker["pid"] for worker in report["workers"]] == [other]
            running.resume(late)
        with running.connected_to(late) as connection:
            answer = running.call("where", connection=connection)
            assert (answer["pid"], answer["edition"], answer["generation"]) == (late, 1, 1)
        running.await_members()
        running.edit(2)
        assert len(running.reload()["workers"]) == 2
        assert editions(running) == {2}


def running_members(running, connection):
    return {worker["pid"] for worker in running.status(connection=connection)["workers"]}


@pytest.mark.parametrize("with_data", [True, False])
def test_when_the_store_is_back_all_agree_again_on_what_they_serve(start, redis, with_data):
    with start() as running:
        running.await_members()
        for edition in (1, 2):
            running.edit(edition)
            running.reload()
        redis.kill()
        for pid in running.workers():
            with running.connected_to(pid) as connection:
                until(
                    lambda c=connection: health(c) == (200, {"status": "ok", "store": "away"}), "it does not notice"
                )
        assert editions(running) == {2}
        status, problem = running.post_reload()
        assert status == 503, problem
        redis.restart(with_data=with_data)
        running.await_members()
        assert generations(running) == {2}
        running.edit(3)
        report = running.reload()
        assert (report["generation"], len(report["workers"])) == (3, 2)
        running.kill(min(running.workers()))
        running.await_members()
        assert editions(running) == {3}


def test_a_worker_that_starts_while_the_store_is_away_serves_and_joins_when_it_is_back(start, redis):
    with start() as running:
        running.await_members()
        running.edit(1)
        running.reload()
        running.edit(9)
        redis.kill()
        before = running.workers()
        running.kill(min(before))
        (new,) = until(lambda: len(running.workers()) == 2 and running.workers() - before, "nobody takes its place")
        with running.connected_to(new) as connection:
            assert running.call("where", connection=connection)["edition"] == 9
            assert health(connection)[0] == 503
            redis.restart()
            until(lambda: health(connection)[0] == 200, "it does not join")
            assert running.call("where", connection=connection)["edition"] == 1
        assert editions(running) == {1}


def test_a_worker_with_another_key_is_listed_and_takes_no_part_until_no_worker_has_the_first_one(start):
    with start(HOTRELOAD_SIGNING_KEY="fedcba9876543210-another") as first:
        first.await_members()
        with start() as running:
            pids = running.workers()
            for pid in pids:
                with running.connected_to(pid) as connection:
                    status, problem = health(connection)
                    assert status == 503
                    assert "HOTRELOAD_SIGNING_KEY" in problem["detail"]
                    status, problem = running.post_reload(connection=connection)
                    assert status == 503
                    assert "HOTRELOAD_SIGNING_KEY" in problem["detail"]
            until(lambda: set(first.members()) >= pids, "they are not listed")
            assert {first.members()[pid]["state"] for pid in pids} == {"refused"}
            status, report = first.post_reload({**DOCUMENT, "dryRun": True})
            assert status == 200
            assert {worker["pid"] for worker in report["workers"]} == first.workers()
            for pid in (first.master, *first.workers()):  # the master first: it would replace them
                first.signal(signal.SIGKILL, pid)
            for pid in pids:
                with running.connected_to(pid) as connection:
                    until(lambda c=connection: health(c)[0] == 200, "it does not take part")
            running.edit(1)
            assert len(running.reload()["workers"]) == 2

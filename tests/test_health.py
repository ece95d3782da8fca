"""Whether a worker should get requests: under gunicorn, in each state that it can be in."""

from __future__ import annotations

import json

import pytest
from cluster import DOCUMENT, cluster, service, until

HOOKS = ("--config", "python:flask_hotreload.gunicorn")
TAKES_OVER = """

def take_over(server, module, dispatcher):
    import pathlib
    if pathlib.Path("refuses").exists():
        raise RuntimeError("this worker cannot")
"""


@pytest.fixture
def running(tmp_path):
    with cluster(service(tmp_path / "service"), workers=2, options=HOOKS) as running:
        running.await_members()
        yield running


def health(connection):
    """Status, ``Retry-After`` and body; without a token."""
    connection.request("GET", "/_reload/health")
    response = connection.getresponse()
    return response.status, response.getheader("Retry-After"), json.loads(response.read())


def replaced(running):
    """Kill a worker; return the process ids of the one that stays and of the one that takes its place."""
    [one, other] = sorted(running.workers())
    running.kill(one)
    new = until(lambda: running.workers() - {one, other}, "no worker replaces the killed one")
    return other, new.pop()


def test_a_worker_that_serves_what_is_committed_is_healthy(running):
    running.edit(1)
    running.reload()
    for pid in running.workers():
        with running.connected_to(pid) as connection:
            assert health(connection) == (200, None, {"status": "ok"})


def test_a_worker_that_cannot_run_what_is_committed_is_unhealthy_until_it_has_caught_up(running):
    running.edit(1, extra=TAKES_OVER)
    running.reload({"data": [{**DOCUMENT["data"][0], "overload": "take_over"}]})
    refuses = running.folder / "refuses"
    refuses.touch()
    stays, behind = replaced(running)
    with running.connected_to(behind) as connection, running.connected_to(stays) as healthy:
        status, retry, problem = health(connection)
        assert (status, retry) == (503, "1")
        assert "does not serve what is committed" in problem["detail"]
        assert health(healthy)[0] == 200
        told = {worker["pid"]: worker["state"] for worker in running.status(connection=connection)["workers"]}
        assert told[behind] == "behind"
        refuses.unlink()
        until(lambda: health(connection)[0] == 200, "it does not catch up")
        answer = running.call("where", connection=connection)
        assert (answer["edition"], answer["generation"], answer["pid"]) == (1, 1, behind)


def test_a_worker_that_starts_and_cannot_read_its_store_is_unhealthy_and_serves(running):
    for file in running.store().glob("store.sqlite*"):
        with file.open("r+b") as opened:
            opened.write(b"no database " * 400)
    stays, new = replaced(running)
    with running.connected_to(new) as connection, running.connected_to(stays) as healthy:
        assert (health(connection)[0], health(healthy)[0]) == (503, 200), "the one that stays serves what it knows"
        assert running.call("where", connection=connection)["pid"] == new
    for pid in running.hup():
        with running.connected_to(pid) as connection:
            assert health(connection)[0] == 200

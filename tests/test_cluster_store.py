"""Where workers meet, and what becomes of reloads and of requests when they cannot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fcntl import LOCK_EX, flock

import pytest
from cluster import cluster, service, until
from stopping import Stop


@pytest.fixture
def start(tmp_path):
    """Start the service in a folder of its own."""

    def start(**options):
        return cluster(service(tmp_path / "service"), **options)

    return start


def editions(running):
    return {pid: answer["edition"] for pid, answer in running.everywhere().items()}


def test_a_local_coordinator_that_sees_several_processes_refuses_and_names_the_setting(start):
    with start(workers=2, env={"HOTRELOAD_COORDINATOR": "local"}) as running:
        status, problem = running.post_reload()
        assert status == 503
        assert "HOTRELOAD_COORDINATOR" in problem["detail"]


def test_workers_of_two_masters_meet_in_a_file_that_both_name(start, tmp_path):
    shared = {"HOTRELOAD_COORDINATOR": f"sqlite://{tmp_path}/shared/store.sqlite"}
    (tmp_path / "shared").mkdir(mode=0o700)
    folder = service(tmp_path / "service")
    with cluster(folder, workers=2, env=shared) as one, cluster(folder, workers=2, env=shared) as other:
        everybody = one.workers() | other.workers()
        until(lambda: set(one.members()) == everybody, "the four do not meet")
        one.edit(1)
        report = one.reload()
        assert {worker["pid"] for worker in report["workers"]} == everybody
        assert {*editions(one).values(), *editions(other).values()} == {1}


# Trouble with the store -------------------------------------------------------------------------------------------


def store_file(running):
    (file,) = (each for each in running.store().iterdir() if each.suffix == ".sqlite")
    return file


def spoil(running, how):
    file = store_file(running)
    if how == "deleted":
        for each in running.store().iterdir():
            each.unlink()
        running.store().rmdir()
    elif how == "corrupt":
        for each in running.store().glob(f"{file.name}*"):
            with each.open("r+b") as opened:
                opened.write(b"no database " * 400)
    elif how == "emptied":
        for each in running.store().glob(f"{file.name}*"):
            each.unlink()


@pytest.mark.parametrize("how", ["deleted", "corrupt", "emptied"])
def test_trouble_with_the_store_fails_the_reload_and_leaves_requests_alone(start, how):
    with start() as running:
        workers = running.await_members()
        running.edit(1)
        running.reload()
        spoil(running, how)
        running.edit(2)
        status, problem = running.post_reload()
        assert status == 503, problem
        assert problem["report"]["error"]["type"] == "StoreUnavailable"
        assert editions(running) == dict.fromkeys(workers, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_commit_that_finds_the_store_locked_is_made_once_it_is_free(start, tmp_path, workers):
    stops = tmp_path / "stops"
    stops.mkdir()
    with start(workers=workers, env={"CLUSTER_STOPS": str(stops)}) as running:
        coordinator = min(running.await_members())
        running.edit(1)
        stop = Stop(stops, coordinator, "coordinator.before-commit")  # all have voted, each with its lock closed
        with running.connected_to(coordinator) as connection, ThreadPoolExecutor(1) as thread:
            answer = thread.submit(running.post_reload, connection=connection)
            stop.await_reached()
            with open(f"{store_file(running)}.lock") as lock:
                flock(lock, LOCK_EX)
                stop.let_go()
                until(lambda: "is locked" in running.logged(), "nobody notices that it is locked")
            status, report = answer.result(30)
        assert (status, report.get("generation")) == (200, 1), report
        assert set(editions(running).values()) == {1}


def test_a_worker_whose_store_is_gone_serves_all_the_same_and_a_hup_brings_it_back(start):
    with start(workers=2) as running:
        running.await_members()
        spoil(running, "deleted")
        running.kill(max(running.workers()))
        until(lambda: len(running.workers()) == 2, "no worker replaces the killed one")
        running.everywhere()
        running.hup()
        running.edit(1)
        assert len(running.reload()["workers"]) == 2

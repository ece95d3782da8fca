"""Ordinary deploys of gunicorn begin a new release: HUP from the disk, USR2 and others with a new master."""

from __future__ import annotations

import signal

import pytest
from cluster import children, cluster, service, until


@pytest.fixture
def start(tmp_path):
    """Start the service in a folder of its own."""

    def start(**options):
        return cluster(service(tmp_path / "service"), **options)

    return start


HOOKS = ("-c", "python:flask_hotreload.gunicorn")


def editions(running):
    return {pid: answer["edition"] for pid, answer in running.everywhere().items()}


@pytest.mark.parametrize(
    ("worker_class", "options"),
    [
        ("gthread", HOOKS),
        ("gevent", ()),
        pytest.param("gthread", (), marks=pytest.mark.long),
        pytest.param("gevent", HOOKS, marks=pytest.mark.long),
    ],
)
def test_a_hup_starts_afresh_from_disk_and_generation_numbers_go_on(start, options, worker_class):
    with start(options=options, worker_class=worker_class) as running:
        running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2)
        running.reload()
        running.edit(3)
        running.hup()
        answers = running.everywhere().values()
        assert {(answer["edition"], answer["generation"]) for answer in answers} == {(3, 2)}
        running.edit(4)
        assert running.reload()["generation"] == 3
        # A worker that is replaced now catches up with what was committed since the HUP, not before.
        running.edit(5)
        running.kill(max(running.workers()))
        running.await_members()
        assert {(a["edition"], a["generation"]) for a in running.everywhere().values()} == {(4, 3)}


def test_after_a_hup_a_replaced_worker_serves_the_disk_as_long_as_nothing_is_reloaded(start):
    with start() as running:
        running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2)
        running.hup()
        running.kill(max(running.workers()))
        running.await_members()
        assert set(editions(running).values()) == {2}


def test_a_hup_of_preloaded_code_keeps_what_is_committed_since_gunicorn_imports_nothing_again(start):
    with start(options=("--preload",)) as running:
        running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2)
        running.hup()
        assert {(a["edition"], a["generation"]) for a in running.everywhere().values()} == {(1, 1)}


def test_a_second_master_has_a_journal_of_its_own(start):
    with start(workers=2, own_socket=True) as running:
        first = running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2)
        running.signal(signal.SIGUSR2)
        second_master = until(
            lambda: next((pid for pid in running.workers() - first if children(pid)), None), "no second master"
        )
        until(lambda: len(children(second_master)) == 2, "the second master has no workers")
        answers = running.everywhere(pids=first | children(second_master))
        assert {answers[pid]["edition"] for pid in first} == {1}
        assert {answers[pid]["edition"] for pid in children(second_master)} == {2}
        # To whom the kernel gives a reload belongs to one of the two; neither touches the other.
        report = running.reload()
        assert {worker["pid"] for worker in report["workers"]} in (first, children(second_master))
        running.signal(signal.SIGTERM, second_master)
        until(lambda: not children(second_master), "the second master does not end")

"""Where a process stands under gunicorn, and what runs before its first request: in real gunicorns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from cluster import children, cluster, service, until

from flask_hotreload import boot
from flask_hotreload import gunicorn as hooks

HOOKS = ["-c", "python:flask_hotreload.gunicorn"]


@pytest.fixture
def start(tmp_path):
    """Start the service ``place`` with options; it reports into a file as well."""

    def start(*options, thread=False, workers=2, env=None, **settings):
        folder = service(tmp_path / "place")
        env = {"PLACE_LOG": str(tmp_path / "ends"), **({"PLACE_THREAD": "1"} if thread else {}), **(env or {})}
        return cluster(folder, app="place:app", workers=workers, options=options, env=env, **settings)

    return start


def ends(tmp_path):
    """The process ids that have called ``afterwards``."""
    file = tmp_path / "ends"
    return [json.loads(line)["ended"] for line in file.read_text().splitlines()] if file.exists() else []


def each(running, number=None):
    """The answer of each worker, by process id, once there are ``number``."""
    answers = {}

    def complete():
        answer = running.get("/")
        answers[answer["pid"]] = answer
        present = running.workers()
        return present == {pid for pid in answers if pid in present} and len(present) == (number or len(present))

    until(complete, f"only {sorted(answers)} of {running.workers()} answer")
    return {pid: answers[pid] for pid in running.workers()}


def release_after(running, number=2):
    """The release of the workers of the last HUP, when the old ones have gone."""
    before = running.workers()
    running.signal(signal.SIGHUP)
    until(lambda: not running.workers() & before, "the old workers do not end")
    (release,) = {answer["calls"][0][1] for answer in each(running, number).values()}
    return release


def check_first_workers(running):
    for pid, answer in each(running).items():
        assert answer["made"] == [{"seen": [running.master, None, False], "registered": True, "pid": pid}]
        assert answer["calls"] == [[running.master, None, False]]


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_a_worker_knows_its_master_and_is_called_before_it_serves(start, worker_class):
    with start(worker_class=worker_class) as running:
        assert f"Using worker: {worker_class}" in running.logged()
        check_first_workers(running)


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_an_application_that_the_master_preloads_is_called_in_each_worker(start, worker_class):
    with start("--preload", worker_class=worker_class) as running:
        for answer in each(running).values():
            assert answer["made"] == [
                {"seen": [running.master, "0", True], "registered": True, "pid": running.master}
            ]
            assert answer["calls"] == [[running.master, "0", True]]


def test_an_application_that_a_thread_makes_is_seen_too(start):
    with start(thread=True) as running:
        check_first_workers(running)


def test_a_hup_begins_a_release_that_its_workers_share_and_no_other_hup_has(start):
    with start() as running:
        assert release_after(running) == "hup-2"
        assert release_after(running) == "hup-4"


def test_a_worker_that_replaces_one_of_a_hup_belongs_to_what_is_served_by_now(start):
    with start() as running:
        release_after(running)
        old = running.workers()
        victim = min(old)
        running.kill(victim)
        (fresh,) = until(lambda: running.workers() - old, "no worker replaces the killed one")
        assert each(running, 2)[fresh]["calls"] == [[running.master, None, False]]


def test_with_the_hooks_it_knows_of_which_hup_it_is(start):
    with start(*HOOKS) as running:
        check_first_workers(running)
        release_after(running)
        old = running.workers()
        running.kill(min(old))
        (fresh,) = until(lambda: running.workers() - old, "no worker replaces the killed one")
        assert each(running, 2)[fresh]["calls"] == [[running.master, "hup-2", False]]


def test_a_hup_begins_no_release_when_the_code_is_preloaded_since_gunicorn_does_not_import_it_again(start):
    with start("--preload", *HOOKS) as running:
        assert release_after(running) == "0"


def test_a_hup_that_turns_preloading_on_begins_a_release_that_later_workers_belong_to(start, tmp_path):
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("preload_app = False\n")
    with start("-c", str(config)) as running:
        config.write_text("preload_app = True\n")
        assert release_after(running) == "hup-2"
        old = running.workers()
        running.kill(min(old))
        (fresh,) = until(lambda: running.workers() - old, "no worker replaces the killed one")
        assert each(running, 2)[fresh]["calls"] == [[running.master, "hup-2", True]]


def test_workers_that_are_added_belong_to_what_is_served_by_now(start):
    with start() as running:
        running.signal(signal.SIGTTIN)
        until(lambda: len(running.workers()) == 3, "no worker is added")
        check_first_workers(running)


@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_children_of_a_worker_are_not_under_gunicorn(start, options):
    with start(*options) as running:
        answers = running.get("/children")["children"]
    for method in ("fork", "spawn"):
        seen, registered, _ = answers[method]
        assert seen is None, method
        assert registered is False, method


@pytest.mark.parametrize("options", [(), HOOKS])
def test_an_application_made_while_requests_are_served_is_told_that_it_is_too_late(start, options):
    with start(*options, workers=1) as running:
        running.get("/late")
        first, second = running.get("/")["made"]
        assert first["registered"] is True
        assert second == {**first, "registered": False}


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_a_worker_that_ends_in_order_is_called_once_more(start, tmp_path, worker_class):
    with start(worker_class=worker_class) as running:
        workers = running.workers()
        each(running)
    assert sorted(ends(tmp_path)) == sorted(workers)


def test_a_child_that_leaves_through_the_frames_of_the_worker_ends_nothing(start, tmp_path):
    with start(workers=1, worker_class="sync") as running:
        # gunicorn lets it answer the request, in its parent's place, and then leave as a worker does.
        running.request("GET", "/fork")
        until(lambda: "Worker exiting" in running.logged(), "the child does not leave")
        until(lambda: not children(min(running.workers())), "the child does not end")
        assert ends(tmp_path) == []


def test_outside_of_gunicorn_there_is_no_place_and_nobody_is_called(tmp_path):
    folder = service(tmp_path / "place")
    # As in a process that a worker has started.
    environment = {**os.environ, "SERVER_SOFTWARE": "gunicorn/27.0.1", "PLACE_LOG": str(tmp_path / "ends")}
    script = "import place; print(place.made, place.calls)"
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "'seen': None, 'registered': False" in printed
    assert printed.endswith(" []\n")


def test_a_later_hup_supersedes_an_earlier_one_and_every_hup_the_start():
    assert boot.supersedes("hup-12", "hup-4")
    assert boot.supersedes("hup-4", "0")
    assert not boot.supersedes("hup-4", "hup-12")
    assert not boot.supersedes("0", "0")


def test_gunicorn_takes_nothing_but_the_hooks_for_settings():
    from gunicorn.config import make_settings

    assert vars(hooks).keys() & make_settings().keys() == {"on_reload", "post_fork", "child_exit"}


@pytest.mark.long
@pytest.mark.parametrize("version", ["23.0.0", "24.1.1", "25.3.0", "26.2.0", "27.0.1"])
def test_every_version_of_gunicorn_is_understood(start, version, tmp_path):
    packages = tmp_path / "gunicorn"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages]
    subprocess.run([*pip, f"gunicorn=={version}"], check=True)
    with start(env={"PYTHONPATH": str(packages)}, control_socket=True) as running:
        assert f"Starting gunicorn {version}" in running.logged()
        check_first_workers(running)
        assert release_after(running) == "hup-2"
        assert release_after(running) == "hup-4"

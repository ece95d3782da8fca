"""What a worker runs that takes another one's place, or is added, when the disk holds other files by then."""

from __future__ import annotations

import os
import signal
import sqlite3

import pytest
from cluster import cluster, service, until

HOOKS = ("-c", "python:flask_hotreload.gunicorn")
BROKEN = "\ndef broken(\n"
CHANGED = "\nfirst = 'changed on disk'\n"


@pytest.fixture
def start(tmp_path):
    """Start the service with the hooks, unless ``options`` are given, in a folder of its own."""

    def start(options=HOOKS, edit=lambda folder: None, **more):
        folder = service(tmp_path / "service")
        edit(folder)
        return cluster(folder, options=options, **more)

    return start


def add(running, text, file="state.py"):
    """Write a file anew, with ``text`` at its end."""
    fresh = running.folder / f".{file}"
    fresh.write_text((running.folder / file).read_text() + text)
    fresh.replace(running.folder / file)


def replace_one(running):
    """Kill a worker; return its successor, once that takes part."""
    before = running.workers()
    running.kill(max(before))
    (fresh,) = running.await_members(len(before)) - before
    return fresh


def answers(running):
    """What the workers answer: edition, generation, and what ``state`` says."""
    return {(each["edition"], each["generation"], each["first"]) for each in running.everywhere().values()}


def committed(running):
    """One reload that everybody has."""
    running.await_members()
    running.edit(1)
    running.reload()
    return {(1, 1, None)}


# With the hooks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_a_worker_starts_and_serves_what_is_committed_whatever_is_broken_on_disk(start, worker_class):
    with start(workers=2, worker_class=worker_class) as running:
        served = committed(running)
        for file in ("app.py", "state.py", "where.py"):
            add(running, BROKEN, file)
        replace_one(running)
        assert answers(running) == served
        running.signal(signal.SIGTTIN)
        running.await_members(3)
        assert answers(running) == served
        (running.folder / "state.py").unlink()
        replace_one(running)
        assert answers(running) == served
        assert "the disk" not in running.logged()


def test_a_file_that_was_changed_and_not_reloaded_is_not_seen_by_later_workers_alone(start):
    with start(workers=2) as running:
        served = committed(running)
        add(running, CHANGED)
        replace_one(running)
        assert answers(running) == served
        running.edit(2)
        running.reload()
        assert answers(running) == {(2, 2, None)}
        replace_one(running)
        assert answers(running) == {(2, 2, None)}


def test_what_a_later_worker_runs_differs_from_the_disk_and_it_says_so(start):
    with start(workers=1) as running:
        committed(running)
        add(running, CHANGED)
        replace_one(running)
        pending = running.status()["pending"]
        assert {"file": str(running.folder / "state.py"), "change": "modified"} in pending


def test_a_hup_reads_the_disk_and_its_workers_are_replaced_by_what_it_has_read(start):
    with start(workers=2) as running:
        committed(running)
        add(running, CHANGED)
        running.hup()
        assert answers(running) == {(1, 1, "changed on disk")}
        add(running, "\nfirst = 'changed again'\n")
        running.edit(2)
        running.reload()
        replace_one(running)
        assert answers(running) == {(2, 2, "changed on disk")}


def test_after_an_aborted_reload_alone_the_disk_counts(start):
    with start(workers=1) as running:
        running.await_members()
        add(running, BROKEN, "where.py")
        assert running.post_reload()[0] == 422
        running.edit(5)
        add(running, CHANGED)
        replace_one(running)
        assert answers(running) == {(5, 0, "changed on disk")}


def test_who_started_last_before_the_first_reload_says_what_later_workers_run(start):
    """All workers may have been replaced, to bring in what was deployed."""
    with start(workers=1) as running:
        running.await_members()
        add(running, CHANGED)
        replace_one(running)
        running.edit(1)
        running.reload()
        add(running, BROKEN)
        replace_one(running)
        assert answers(running) == {(1, 1, "changed on disk")}


def test_a_worker_that_imported_the_disk_before_the_first_reload_and_joins_after_it_is_replaced(start):
    waits = "\nimport os, time\nopen('begun', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    with start(workers=2) as running:
        before = running.await_members()
        add(running, CHANGED + waits)
        running.kill(max(before))
        until((running.folder / "begun").exists, "no worker takes its place")
        running.edit(1)
        running.reload()
        (slow,) = running.workers() - before
        (running.folder / "go").touch()
        until(lambda: slow not in running.workers(), "it stays")
        running.await_members(2)
        assert answers(running) == {(1, 1, None)}


def test_under_gunicorns_own_reloader_the_disk_counts(start):
    with start(workers=1, options=(*HOOKS, "--reload")) as running:
        committed(running)
        (old,) = running.workers()
        add(running, CHANGED)
        until(lambda: old not in running.workers(), "gunicorn does not notice")
        running.await_members()
        assert answers(running) == {(1, 1, "changed on disk")}


def test_what_gunicorns_configuration_has_imported_is_the_masters_in_every_worker(start, tmp_path):
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("import state\nfrom flask_hotreload.gunicorn import *\n")
    with start(workers=2, options=("-c", str(config)), env={"PYTHONPATH": str(tmp_path / "service")}) as running:
        running.await_members()
        add(running, CHANGED)
        replace_one(running)
        served = committed(running)
        add(running, BROKEN)
        replace_one(running)
        assert answers(running) == served
        assert "the disk" not in running.logged()


def test_preloaded_code_leaves_nothing_to_import(start):
    with start(workers=2, options=(*HOOKS, "--preload")) as running:
        served = committed(running)
        add(running, BROKEN)
        replace_one(running)
        assert answers(running) == served
        assert rows(running, "SELECT count(*) FROM bases") == [(0,)]


# Without them ------------------------------------------------------------------------------------------------------


def import_us_first(folder):
    app = folder / "app.py"
    app.write_text("import flask_hotreload\n" + app.read_text())


def test_without_the_hooks_what_is_imported_after_this_package_is_what_was_served(start):
    with start(options=(), edit=import_us_first, workers=2) as running:
        served = committed(running)
        add(running, BROKEN)
        replace_one(running)
        assert answers(running) == served


def test_without_the_hooks_what_is_imported_before_this_package_comes_from_the_disk_and_the_log_says_so(start):
    with start(options=(), workers=2) as running:
        committed(running)
        add(running, CHANGED)
        replace_one(running)
        assert answers(running) == {(1, 1, None), (1, 1, "changed on disk")}
        assert "state: imported from the disk, where it is not what the other workers run" in running.logged()


def test_without_the_hooks_gunicorn_ends_if_the_applications_own_file_is_broken(start):
    with start(options=(), edit=import_us_first, workers=2) as running:
        committed(running)
        add(running, BROKEN, "app.py")
        running.kill(max(running.workers()))
        until(lambda: "Worker failed to boot" in running.logged(), "a worker starts")


# Faults ------------------------------------------------------------------------------------------------------------


def rows(running, statement):
    connection = sqlite3.connect(running.store() / "store.sqlite")
    try:
        found = connection.execute(statement).fetchall()
        connection.commit()
    finally:
        connection.close()
    return found


def tamper_with_a_source(running):
    rows(running, "UPDATE blobs SET data = CAST(data || 'raise SystemExit' AS BLOB)")


def exchange_a_source_for_text(running):
    rows(running, "UPDATE blobs SET data = CAST(data AS TEXT)")


def tamper_with_the_base(running):
    rows(running, "UPDATE bases SET base = replace(base, 'state', 'where')")


def exchange_the_key(running):
    key = running.store() / "store.sqlite.key"
    key.unlink()
    os.close(os.open(key, os.O_CREAT | os.O_WRONLY, 0o600))
    key.write_bytes(b"0" * 32)


def damage_the_store(running):
    for file in running.store().glob("store.sqlite*"):
        with file.open("r+b") as opened:
            opened.write(b"no database " * 400)


def remove_the_store(running):
    (running.store() / "store.sqlite").unlink()


def open_the_folder(running):
    running.store().chmod(0o755)


@pytest.mark.parametrize(
    "fault",
    [
        tamper_with_a_source,
        exchange_a_source_for_text,
        tamper_with_the_base,
        exchange_the_key,
        damage_the_store,
        remove_the_store,
        open_the_folder,
    ],
)
def test_a_worker_that_cannot_have_verified_sources_imports_the_disk_and_says_why(start, fault):
    with start(workers=2) as running:
        committed(running)
        add(running, CHANGED)
        before = running.workers()
        fault(running)
        running.kill(max(before))
        (fresh,) = until(lambda: running.workers() - before, "no worker takes its place")
        with running.connected_to(fresh) as connection:
            assert running.call("where", connection=connection)["first"] == "changed on disk"
        assert "this worker imports what lies on the disk, not what was served before: " in running.logged()

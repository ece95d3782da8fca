"""What the watcher does at each look at the disk, when it begins and ends, and what it makes of hints."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import watchfiles
from conftest import open_files, until

from flask_hotreload import HotRPC, ReloadBusy, StoreUnavailable, WorkerFailed
from flask_hotreload import watcher as watcher_module
from flask_hotreload.disk_changes import hints
from flask_hotreload.sources import Roots
from flask_hotreload.watcher import LATE, SOON, TRIES

HOME = '@app.get("/")\ndef home():\n    return "{}"\n'


@pytest.fixture
def files():
    """Afterwards the same files are open as before: the library's own thread closes its own a moment later."""
    before = open_files()
    yield
    until(lambda: open_files() == before, "the system still tells of changes")


@pytest.fixture
def stopped(files):
    stopped = threading.Event()
    yield stopped
    stopped.set()


@pytest.fixture
def service(site, files):
    site.serve(HOME.format("first"), watch=True)
    yield site
    watcher_of(site).end()
    for thread in watching():
        thread.join(10)


def watcher_of(site):
    return site.rpc._service._watcher


def page(site, **environ):
    with site.client().get("/", environ_overrides=environ) as response:
        return response.get_data(as_text=True)


def statuses(site):
    return [report.status for report in reversed(site.rpc.history())]


def watching():
    return [thread for thread in threading.enumerate() if thread.name == "hotreload-watcher"]


# One look ------------------------------------------------------------------------------------------------------


def test_a_look_reloads_what_differs_and_does_nothing_when_nothing_does(service):
    watcher = watcher_of(service)
    assert watcher.look() is None
    assert statuses(service) == []
    service.rewrite(HOME.format("second"))
    assert watcher.look() is None
    assert (page(service), statuses(service)) == ("second", ["committed"])
    assert service.rpc.history()[0].trigger == "watch"
    assert watcher.look() is None
    assert statuses(service) == ["committed"]


@pytest.mark.parametrize(
    "name", ["notes.txt", ".hidden/code.py", "__pycache__/code.py", "code.pyc", "site-packages/a.py"]
)
def test_what_is_not_the_projects_source_is_no_change(service, name):
    watcher_of(service).look()
    service.write(name, "VALUE = 1")
    assert watcher_of(service).look() is None
    assert statuses(service) == []


def test_broken_bytes_are_tried_once_and_told_once(service, caplog):
    watcher = watcher_of(service)
    service.rewrite("def broken(\n")
    for _ in range(3):
        assert watcher.look() is None
        os.utime(service.module.__file__)
    assert statuses(service) == ["aborted"]
    (told,) = (record for record in caplog.records if record.name == "flask_hotreload")
    assert told.levelno == logging.WARNING
    assert f"{service.name}.py:" in told.getMessage()
    service.rewrite("def broken_otherwise(\n")
    watcher.look()
    service.rewrite(HOME.format("good"))
    watcher.look()
    assert statuses(service) == ["aborted", "aborted", "committed"]
    assert page(service) == "good"


def test_a_file_that_is_just_being_written_is_waited_for(service, monkeypatch):
    def write_the_rest(seconds):
        monkeypatch.undo()
        service.rewrite(HOME.format("whole"))

    service.write(f"{service.name}.py", "")
    monkeypatch.setattr(watcher_module, "REST", 60.0)  # whatever happens meanwhile
    monkeypatch.setattr(time, "sleep", write_the_rest)
    watcher_of(service).look()
    assert (page(service), statuses(service)) == ("whole", ["committed"])


def test_going_back_to_what_runs_after_a_broken_save_reloads_nothing(service):
    watcher = watcher_of(service)
    service.rewrite("def broken(\n")
    watcher.look()
    service.rewrite(HOME.format("first"))
    watcher.look()
    assert statuses(service) == ["aborted"]


def test_a_rollback_is_not_undone_by_a_look(service):
    watcher = watcher_of(service)
    service.rewrite(HOME.format("second"))
    watcher.look()
    service.rpc.rollback()
    watcher.look()
    assert page(service) == "first"
    service.rewrite(HOME.format("third"))
    watcher.look()
    assert page(service) == "third"


def test_a_rollback_is_not_undone_by_whoever_takes_over(service):
    service.rewrite(HOME.format("second"))
    service.rpc.reload()
    service.rpc.rollback()
    watcher_of(service).look()
    assert page(service) == "first"


def test_a_change_of_a_kept_module_alone_is_asked_for_once(site):
    site.write("state.py", "VALUE = 1")
    site.serve("import state\n" + HOME.format("first"), watch=True, keep=["state"])
    watcher = watcher_of(site)
    watcher.look()
    site.write("state.py", "VALUE = 2")
    watcher.look()
    watcher.look()
    assert statuses(site) == ["unchanged"]


# A look that cannot reload yet ---------------------------------------------------------------------------------


class Refusing:
    """Stands for several processes that refuse a reload for reasons of their own."""

    def __init__(self, error):
        self.error = error
        self.asked = 0

    def conduct(self, document, asked):
        self.asked += 1
        raise self.error

    def remember(self, report):
        """Nobody else is there."""

    def history(self):
        raise StoreUnavailable("there is none")

    def earlier(self, identity):
        return None


@pytest.mark.parametrize("kind", [ReloadBusy, StoreUnavailable])
def test_a_reload_that_cannot_begin_is_tried_again_later_and_later(service, kind):
    watcher, error = watcher_of(service), kind("not now")
    service.rewrite(HOME.format("second"))
    service.rpc._service.reloader.conductor = refusing = Refusing(error)
    waits = [watcher.look() for _ in range(8)]
    assert waits[:3] == [SOON, 2 * SOON, 4 * SOON]
    assert waits[-1] == LATE
    assert refusing.asked == 8
    service.rpc._service.reloader.conductor = None
    assert watcher.look() is None
    assert page(service) == "second"


def test_code_that_may_kill_workers_is_not_tried_for_ever(service):
    watcher = watcher_of(service)
    error = WorkerFailed("it died", worker="host:1", reason="dead")
    service.rpc._service.reloader.conductor = refusing = Refusing(error)
    for number in (1, 2):
        service.rewrite(HOME.format(number))
        waits = [watcher.look() for _ in range(TRIES + 2)]
        assert waits == [SOON, 2 * SOON, None, None, None]
        assert refusing.asked == number * TRIES


def test_a_fault_of_the_reload_itself_does_not_end_the_watching(service, caplog):
    service.rpc._service.reloader.conductor = Refusing(ZeroDivisionError("not a ReloadError"))
    service.rewrite(HOME.format("second"))
    assert watcher_of(service).look() is None
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()  # its traceback keeps the service alive
    service.rpc._service.reloader.conductor = None
    service.rewrite(HOME.format("third"))
    watcher_of(service).look()
    assert page(service) == "third"


# When it begins and ends ---------------------------------------------------------------------------------------


def test_what_was_saved_before_a_servers_first_request_is_in_its_answer(service):
    service.rewrite(HOME.format("second"))
    assert page(service) == "first", "a test client's request begins nothing"
    assert watching() == []
    assert page(service, SERVER_SOFTWARE="a server") == "second"
    assert len(watching()) == 1


def test_a_request_that_is_not_the_first_begins_no_second_watcher(service):
    for _ in range(3):
        page(service, SERVER_SOFTWARE="a server")
    watcher_of(service).begin(multiprocess=False)
    assert len(watching()) == 1


def test_a_save_reaches_the_next_answer_by_the_thread(service):
    page(service, SERVER_SOFTWARE="a server")
    service.rewrite(HOME.format("second"))
    until(lambda: page(service) == "second", "the save is not served")


def test_who_stands_by_watches_when_its_turn_has_come(service, monkeypatch):
    turn = threading.Event()
    asked = threading.Event()

    def asks_for_all():
        asked.set()
        return turn.is_set()

    monkeypatch.setattr(service.rpc._service, "asks_for_all", asks_for_all)
    page(service, SERVER_SOFTWARE="a server")
    service.rewrite(HOME.format("second"))
    asked.clear()
    assert asked.wait(10)
    assert statuses(service) == []
    turn.set()  # whoever asked so far has gone
    until(lambda: page(service) == "second", "nobody has taken over")
    turn.clear()  # somebody else has it
    service.rewrite(HOME.format("third"))
    asked.clear()
    assert asked.wait(10)
    assert statuses(service) == ["committed"]


def test_the_thread_does_not_keep_an_application_alive_and_ends_with_it(files, tmp_path, monkeypatch):
    from flask import Flask

    monkeypatch.syspath_prepend(str(tmp_path))
    app = Flask("nowhere", root_path=str(tmp_path))
    HotRPC(app, watch=True, roots=[str(tmp_path)])
    with app.test_client().get("/", environ_overrides={"SERVER_SOFTWARE": "a server"}):
        (thread,) = watching()
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
    thread.join(10)
    assert not thread.is_alive()


def test_without_watchfiles_the_application_says_what_to_install(site, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(RuntimeError, match=r"pip install 'flask-hotreload\[watch\]'"):
        site.serve(watch=True)


def test_watching_is_off_unless_it_is_asked_for(site):
    site.serve(HOME.format("first"))
    assert watcher_of(site) is None
    assert importlib.util.find_spec("watchfiles") is not None
    page(site, SERVER_SOFTWARE="a server")
    assert watching() == []


# Hints ---------------------------------------------------------------------------------------------------------


def test_a_root_that_is_missing_is_waited_for(tmp_path, stopped, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    found = hints(Roots([root]), stopped)
    next(found)
    os.rename(root, tmp_path / "away")
    missing = threading.Event()

    def put_back():
        missing.wait(10)
        os.rename(tmp_path / "away", root)

    monkeypatch.setattr(stopped, "wait", lambda seconds: root.exists() or missing.set())  # who rests has looked
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(put_back)
        next(found)
        assert missing.is_set()
        back.result()
    found.close()


def test_where_the_system_cannot_tell_files_are_looked_at_again_and_again(tmp_path, stopped, monkeypatch, caplog):
    how = []

    def watch(*paths, force_polling, **options):  # the system's limits belong to all processes of a user
        how.append(force_polling)
        if not force_polling:
            raise OSError(28, "OS file watch limit reached")
        return real(*paths, force_polling=force_polling, poll_delay_ms=10, **options)

    real = watchfiles.watch
    monkeypatch.setattr(watchfiles, "watch", watch)
    found = hints(Roots([tmp_path]), stopped)
    next(found)
    (tmp_path / "code.py").write_text("VALUE = 1\n")
    next(found)
    found.close()
    assert how == [None, True]
    assert "fs.inotify.max_user_watches" in caplog.text

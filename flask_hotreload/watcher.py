"""``HOTRELOAD_WATCH``: a change on the disk reloads the whole source by itself.

One thread in the process that serves, ``hotreload-watcher``. Each hint makes it compare the disk with what runs; the
same bytes are tried once. So broken code is told once, by the reload's own line in the log, and the next save is the
next try; a rollback stays until something is saved; and files that are not the project's do nothing at all.

Of several processes of one deployment one asks for all; the others stand by, and take over when it has gone.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from flask_hotreload import boot
from flask_hotreload.disk_changes import REST, hints, require_watchfiles
from flask_hotreload.errors import ReloadBusy, ReloadError, ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.mutex import Mutex

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from flask_hotreload.drift import State
    from flask_hotreload.reloader import Reloader
    from flask_hotreload.sources import Roots

_log = logging.getLogger("flask_hotreload")

#: Seconds after which a reload that could not begin is tried again: the first time, and at most.
SOON, LATE = 1.0, 30.0
#: How often the same bytes are tried when a worker fails: they may be what kills it.
TRIES = 3
#: Seconds after which a process that stands by asks again whether it is the one.
STANDBY = 1.0

_OTHER = (
    "HOTRELOAD_WATCH changes the code of the running process, and {who} restarts that process at each change: start "
    "it {how}, or leave HOTRELOAD_WATCH unset"
)
_ALONE = (
    "HOTRELOAD_WATCH watches nothing: this server runs several processes, and HOTRELOAD_COORDINATOR is 'local', so "
    "that only one of them would change. Leave HOTRELOAD_COORDINATOR at 'auto', or run one process"
)


class Watched(Protocol):
    """What is used of the service."""

    @property
    def reloader(self) -> Reloader: ...
    @property
    def roots(self) -> Roots: ...
    def disk(self) -> State: ...
    def running(self) -> State: ...
    def asks_for_all(self) -> bool: ...


def require_watching() -> None:
    """Raise ``RuntimeError`` if files cannot be watched: another reloader is active, or the library is missing."""
    if is_running_from_reloader() or _is_run_with_reloader():
        raise RuntimeError(_OTHER.format(who="the reloader of Werkzeug", how="with --no-reload (use_reloader=False)"))
    place = boot.boot_place()
    if place is not None and getattr(_gunicorn_settings(place), "reload", False):
        raise RuntimeError(_OTHER.format(who="gunicorn --reload", how="without --reload"))
    require_watchfiles()


class Watcher:
    """Watches for ``service``, which it belongs to. Nothing is watched before :meth:`begin`."""

    def __init__(self, service: Watched) -> None:
        self._service = service
        self._tried: State | None = None  # what lay on the disk when there was last nothing more to do
        self._trying: State | None = None
        self._attempts = 0  # at that
        self._mutex = Mutex()  # protects _stopped
        self._stopped: threading.Event | None = None  # made in the process that watches, where gevent may replace it

    # When it begins and ends -----------------------------------------------------------------------------------

    def at_first_request(self, wsgi_app: WSGIApplication) -> WSGIApplication:
        """``wsgi_app``, which begins to watch when a server's first request comes."""
        return _FirstRequest(wsgi_app, self)

    def arrange(self) -> None:
        """Under gunicorn: watch in each worker as soon as it serves."""
        itself = weakref.ref(self)

        def begin(place: boot.Place) -> None:
            watcher = itself()
            if watcher is not None:
                workers = getattr(_gunicorn_settings(place), "workers", 1)
                watcher.begin(multiprocess=workers > 1)

        def end() -> None:
            watcher = itself()
            if watcher is not None:
                watcher.end()

        boot.before_serving(begin, afterwards=end)

    def begin(self, *, multiprocess: bool, look_first: bool = False) -> None:
        """Watch from now on, if this does not yet. ``multiprocess``: the server has several processes.

        ``look_first``: return when what is on the disk by now has been reloaded.
        """
        with self._mutex.lock:
            if self._stopped is not None:
                return
            self._stopped = stopped = threading.Event()
        if multiprocess and self._service.reloader.conductor is None:
            _log.error(_ALONE)
            return
        thread = threading.Thread(
            target=_watch, args=(weakref.ref(self), stopped), name="hotreload-watcher", daemon=True
        )
        try:
            if look_first and self.is_the_one:
                self.look()
        finally:
            # A thread that is inside the library when the interpreter ends would end it badly.
            weakref.finalize(self, _end, stopped, thread)
            thread.start()

    def end(self) -> None:
        """Watch no longer. A reload that has begun goes on."""
        if self._stopped is not None:
            self._stopped.set()

    # What it does ----------------------------------------------------------------------------------------------

    @property
    def is_the_one(self) -> bool:
        """Whether this process asks for all of its deployment."""
        return self._service.asks_for_all()

    @property
    def roots(self) -> Roots:
        return self._service.roots

    def look(self) -> float | None:
        """Reload if the disk is neither what runs nor what was tried last.

        Return the seconds after which to try again if it could not begin, ``None`` if there is nothing more to do.
        """
        service = self._service
        disk = self._at_rest()
        if disk == self._tried:
            return None
        just_begun = self._tried is None
        if disk == service.running() or (just_begun and service.reloader.current.restores is not None):
            self._done(disk)  # somebody has rolled back on purpose, before this process had its turn
            return None
        if disk != self._trying:
            self._trying, self._attempts = disk, 0
        try:
            service.reloader.reload({}, trigger="watch")
        except ReloadError as error:
            if self._is_worth_another_try(error):
                self._attempts += 1
                return float(min(SOON * 2 ** (self._attempts - 1), LATE))
        except Exception:  # noqa: BLE001  # a fault of ours or of the library's must not end the watching
            _log.exception("the reload for a change on the disk failed; save again, or reload")
        self._done(disk)
        return None

    def _at_rest(self) -> State:
        """What lies on the disk, once nothing of it was written just now: many write a file by emptying it first."""
        service = self._service
        while True:
            disk = service.disk()
            age = (time.time_ns() - disk.changed_ns) / 1e9
            if not 0 <= age < REST or disk in (self._tried, service.running()):
                return disk
            time.sleep(REST - age)

    def _done(self, disk: State) -> None:
        self._tried, self._trying = disk, None

    def _is_worth_another_try(self, error: ReloadError) -> bool:
        """Whether the same bytes may fare better. The reload itself has told the log of ``error``."""
        if isinstance(error, WorkerFailed):
            return self._attempts + 1 < TRIES
        if isinstance(error, ReloadInvalid):  # if nothing was read, the files were still being written
            return error.report is not None and error.report.digest is None
        return isinstance(error, (ReloadBusy, StoreUnavailable))


def _watch(itself: weakref.ref[Watcher], stopped: threading.Event) -> None:
    """The thread. It does not keep its watcher alive, nor the application that this belongs to."""
    try:
        while not stopped.is_set():
            if (roots := _roots_to_watch(itself)) is not None:
                for _ in hints(roots, stopped):
                    if not _look(itself, stopped):
                        break
            stopped.wait(STANDBY)
    except Exception:  # noqa: BLE001  # nobody else would tell
        _log.exception("HOTRELOAD_WATCH has ended: changes on the disk do nothing until a restart")


def _roots_to_watch(itself: weakref.ref[Watcher]) -> Roots | None:
    watcher = itself()
    return watcher.roots if watcher is not None and watcher.is_the_one else None


def _look(itself: weakref.ref[Watcher], stopped: threading.Event) -> bool:
    """Until there is nothing more to do. Return whether this process is still the one that asks."""
    while not stopped.is_set():
        watcher = itself()
        if watcher is None or not watcher.is_the_one:
            return False
        again = watcher.look()
        del watcher
        if again is None:
            return True
        stopped.wait(again)
    return False


def _end(stopped: threading.Event, thread: threading.Thread) -> None:
    stopped.set()
    if thread is not threading.current_thread():
        thread.join(1.0)  # it may be in a reload, which need not end first


class _FirstRequest:
    """A request that a server brings begins the watching; what was saved before it is in its answer.

    An application is also imported, and asked by test clients, in processes that do not serve.
    """

    def __init__(self, wsgi_app: WSGIApplication, watcher: Watcher) -> None:
        self._wsgi_app = wsgi_app
        self._watcher: Watcher | None = watcher

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        watcher = self._watcher
        if watcher is not None and _is_from_a_server(environ):
            self._watcher = None
            watcher.begin(multiprocess=bool(environ.get("wsgi.multiprocess")), look_first=True)
        return self._wsgi_app(environ, start_response)


def _is_from_a_server(environ: WSGIEnvironment) -> bool:
    return any(key in environ for key in ("SERVER_SOFTWARE", "REMOTE_PORT", "uwsgi.version"))


def _gunicorn_settings(place: boot.Place) -> Any:
    return getattr(place._worker, "cfg", None)


def _is_run_with_reloader() -> bool:
    """Whether ``flask run`` loads the application, and will start the process that serves with its reloader."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("flask.cli", "run_command"):
            reload = frame.f_locals.get("reload")
            return bool(get_debug_flag() if reload is None else reload)
        frame = frame.f_back
    return False

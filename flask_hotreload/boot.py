"""Where this process stands under gunicorn, and when it is about to serve. Nothing has to be configured for it.

gunicorn forks its workers from a master, and each worker imports the application and then runs its loop; with
``--preload`` the master imports it, once. Either way, what an application must do before its process answers the
first request, it gives to :func:`before_serving`; what must happen before the application is imported, to
:func:`before_loading`. The hooks of :mod:`flask_hotreload.gunicorn` tell the same things explicitly.

A release is what was deployed by starting processes. ``"0"`` is what the master started with; each ``HUP`` that made
gunicorn import the application once more begins another one, ``"hup-N"``, with N growing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple, Protocol

FIRST_RELEASE = "0"
_HUP = "hup-"


class Worker(Protocol):
    """What is used of gunicorn's worker object. ``pid`` is no number before the fork."""

    age: int
    pid: int | str
    ppid: int
    booted: bool
    cfg: Any
    run: Callable[[], object]
    load_wsgi: Callable[[], object]

    def notify(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where an application stands under gunicorn.

    ``master_pid``
        Process id of the master, which the workers of one service have in common.
    ``release``
        To which one the application's code belongs. ``None``: to the one that the service serves by now; so it is
        with a worker that replaces another one.
    ``in_master``
        The application was made in the master (``--preload``), and is served by processes forked from it.
    """

    master_pid: int
    release: str | None
    in_master: bool = False
    _worker: Worker | None = field(default=None, repr=False, compare=False)

    def notify(self) -> None:
        """Tell the master that this worker is alive, which gunicorn does not do before the worker serves."""
        if self._worker is not None:
            self._worker.notify()


def boot_place() -> Place | None:
    """Where an application stands that is made now; ``None`` if gunicorn is not seen to make it.

    A process that a worker has started, in whatever way, is not under gunicorn.
    """
    seen = _look()
    if seen is None:
        return None
    if seen.worker is None:
        return Place(os.getpid(), FIRST_RELEASE if seen.hup is None else release_of_hup(seen.hup), in_master=True)
    return _place_in(seen.worker, seen.hup)


def before_serving(callback: Callable[[Place], object], *, afterwards: Callable[[], object] | None = None) -> bool:
    """Call ``callback(place)`` in each worker that serves what has been imported by now, before its first request.

    It runs on the worker's main thread once everything has been imported, and no request is answered before it
    returns; the worker ends if it raises. ``afterwards()`` is called when the worker has answered its last one,
    unless it is killed. Return whether this will happen: ``False`` if gunicorn is not there, or this worker serves
    already.
    """
    place = boot_place()
    if place is not None and place._worker is not None:
        if place._worker.booted:
            return False
        _serving.register(_Registration(callback, afterwards, place))
        _serving.wrap(place._worker)
        return True
    # Forked from here, a worker serves what was made here; nobody else ever calls it.
    _serving.register(_Registration(callback, afterwards, place))
    return place is not None


def before_loading(callback: Callable[[Place], object]) -> None:
    """Call ``callback(place)`` in each worker that is forked from here, before it imports the application.

    In a worker that is importing it just now: at once. It must not raise. Nowhere else is it called, and not under
    gunicorn's ``--reload``, which wants what lies on the disk.
    """
    place = boot_place()
    if place is None or place._worker is None:
        _serving.loading.append(callback)
    elif not place._worker.booted and not _wants_the_disk(place._worker):
        callback(place)


def _wants_the_disk(worker: Worker) -> bool:
    return bool(getattr(worker.cfg, "reload", False))


def release_of_hup(last_worker_age: int) -> str:
    """The release begun by the HUP before which the master had spawned that many workers."""
    return f"{_HUP}{last_worker_age}"


def supersedes(release: str, other: str) -> bool:
    """Whether ``release`` was begun after ``other``: both of one master, as named here.

    A worker that booted slowly through two HUPs must not bring back the release of the first.
    """
    return _order(release) > _order(other)


def _order(release: str) -> int:
    return int(release.removeprefix(_HUP)) if release.startswith(_HUP) else -1


# What gunicorn's stack tells ---------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """``worker``: the one that this process is, ``None`` in the master. ``hup``: the HUP's ``last_worker_age``."""

    worker: Worker | None
    hup: int | None


def _look() -> _Seen | None:
    """Whether the master's or a worker's frames are below the caller, and what they hold.

    This relies on the following, which holds from gunicorn 23 to 27. Where it does not, nothing is seen, and the
    hooks of :mod:`flask_hotreload.gunicorn` do it.

    * A worker is forked in ``Arbiter.spawn_worker``, holds itself in the local ``worker``, and never leaves that
      frame. Its ``pid`` is its own process id; in the moment after the fork it is still no number.
    * On HUP the master imports the configuration, and the application if it preloads it anew, and spawns workers in
      ``Arbiter.reload``. ``worker_age`` counts the workers ever spawned; what it was before those of this HUP is the
      local ``last_worker_age``, or follows from the counter ``_`` of the loop (gunicorn 23).
    """
    arbiter, spawning, reloading = _arbiter_frames()
    if arbiter is None:
        return None if _serving.worker is None else _Seen(_serving.worker, None)
    worker = None if spawning is None else spawning.f_locals.get("worker")
    if worker is None:
        master_pid = getattr(arbiter, "pid", None)  # not there before the first workers are spawned
        if spawning is not None or master_pid not in (None, os.getpid()):
            return None
        return _Seen(None, None if reloading is None else arbiter.worker_age)
    if worker.pid != os.getpid() and not (isinstance(worker.pid, str) and worker.ppid == os.getppid()):
        return None
    if reloading is None:
        return _Seen(worker, None)
    last_worker_age = reloading.f_locals.get("last_worker_age")
    if last_worker_age is None and spawning is not None and spawning.f_back is reloading:
        last_worker_age = worker.age - 1 - reloading.f_locals["_"]
    return _Seen(worker, last_worker_age)


def _arbiter_frames() -> tuple[Any, FrameType | None, FrameType | None]:
    """The arbiter and its frames ``spawn_worker`` and ``reload``, on this thread's stack or on the main thread's."""
    main_thread = sys._current_frames().get(threading.main_thread().ident or 0)
    for top in (sys._getframe(1), main_thread):
        frame, arbiter, found = top, None, dict.fromkeys(("spawn_worker", "reload"))
        while frame is not None:
            if frame.f_globals.get("__name__") == "gunicorn.arbiter":
                arbiter = frame.f_locals.get("self", arbiter)
                if frame.f_code.co_name in found:
                    found[frame.f_code.co_name] = frame
            frame = frame.f_back
        if arbiter is not None:
            return arbiter, found["spawn_worker"], found["reload"]
    return None, None, None


def _place_in(worker: Worker, hup: int | None) -> Place:
    release = _told.release if hup is None else release_of_hup(hup)
    return Place(worker.ppid, release, _worker=worker)


class _Told:
    """What the hooks have said. The master's word is inherited by the workers that it forks."""

    release: str | None = None


_told = _Told()


def tell_release(last_worker_age: int) -> None:
    """In the master: workers that import the application from now on belong to the release of this HUP."""
    _told.release = release_of_hup(last_worker_age)


def tell_worker(worker: Worker) -> None:
    """In a new worker, before it imports the application: this is its object."""
    _serving.wrap(worker)


# Before and after serving ------------------------------------------------------------------------------------------


class _Registration(NamedTuple):
    """``place``: where the application was made."""

    callback: Callable[[Place], object]
    afterwards: Callable[[], object] | None
    place: Place | None


class _Serving:
    """The registrations of this process, and its worker once that is known."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.loading: list[Callable[[Place], object]] = []
        self._registrations: list[_Registration] = []

    def register(self, registration: _Registration) -> None:
        self._registrations.append(registration)

    def wrap(self, worker: Worker) -> None:
        """Have ``worker`` import its application, and run its loop, between the callbacks.

        ``Worker.init_process`` takes the user that the worker is to run as, and ends with ``self.load_wsgi()`` and
        ``self.run()``.
        """
        if self.worker is worker:
            return
        self.worker = worker
        self._wrap_run(worker)
        if self.loading and not _wants_the_disk(worker):
            self._wrap_load(worker)

    def _wrap_load(self, worker: Worker) -> None:
        load = worker.load_wsgi

        def load_afterwards() -> None:
            place = boot_place() or _place_in(worker, None)
            for callback in self.loading:
                callback(place)
            load()

        worker.load_wsgi = load_afterwards

    def _wrap_run(self, worker: Worker) -> None:
        run = worker.run

        def run_between() -> None:
            process = os.getpid()
            with ExitStack() as end:
                for registration in self._registrations:
                    worker.notify()
                    registration.callback(self._place(registration, worker))
                    if registration.afterwards is not None:
                        end.callback(registration.afterwards)
                worker.notify()
                try:
                    run()
                finally:
                    if os.getpid() != process:  # a child that a request has forked leaves through here, too
                        end.pop_all()

        worker.run = run_between

    def _place(self, registration: _Registration, worker: Worker) -> Place:
        made = registration.place
        if made is not None and made._worker is worker:
            return made
        # Made before the fork: it is what the master had imported then, whenever this worker was spawned.
        release = FIRST_RELEASE if made is None else made.release
        return Place(worker.ppid, release, in_master=True, _worker=worker)

    def forked(self) -> None:
        """In the child of any fork. The master's is a worker, or runs something else; a worker's is none."""
        was_worker, self.worker = self.worker is not None, None
        if was_worker:
            self._registrations.clear()
            self.loading.clear()
        elif (seen := _look()) is not None and seen.worker is not None:
            self.wrap(seen.worker)


_serving = _Serving()
os.register_at_fork(after_in_child=_serving.forked)

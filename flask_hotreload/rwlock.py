"""A readers–writer lock for requests and reloads.

Every request is a *reader*, the reload is the *writer*. What is guaranteed:

1. Readers share. While the gate is closed and the drain has returned nobody, no reader is inside.
2. A closed gate holds every new *outermost* reader until the gate opens; it never turns one away. When it opens all
   that it held are inside at once, before another writer can close the next.
3. A *nested* reader (one whose context descends from a slot that is inside) passes at once, so a request that
   waits for what it started itself cannot wait for a writer that waits for it. For the same reason nobody is held
   whose own thread has a slot inside or is the writer's.
4. A slot counts from ``acquire_read`` to its first ``release_read``; further releases do nothing.
5. A writer that times out, is interrupted or vanishes leaves no trace: its gate is open when it is gone.
6. Nothing polls. Who waits is woken by the event it waits for.

Why these hold. Each piece of state has its rule:

``_readers``
    Who is inside, and the meeting point of all. A reader writes itself in *first* and looks for a barrier *second*
    (if there is one it takes itself out again); the writer raises the barrier *first* and counts *second*. In
    either order one of the two sees the other. Leaving is the same: take yourself out first, look for a bell to ring
    second. Writing, taking out and copying are single operations of a ``dict``, which are atomic with the
    GIL and take the dict's own lock without it. So neither entering nor leaving takes a lock of ours, and a
    destructor may leave wherever the garbage collector happens to run it.
``_barrier``
    ``None`` while nobody writes. Replaced under ``_mutex`` only, which is held for a comparison and an assignment.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask_hotreload.barrier import Barrier
from flask_hotreload.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

#: The innermost slot of this context; it may have been released since (a stale marker, which counts for nothing).
current_slot: ContextVar[Slot | None] = ContextVar("flask_hotreload.slot", default=None)


class Slot:
    """One reader's place. Made before it is acquired, so that an interrupted acquire can always be released.

    ``pin``
        Whatever the reader wants to keep hold of for as long as it has the slot. A nested reader is given that of
        the slot that it is nested in; else the lock never looks at it.
    """

    __slots__ = ("environ", "lock", "outer", "owner", "pin", "since", "unreleased")

    environ: Mapping[str, Any] | None  # of the request, while it is inside
    lock: ReadersWriterLock
    outer: Slot | None  # the marker found in the context, of whichever lock
    owner: int  # the thread or greenlet that acquired it
    pin: Any
    since: float
    unreleased: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """An outermost reader that is inside: ``method`` and ``path`` of the request, ``age_ms`` since it entered."""

    method: str
    path: str
    age_ms: float


class Gate:
    """The writer's handle on the barrier that it raises. Used once; ``held`` counts the readers that it held.

    Made before it is closed, so that an interrupted ``close`` can always be opened again. A gate that its writer
    lost hold of opens by itself: the lock does not keep it alive.
    """

    __slots__ = ("_barrier",)

    def __init__(self) -> None:
        self._barrier = Barrier()

    @property
    def held(self) -> int:
        return self._barrier.held

    def __del__(self) -> None:
        try:
            self._barrier.open()
        except AttributeError:
            pass  # interrupted before it was made


class ReadersWriterLock:
    """See the module's documentation for what is guaranteed."""

    def __init__(self) -> None:
        #: Told the seconds that each reader was held, once it is inside. Must not raise.
        self.on_held: Callable[[float], object] | None = None
        self._readers: dict[Slot, Slot] = {}  # slot → the outermost slot that it belongs to
        self._passes: dict[Slot, None] = {}
        self._reset()
        _locks.add(self)

    def _reset(self) -> None:
        """Also the state of a forked child: its parent's readers, writer and waiters are not there."""
        self._mutex = threading.Lock()
        self._barrier: Barrier | None = None
        self._readers.clear()
        self._passes.clear()

    # Readers ---------------------------------------------------------------------------------------------------

    def acquire_read(self, slot: Slot, environ: Mapping[str, Any] | None = None) -> Slot | None:
        """Enter, or be held until the gate opens. Return the slot that this one is nested in, or ``None``.

        ``environ`` (``REQUEST_METHOD``, ``PATH_INFO``) is what :meth:`readers` tells of this reader. If the wait is
        interrupted the exception passes and the slot is not inside; ``release_read`` is harmless then.
        """
        slot.lock = self
        slot.unreleased = True
        slot.environ = environ
        slot.owner = threading.get_ident()  # looked up late: gevent replaces it
        slot.since = monotonic()
        slot.outer = outer = current_slot.get()
        if outer is None:
            self._readers[slot] = slot
            if self._barrier is None:
                return None
            self._readers.pop(slot)
        return self._acquire_nested_or_held(slot, outer)

    def release_read(self, slot: Slot) -> None:
        """Leave. Only the first call counts; any thread may make it."""
        slot.unreleased = False
        self._readers.pop(slot, None)
        slot.environ = None
        barrier = self._barrier
        if barrier is not None:
            barrier.bell.ring()

    def _acquire_nested_or_held(self, slot: Slot, outer: Slot | None) -> Slot | None:
        while True:
            passed = self._enter_nested(slot, outer)
            if passed is not None:
                return passed
            barrier = self._enter({slot: slot})
            if barrier is None:
                return None
            passed = self._enter_nested(slot, self._inside_on_thread(slot.owner))
            if passed is not None:
                return passed
            with self._mutex:
                barrier.held += 1
            if self._held_at(barrier, {slot: slot}):
                if self.on_held is not None:
                    self.on_held(monotonic() - slot.since)
                return None

    def _enter_nested(self, slot: Slot, marker: Slot | None) -> Slot | None:
        """Enter as part of the nearest slot, from ``marker`` outwards, that is inside. Return that, or ``None``."""
        while marker is not None:
            if self._is_inside(marker):
                pin = getattr(marker, "pin", None)
                self._readers[slot] = self._readers.get(marker, marker)
                # Whoever counts after this sees the slot, and whoever counted before has seen the outer one.
                if self._is_inside(marker):
                    slot.pin = pin
                    return marker
                self._take_out({slot: slot})
            marker = marker.outer
        return None

    def _is_inside(self, marker: Slot) -> bool:
        return marker in self._readers or marker in self._passes

    def _inside_on_thread(self, ident: int) -> Slot | None:
        """A slot that this thread acquired before: as long as the thread is held it cannot be released."""
        return next((slot for slot in self._readers.copy() if slot.owner == ident), None)

    def _enter(self, slots: dict[Slot, Slot]) -> Barrier | None:
        """Write all ``slots`` in, or return the barrier that holds the caller."""
        while True:
            barrier = self._barrier
            if barrier is None or barrier.owner == threading.get_ident():
                self._readers.update(slots)
                if self._barrier is barrier:
                    return None
                self._take_out(slots)
            elif barrier.opened:
                self._forget(barrier)
            else:
                return barrier

    def _take_out(self, slots: dict[Slot, Slot]) -> None:
        for slot in slots:
            self._readers.pop(slot, None)
        barrier = self._barrier
        if barrier is not None:
            barrier.bell.ring()

    def _held_at(self, barrier: Barrier, slots: dict[Slot, Slot]) -> bool:
        """Wait until ``barrier`` opens. Return whether ``slots`` are inside then; if not, come again."""
        try:
            barrier.waiting.update(slots)
            barrier.wait()
        except BaseException:
            self._end_wait(barrier, slots)
            for slot in slots:
                self.release_read(slot)
            raise
        self._end_wait(barrier, slots)
        self._forget(barrier)
        return all(slot in self._readers for slot in slots)

    def _end_wait(self, barrier: Barrier, slots: dict[Slot, Slot]) -> None:
        for slot in slots:
            barrier.waiting.pop(slot, None)

    def _forget(self, barrier: Barrier) -> None:
        """``barrier`` is open: let whoever still waits there go, and take it away if it is the current one."""
        barrier.open()
        with self._mutex:
            if self._barrier is barrier:
                self._barrier = None

    # The writer ------------------------------------------------------------------------------------------------

    def close(self, gate: Gate, *, timeout: float | None = None) -> bool:
        """Close ``gate``: new outermost readers are held from now on. One writer at a time.

        Wait at most ``timeout`` seconds for another writer to open its own. Return whether ``gate`` is closed now;
        call :meth:`open` with it in a ``finally``, whatever happened.
        """
        deadline = Deadline(timeout)
        barrier = gate._barrier
        if barrier.opened:
            raise RuntimeError("a gate is used once: this one has been opened already")
        barrier.owner = threading.get_ident()
        while True:
            with self._mutex:
                other = self._barrier
                if other is None or other is barrier:
                    self._barrier = barrier
                    return True
            if not other.wait(deadline.remaining()):
                return False
            self._forget(other)

    def drain(self, gate: Gate, *, timeout: float | None = None, ignoring: int = 0) -> tuple[Reader, ...]:
        """Wait until at most ``ignoring`` outermost readers are inside, or ``timeout`` seconds. Return who still is.

        Raise ``RuntimeError`` if ``gate`` is not the closed one.
        """
        barrier = gate._barrier
        if self._barrier is not barrier or barrier.opened:
            raise RuntimeError("drain() needs a closed gate: call close() first")
        deadline = Deadline(timeout)
        while True:
            expired = deadline.expired  # read first: who leaves in the last moment has left
            inside = self._inside()
            if len(inside) <= ignoring or expired:
                return _described(inside)
            barrier.bell.wait(deadline.remaining())

    def open(self, gate: Gate) -> None:
        """Open ``gate``; every held reader is inside. Harmless if it is not the closed one."""
        barrier = gate._barrier
        if self._barrier is barrier and not barrier.opened:
            # In one step, so that the next writer waits for them and cannot hold them once more.
            self._readers.update(barrier.waiting)
        self._forget(barrier)

    @contextmanager
    def write(self, *, timeout: float | None = None, ignoring: int = 0) -> Iterator[tuple[Reader, ...]]:
        """Lend the caller's own slots, close, drain; open at the end. Yield who is still inside.

        ``timeout`` seconds bound all waits together. Raise ``TimeoutError`` if another writer outlasts it.
        """
        deadline = Deadline(timeout)
        gate = Gate()
        with self.lend():
            try:
                if not self.close(gate, timeout=deadline.remaining()):
                    raise TimeoutError(f"another writer kept the lock for longer than {timeout} s")
                yield self.drain(gate, timeout=deadline.remaining(), ignoring=ignoring)
            finally:
                self.open(gate)

    # Who is not held, and who does not count -------------------------------------------------------------------

    def outside(self, slot: Slot, environ: Mapping[str, Any] | None = None) -> Slot | None:
        """Fill ``slot`` for somebody who neither is held nor counts: it marks a context and keeps its pin.

        Return the slot that it is nested in, whose pin it got, or ``None``.
        """
        slot.lock = self
        slot.unreleased = True
        slot.environ = environ
        slot.owner = threading.get_ident()
        slot.since = monotonic()
        slot.outer = marker = current_slot.get()
        while marker is not None:
            pin = getattr(marker, "pin", None)
            if self._is_inside(marker):
                slot.pin = pin
                return marker
            marker = marker.outer
        return None

    def would_pass(self, slot: Slot, environ: Mapping[str, Any] | None = None) -> bool:
        """Whether a reader would pass a closed gate: it is nested, or the writer's. ``slot`` is filled for it."""
        barrier = self._barrier
        return (
            self.outside(slot, environ) is not None
            or self._inside_on_thread(slot.owner) is not None
            or (barrier is not None and barrier.owner == slot.owner)
        )

    @contextmanager
    def passing(self, pin: Any) -> Iterator[None]:
        """Within the block the calling context passes a closed gate, as a reader nested in a slot with ``pin``."""
        slot = Slot()
        self.outside(slot)
        slot.pin = pin
        token = current_slot.set(slot)
        try:
            self._passes[slot] = None
            yield
        finally:
            self._passes.pop(slot, None)
            current_slot.reset(token)
            slot.pin = None

    def lend(self) -> Loan:
        """Give up the caller's slots for a ``with`` block: those of its context, and those its thread never closed.

        A writer does not wait for them. At the end they are regained, once the gate is open.
        """
        return Loan(self)

    # Who is inside ---------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        barrier = self._barrier
        return barrier is not None and not barrier.opened

    @property
    def held(self) -> int:
        """How many readers are held now."""
        barrier = self._barrier
        return 0 if barrier is None else len(barrier.waiting)

    @property
    def in_flight(self) -> int:
        """How many outermost readers are inside."""
        return len(self._inside())

    def readers(self) -> tuple[Reader, ...]:
        """Who is inside, the longest first."""
        return _described(self._inside())

    def _inside(self) -> dict[Slot, Slot]:
        """Each outermost slot that counts, with the one to tell of: itself, or what is left of it."""
        readers = self._readers.copy()
        return {root: root if root in readers else slot for slot, root in readers.items()}

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ReadersWriterLock {state}, {self.in_flight} inside, {self.held} held>"


def _described(inside: dict[Slot, Slot]) -> tuple[Reader, ...]:
    now = monotonic()
    return tuple(
        Reader(environ.get("REQUEST_METHOD", "?"), environ.get("PATH_INFO", "?"), (now - slot.since) * 1000)
        for slot in sorted(inside.values(), key=lambda slot: slot.since)
        for environ in [slot.environ or {}]
    )


class Loan:
    """The caller's slots, given up for a ``with`` block. See :meth:`ReadersWriterLock.lend`."""

    __slots__ = ("_lock", "_slots")

    def __init__(self, lock: ReadersWriterLock) -> None:
        self._lock = lock
        self._slots: dict[Slot, Slot] = {}

    def __enter__(self) -> Loan:
        me = threading.get_ident()
        readers = self._lock._readers.copy()
        self._slots = {slot: root for slot, root in readers.items() if slot.owner == me}
        marker = current_slot.get()
        while marker is not None:
            if marker in readers:
                self._slots[marker] = readers[marker]
            marker = marker.outer
        self._lock._take_out(self._slots)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while not self.regain():
            barrier = self._lock._barrier
            if barrier is not None and self._lock._held_at(barrier, self._slots):
                self._returned()

    def regain(self) -> bool:
        """Take the slots back, unless the gate is closed. Return whether they are inside now."""
        wanted = {slot: root for slot, root in self._slots.items() if slot.unreleased}
        if wanted and self._lock._enter(wanted) is not None:
            return False
        self._returned()
        return True

    def wait(self) -> None:
        """Wait until the gate is open. The slots stay lent."""
        barrier = self._lock._barrier
        if barrier is not None:
            barrier.wait()
            self._lock._forget(barrier)

    def _returned(self) -> None:
        """Slots that were released while they were lent, or are just now, leave: whoever comes second sees to it."""
        for slot in self._slots:
            if not slot.unreleased:
                self._lock.release_read(slot)
        self._slots = {}


# Locks that must start clean in a forked child.
_locks: weakref.WeakSet[ReadersWriterLock] = weakref.WeakSet()


def _reset_in_child() -> None:
    for lock in list(_locks):
        lock._reset()


os.register_at_fork(after_in_child=_reset_in_child)

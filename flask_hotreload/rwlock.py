"""A readers–writer lock for requests and reloads.

Every request is a *reader*, the reload is the *writer*. What is guaranteed:

1. Readers share. While the gate is closed and the drain has returned nobody, no reader is inside.
2. A closed gate holds every new *outermost* reader until the gate opens; it never turns one away.
3. A *nested* reader (one whose context descends from a slot that is inside) passes at once, so a request that
   waits for what it started itself cannot wait for a writer that waits for it.
4. A slot counts from ``acquire_read`` to its first ``release_read``; further releases do nothing.
5. A writer that times out or is interrupted leaves no trace: opening is one uninterruptible step.
6. Nothing polls. Who waits is woken by the event it waits for.

Why these hold. Four pieces of state, each with its rule:

``_mutex``
    Protects the one decision that has to be made in one step: *is the gate open? then I am inside*. It is held for
    a few bytecodes and never while something is waited for.
``_readers``
    Who is inside. Entered under the mutex; left by a bare ``dict.pop``, which is atomic. Leaving takes no
    lock, so that a destructor may do it, wherever the garbage collector happens to run it.
``_gate``
    ``None`` while open. Replaced under the mutex only. A reader that leaves removes itself first and looks for a
    gate whose bell to ring second; the writer closes the gate first and counts second. In either order one of
    the two sees the other: no wake-up is lost.
``gate.baton``
    A lock that the writer holds and that each held reader takes and passes on. Releasing it *is* the opening: one
    C call, which no signal can cut in two.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask_hotreload.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The innermost slot of this context; it may have been released since (a stale marker, which counts for nothing).
current_slot: ContextVar[Slot | None] = ContextVar("flask_hotreload.slot", default=None)


class Slot:
    """One reader's place. Made before it is acquired, so that an interrupted acquire can always be released.

    ``pin``
        Whatever the reader wants to keep hold of for as long as it has the slot; the lock never looks at it.
    """

    __slots__ = ("environ", "lock", "outer", "owner", "pin", "since", "unreleased")

    environ: Mapping[str, Any] | None
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


class _Bell:
    """Wakes one waiter. A ring before the wait is kept; two rings are one. Safe to ring in a destructor."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it has been rung already

    def wait(self, timeout: float | None) -> None:
        self._lock.acquire(timeout=_lock_timeout(timeout))


def _lock_timeout(seconds: float | None) -> float:
    """``seconds`` as ``Lock.acquire`` wants them."""
    return -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)


class Gate:
    """What a writer closes. Made before it is closed, so that an interrupted ``close`` can always be opened again.

    ``baton`` is held by the writer, and passed from held reader to held reader once the gate opens. ``bell`` rings
    when a reader leaves. ``held`` counts the readers that had to wait here.
    """

    __slots__ = ("baton", "bell", "held", "waiting")

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.bell = _Bell()
        self.held = 0
        self.waiting: dict[Slot, None] = {}


class ReadersWriterLock:
    """See the module's documentation for what is guaranteed."""

    def __init__(self) -> None:
        self._reset()
        _locks.add(self)

    def _reset(self) -> None:
        """Also the state of a forked child: its parent's readers, writer and waiters are not there."""
        self._mutex = threading.Lock()
        self._readers: dict[Slot, Slot] = {}  # slot → the outermost slot that it belongs to
        self._passes: dict[Slot, None] = {}
        self._gate: Gate | None = None

    # Readers ---------------------------------------------------------------------------------------------------

    def acquire_read(self, slot: Slot, environ: Mapping[str, Any] | None = None) -> Slot | None:
        """Enter, or be held until the gate opens. Return the slot that this one is nested in, or ``None``.

        ``environ`` (``REQUEST_METHOD``, ``PATH_INFO``) is what :meth:`readers` tells of this reader. If the wait is
        interrupted the exception passes and the slot is not inside; ``release_read`` is harmless then.
        """
        slot.lock = self
        slot.unreleased = True
        slot.environ = environ
        slot.owner = get_ident()
        slot.since = monotonic()
        slot.outer = outer = current_slot.get()
        if outer is None:
            with self._mutex:
                if self._gate is None:
                    self._readers[slot] = slot
                    return None
        return self._acquire_nested_or_held(slot, outer)

    def release_read(self, slot: Slot) -> None:
        """Leave. Only the first call counts; any thread may make it."""
        slot.unreleased = False
        self._readers.pop(slot, None)
        gate = self._gate
        if gate is not None:
            gate.bell.ring()

    def _acquire_nested_or_held(self, slot: Slot, outer: Slot | None) -> Slot | None:
        passed: Gate | None = None
        while True:
            with self._mutex:
                living = self._living(outer)
                if living is not None:
                    self._readers[slot] = self._readers.get(living, living)
                    return living
                gate = self._gate
                if gate is None or gate is passed:
                    self._readers[slot] = slot
                    return None
                gate.held += 1
                gate.waiting[slot] = None
            try:
                with gate.baton:
                    pass
            finally:
                gate.waiting.pop(slot, None)
            passed = gate

    def _living(self, marker: Slot | None) -> Slot | None:
        """The nearest slot of this lock, from ``marker`` outwards, that is inside. The mutex is held."""
        while marker is not None:
            if marker.lock is self and (marker in self._readers or marker in self._passes):
                return marker
            marker = marker.outer
        return None

    # The writer ------------------------------------------------------------------------------------------------

    def close(self, gate: Gate, *, timeout: float | None = None) -> bool:
        """Close ``gate``: new outermost readers are held from now on. One writer at a time.

        Wait at most ``timeout`` seconds for another writer to open its own. Return whether ``gate`` is closed now;
        call :meth:`open` with it in a ``finally``, whatever happened.
        """
        deadline = Deadline(timeout)
        passed: Gate | None = None
        while True:
            with self._mutex:
                other = self._gate
                if other is None or other is passed:
                    self._gate = gate
                    return True
            if not other.baton.acquire(timeout=_lock_timeout(deadline.remaining())):
                return False
            other.baton.release()
            passed = other

    def drain(self, gate: Gate, *, timeout: float | None = None, ignoring: int = 0) -> tuple[Reader, ...]:
        """Wait until at most ``ignoring`` outermost readers are inside, or ``timeout`` seconds. Return who still is.

        Raise ``RuntimeError`` if ``gate`` is not the closed one.
        """
        if self._gate is not gate:
            raise RuntimeError("drain() needs a closed gate: call close() first")
        deadline = Deadline(timeout)
        while True:
            expired = deadline.expired  # read first: who leaves in the last moment has left
            with self._mutex:
                # Under the mutex no nested reader can enter between its outer one's leaving and this count.
                inside = len(self._outermost())
            if inside <= ignoring or expired:
                return self.readers()
            gate.bell.wait(deadline.remaining())

    def open(self, gate: Gate) -> None:
        """Open ``gate``; every held reader enters. Harmless if it is not the closed one."""
        if self._gate is not gate:
            return
        try:
            gate.baton.release()  # from here on it is open, whatever happens to this thread
        except RuntimeError:
            pass  # an earlier open() was interrupted after this step
        with self._mutex:
            if self._gate is gate:
                self._gate = None

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

    # Slots that are not inside ---------------------------------------------------------------------------------

    def outside(self, slot: Slot, environ: Mapping[str, Any] | None = None) -> None:
        """Fill ``slot`` for somebody who neither is held nor counts: it marks a context and keeps its pin."""
        slot.lock = self
        slot.unreleased = True
        slot.environ = environ
        slot.owner = get_ident()
        slot.since = monotonic()
        slot.outer = current_slot.get()

    @contextmanager
    def passing(self, pin: Any) -> Iterator[None]:
        """Within the block the calling context passes a closed gate, as a reader nested in a slot with ``pin``."""
        slot = Slot()
        self.outside(slot)
        slot.pin = pin
        self._passes[slot] = None
        token = current_slot.set(slot)
        try:
            yield
        finally:
            current_slot.reset(token)
            self._passes.pop(slot, None)
            slot.pin = None

    # Lending ---------------------------------------------------------------------------------------------------

    @contextmanager
    def lend(self) -> Iterator[None]:
        """Give up the caller's slots for the block: those of its context, and those that its thread never closed.

        A writer does not wait for them. At the end they are regained, once the gate is open.
        """
        lent = self._slots_of_caller()
        for slot in lent:
            self._readers.pop(slot, None)
        gate = self._gate
        if gate is not None:
            gate.bell.ring()
        try:
            yield
        finally:
            self._regain(lent)

    def _slots_of_caller(self) -> dict[Slot, Slot]:
        me = get_ident()
        with self._mutex:
            mine = {slot: root for slot, root in self._readers.copy().items() if slot.owner == me}
            marker = current_slot.get()
            while marker is not None:
                if marker in self._readers:
                    mine[marker] = self._readers[marker]
                marker = marker.outer
        return mine

    def _regain(self, lent: dict[Slot, Slot]) -> None:
        passed: Gate | None = None
        while lent:
            with self._mutex:
                gate = self._gate
                if gate is None or gate is passed:
                    self._readers.update(lent)
                    break
            with gate.baton:
                pass
            passed = gate
        for slot in lent:
            if not slot.unreleased:  # released while lent, or just now: whoever comes second removes it
                self._readers.pop(slot, None)

    # Who is inside ---------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._gate is not None

    @property
    def held(self) -> int:
        """How many readers are held now."""
        gate = self._gate
        return 0 if gate is None else len(gate.waiting)

    @property
    def in_flight(self) -> int:
        """How many outermost readers are inside."""
        return len(self._outermost())

    def _outermost(self) -> set[Slot]:
        return set(self._readers.copy().values())  # copy() is atomic: readers leave without a lock

    def readers(self) -> tuple[Reader, ...]:
        """Who is inside, the longest first."""
        now = monotonic()
        return tuple(
            Reader(environ.get("REQUEST_METHOD", "?"), environ.get("PATH_INFO", "?"), (now - root.since) * 1000)
            for root in sorted(self._outermost(), key=lambda root: root.since)
            for environ in [root.environ or {}]
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ReadersWriterLock {state}, {self.in_flight} inside, {self.held} held>"


# Locks that must start clean in a forked child.
_locks: weakref.WeakSet[ReadersWriterLock] = weakref.WeakSet()


def _reset_in_child() -> None:
    for lock in list(_locks):
        lock._reset()


os.register_at_fork(after_in_child=_reset_in_child)

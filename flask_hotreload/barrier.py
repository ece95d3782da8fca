"""What holds readers while a writer waits or works.

Two rules make it safe to interrupt whoever uses it, at any point:

``opened``
    Set once, never unset. From that assignment on the barrier holds nobody, whatever happens to the thread that
    made it.
``baton``
    Who is held waits for it and passes it on at once. Nobody lets go of it before ``opened`` is set. After that
    anybody may, as often as they like: it wakes the next in the line and does no harm.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_hotreload.rwlock import Slot


class Barrier:
    """One closing of the lock. It never closes again.

    ``bell`` rings when a reader leaves; ``waiting`` is who is held now (see the lock for its values), ``held`` how
    many readers have been; ``owner`` the thread or greenlet of the writer.
    """

    __slots__ = ("baton", "bell", "held", "opened", "owner", "waiting")

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.bell = Bell()
        self.held = 0
        self.opened = False
        self.owner = threading.get_ident()
        self.waiting: dict[Slot, Slot] = {}

    def open(self) -> None:
        """Safe to call again, and in a destructor."""
        self.opened = True
        try:
            self.baton.release()
        except RuntimeError:
            pass  # somebody else has let go of it

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open, at most ``timeout`` seconds. Return whether it is."""
        try:
            if not self.opened:
                self.baton.acquire(timeout=_lock_timeout(timeout))
        finally:
            # No method of ours: an interruption on the way into it would keep the others waiting.
            if self.opened:
                try:
                    self.baton.release()
                except RuntimeError:
                    pass  # somebody else has let go of it
        return self.opened


class Bell:
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
        """Wait for a ring, at most ``timeout`` seconds."""
        self._lock.acquire(timeout=_lock_timeout(timeout))


def _lock_timeout(seconds: float | None) -> float:
    """``seconds`` as ``Lock.acquire`` wants them."""
    return -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)

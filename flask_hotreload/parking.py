"""What is staged and waits to be committed: kept beside what is served, for a bounded time.

At most one transaction is parked. It leaves exactly once, whoever is first: taken to be committed, or dropped because
its time is up, because another one takes its place, because what is served is no longer what it was staged for, or
because somebody discards it. Requests that are served by it then finish; it ends when the last of them has left.
"""

from __future__ import annotations

import _thread
import logging
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flask_hotreload.deadline import Deadline
from flask_hotreload.errors import ReloadBusy, ReloadError, ReloadInvalid
from flask_hotreload.mutex import Mutex
from flask_hotreload.report import StagedReport, utc_now

if TYPE_CHECKING:
    from flask_hotreload.document import Document
    from flask_hotreload.generation import Generation
    from flask_hotreload.staging import Joining
    from flask_hotreload.transaction import Transaction

_log = logging.getLogger("flask_hotreload")


@dataclass(frozen=True, eq=False)
class Parked:
    """A transaction that is prepared. ``base``: the generation that it was staged for."""

    id: str
    document: Document
    transaction: Transaction
    base: Generation
    deadline: Deadline
    report: StagedReport

    @property
    def generation(self) -> Generation | None:
        """What it would make; whoever holds it can be served by it. ``None``: it is over."""
        return self.transaction.next

    def fits(self, current: Generation) -> bool:
        """Whether it can still be committed onto ``current``."""
        return self.base is current and not self.deadline.expired


class Parking:
    """``parked`` may be read by any thread, at any time.

    ``changed(parked)``
        Called when something is parked, and with ``None`` when nothing is any more. It must not fail.
    ``confirmed(id)``
        Whether that is still to be shown to anybody: the other workers of the deployment may know better.
    """

    def __init__(self) -> None:
        self.parked: Parked | None = None
        self._timer: threading.Timer | None = None  # there while something is parked
        self.changed: Callable[[Parked | None], object] = _nothing
        self.confirmed: Callable[[str], bool] = _always
        self._exchange = Mutex()  # protects parked, _timer, _superseded; no foreign code runs with it held
        self._superseded: tuple[str, int] | None = None  # id and base of the last one that something else overtook
        _parkings.add(self)

    def keep(self, transaction: Transaction, seconds: float) -> None:
        """Park it for so many ``seconds``, in the place of what was parked before."""
        identity = transaction.document.id
        parked = Parked(
            identity,
            transaction.document,
            transaction,
            transaction.current,
            Deadline(seconds),
            StagedReport(identity, utc_now(seconds)),
        )
        timer = threading.Timer(seconds, _expire, (weakref.ref(self), identity))
        timer.name, timer.daemon = "hotreload-staged", True
        before = self._put(parked, timer)
        timer.start()
        _end(before)

    def take(self, identity: str, current: Generation, number: int) -> Transaction | None:
        """What is parked under this id, to be committed as the generation ``number``; ``None``: none that can be.

        One that cannot be committed any more is dropped.
        """
        parked = self._remove(identity)
        if parked is None:
            return None
        if parked.fits(current) and parked.transaction.number == number:
            return parked.transaction
        _end(parked)
        return None

    def drop(self, identity: str | None = None) -> bool:
        """Let go of what is parked, if it has this id; return whether."""
        parked = self._remove(identity)
        _end(parked)
        return parked is not None

    def drop_unfit(self, current: Generation) -> None:
        """Let go of what cannot be committed any more, now that ``current`` is served."""
        parked = self.parked
        if parked is not None and not parked.fits(current) and self.drop(parked.id):
            self._superseded = parked.id, parked.base.number
            _log.info("what was staged as %s is dropped: generation %d is served now", parked.id, current.number)

    def document(self, identity: str, current: Generation) -> Document:
        """What was asked to be staged under this id. Raise what speaks against committing it."""
        parked = self.parked
        if parked is None or parked.id != identity or not parked.fits(current):
            raise self._gone(identity, current)
        return parked.document

    def _gone(self, identity: str, current: Generation) -> ReloadError:
        if self._superseded is not None and self._superseded[0] == identity:
            return overtaken(identity, self._superseded[1], current.number)
        return not_staged(identity)

    @property
    def joined(self) -> Joining | None:
        """What the parked code has registered."""
        parked = self.parked
        return None if parked is None else parked.transaction.joined

    def joined_by(self, pinned: Generation) -> Joining | None:
        """The same, for a context that is served by what is parked."""
        parked = self.parked
        if parked is None or (generation := parked.generation) is None:
            return None
        return parked.transaction.joined if generation.afterlife is pinned.afterlife else None

    def told(self) -> dict[str, Any] | None:
        """What the status tells."""
        parked = self.parked
        if parked is None:
            return None
        left = max(0.0, parked.deadline.remaining() or 0.0)
        return {"id": parked.id, "seconds_left": round(left, 1), "generation": parked.transaction.number}

    def report_of(self, transaction: Transaction) -> StagedReport | None:
        """What its report says of it; ``None``: it is not parked."""
        parked = self.parked
        return parked.report if parked is not None and parked.transaction is transaction else None

    def _put(self, parked: Parked, timer: threading.Timer) -> Parked | None:
        with self._exchange.lock:
            before, self.parked = self.parked, parked
            earlier, self._timer = self._timer, timer
            self.changed(parked)
        if earlier is not None:
            earlier.cancel()
        return before

    def _remove(self, identity: str | None) -> Parked | None:
        with self._exchange.lock:
            parked = self.parked
            if parked is None or identity not in (None, parked.id):
                return None
            self.parked = None
            timer, self._timer = self._timer, None
            self.changed(None)
        if timer is not None:
            timer.cancel()
        return parked

    def __del__(self) -> None:
        # The application is gone. On a thread of its own: the garbage collector runs anywhere, with any lock held.
        parked, timer = self.parked, self._timer
        if parked is not None and timer is not None:
            timer.cancel()
            _thread.start_new_thread(_end, (parked,))

    def _forget(self) -> None:
        """In a forked child. What runs on in the child of what was parked is the parent's to end."""
        self._exchange = Mutex()
        self._timer = self.parked = None
        self.changed(None)


def commit_of(identity: str) -> str:
    """The id of the transaction that commits what the reload of ``identity`` has staged."""
    return f"{identity}.commit"


def committing(document: Document) -> Document:
    """Of what was staged, the document that commits it."""
    return replace(document, id=commit_of(document.id), stage=False, expect=None, commits=document.id)


def overtaken(identity: str, base: int, current: int) -> ReloadBusy:
    return ReloadBusy(f"{identity!r} was staged for generation {base}, and {current} is served now: stage it again")


def not_staged(identity: str) -> ReloadInvalid:
    return ReloadInvalid(
        f"nothing is staged as {identity!r}: it was committed, discarded or replaced, or its time is up "
        "(HOTRELOAD_STAGE_SECONDS); stage it again"
    )


def _end(parked: Parked | None) -> None:
    if parked is not None:
        parked.transaction.close()
        parked.transaction.let_go()


def _expire(reference: weakref.ref[Parking], identity: str) -> None:
    parking = reference()
    if parking is not None and parking.drop(identity):
        _log.info("what was staged as %s is dropped: its time is up", identity)


def _nothing(parked: Parked | None) -> None:
    pass


def _always(identity: str) -> bool:
    return True


_parkings: weakref.WeakSet[Parking] = weakref.WeakSet()


def _forget_in_child() -> None:
    for parking in list(_parkings):
        parking._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)

"""A worker's lease: until when it may admit requests without having heard from the store.

What is guaranteed: a request is admitted only if, at some moment after it had come, nobody could have committed a
generation without this worker; so once any worker has answered by a new generation, no request that comes afterwards
is answered here by an older one. For this a request that comes at ``asked`` has to see ``asked < until``, and

* what a renewal grants is such a moment: as long as the lease runs the store tells nobody that this worker is dead;
* so is the moment from which on a look at the store has shown that what is served here is the head;
* and so is, while the store is away, what follows an attempt to reach it that has failed, for :data:`GRACE` seconds:
  those who reach it again begin nothing for as long. (A worker that alone has lost the store goes on, too: that is
  the stated exception, told in the log, the status and by health.)

The moment is compared before the request takes its slot. A process that is stopped in between, or while its lock is
closed, or while a request waits here, has admitted nothing that came later. A renewal that arrives after others have
gone on without this worker is refused by the store; then the agent catches up and joins again, and requests wait.
They wait for no longer than ``longest``, and not at all once the agent has found that it cannot catch up: then they
are served by what is there.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask_hotreload.errors import StoreUnavailable

if TYPE_CHECKING:
    from flask_hotreload.rwlock import ReadersWriterLock, Slot

_log = logging.getLogger("flask_hotreload")

#: Seconds between two renewals.
RENEWED_EACH = 1.0
#: Seconds between the beginnings of two attempts to renew while the store is away.
RETRY = 0.25
#: Seconds for which nobody begins a transaction who has just reached the store, for the first time or again.
GRACE = 2.0
#: Seconds of a wait that count as no more than that, however long the process was stopped meanwhile.
_SLICE = 0.25


class Lease:
    """``renew()``: as :meth:`Store.renew`, for this worker and what it serves. ``refused()`` wakes the agent.

    ``gate(lease)`` is called once, when the store turns out to be one with leases; until then nobody waits.
    ``longest``: seconds.
    """

    def __init__(
        self,
        renew: Callable[[], float],
        *,
        refused: Callable[[], object],
        gate: Callable[[Lease], object],
        longest: float,
    ) -> None:
        self._renew = renew
        self._tell_refused = refused
        self._gate = gate
        self._longest = longest
        #: Requests that came before may be admitted. Any thread reads it; it changes under _changed.
        self.until = inf
        #: Whether the store has refused a renewal, and the agent has not looked into it yet.
        self.refused = False
        #: Why the store cannot be reached; ``None``: it can.
        self.away: str | None = None
        #: How many requests wait.
        self.waiting = 0
        self._thread: threading.Thread | None = None
        self._forget()
        _leases.add(self)

    def _forget(self) -> None:
        """Also the state of a forked child, which is no member: it serves what it was forked with."""
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._thread = None
        self.until, self.waiting = inf, 0
        self._renewed_until = inf  # what the last renewal has granted
        self._reached_since: float | None = -inf  # the store, without interruption

    @property
    def finite(self) -> bool:
        """Whether the store is one with leases."""
        return self._thread is not None

    @property
    def runs(self) -> bool:
        """Whether a request that comes now need not wait."""
        return monotonic() < self.until

    def steady(self) -> bool:
        """Whether the store has been reached without interruption for so long that everybody else has noticed."""
        now, since = monotonic(), self._reached_since
        return since is not None and now >= since + GRACE and now < self._renewed_until

    def lost(self) -> None:
        """The store could not be reached."""
        self._reached_since = None if self._thread is not None else self._reached_since

    def _renewed(self, until: float) -> None:
        now = monotonic()
        if self._reached_since is None or now >= self._renewed_until:
            self._reached_since = now
        self._renewed_until = until
        self.refused = False
        self.grant(until)

    # For requests ------------------------------------------------------------------------------------------------

    def gated(self, lock: ReadersWriterLock) -> Callable[[Slot, Mapping[str, Any]], Slot | None]:
        """``lock.acquire_read``, for which outermost readers wait until they may be admitted."""

        def enter(slot: Slot, environ: Mapping[str, Any]) -> Slot | None:
            if monotonic() >= self.until and not lock.would_pass(slot, environ):
                self.wait()
            return lock.acquire_read(slot, environ)

        return enter

    def wait(self) -> None:
        """Return when a request that has come now may be admitted."""
        asked, slices = monotonic(), int(self._longest / _SLICE) + 1
        with self._changed:
            self.waiting += 1
            try:
                while asked >= self.until and slices > 0:
                    slices -= not self._changed.wait(_SLICE)
                if asked < self.until:
                    return
            finally:
                self.waiting -= 1
        self.give_way(f"it could not catch up and join again within {self._longest:g} s")

    # For the agent -----------------------------------------------------------------------------------------------

    def begin(self, until: float) -> None:
        """This worker has joined, and renewed."""
        with self._changed:
            self.until = until
            self._changed.notify_all()
        if until < inf:
            self._reached_since = None
        self._renewed(until)
        if until < inf and self._thread is None:
            self._gate(self)
            self._thread = threading.Thread(target=self._run, name="hotreload-lease", daemon=True)
            self._thread.start()

    def confirm(self) -> bool:
        """After a renewal was refused, when nothing is being carried out: whether this worker is a member after all.

        Raise :class:`StoreUnavailable`.
        """
        until = self._renew()
        if until == -inf:
            self.end()
            return False
        self._renewed(until)
        return True

    def grant(self, until: float) -> None:
        """Requests that come before ``until`` may be admitted."""
        if until > self.until:
            with self._changed:
                self.until = max(until, self.until)
                self._changed.notify_all()

    def end(self) -> None:
        """This worker is no member any more: what was granted is void."""
        if self._thread is not None:
            with self._changed:
                self.until = -inf

    def give_way(self, reason: str) -> None:
        """Let requests be served by what there is, until this worker has joined again."""
        if self.until < inf:
            _log.error("this worker may answer by an older generation than others: %s", reason)
            self.grant(inf)

    def stop(self) -> None:
        """Nothing is renewed any more; nobody waits."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self.grant(inf)

    # The thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures, pause, stopped = 0, RENEWED_EACH, self._stopped
        while not stopped.wait(pause):
            started = monotonic()
            try:
                until = self._renew()
            except StoreUnavailable as error:
                failures += 1
                self.lost()
                # The first one may be of a process that was stopped while it waited for the answer.
                if failures > 1:
                    self._serve_on(started, str(error))
                pause = 0.0 if failures == 1 else max(0.0, started + RETRY - monotonic())
            except Exception:  # noqa: BLE001  # the thread must live: what happened is in the log
                _log.exception("the lease of this worker could not be renewed; it tries again")
                pause = RENEWED_EACH
            else:
                failures = 0
                pause = self._answered(until)

    def _answered(self, until: float) -> float:
        """Return the seconds until the next renewal."""
        if self.away is not None:
            self.away = None
            _log.warning("the store is back: the lease of this worker runs on")
        if until > -inf:
            self._renewed(until)
            return RENEWED_EACH
        # Others have gone on without this worker, or it is just carrying out what was decided: the agent knows.
        self.refused = True
        self._tell_refused()
        return RETRY

    def _serve_on(self, started: float, reason: str) -> None:
        if self.away is None:
            _log.error(
                "this worker cannot renew its lease, and serves on: %s. While it alone cannot, others may serve "
                "newer code",
                reason,
            )
        self.away = reason
        self.grant(started + GRACE)


# What a forked child must not wait for.
_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _forget_in_child() -> None:
    for lease in list(_leases):
        lease._forget()


os.register_at_fork(after_in_child=_forget_in_child)

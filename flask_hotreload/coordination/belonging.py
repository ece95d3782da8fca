"""How a worker comes to belong to those that change together, and how it stops doing so.

A worker is a member only while what it serves is what is committed: it catches up first and joins then, and whoever
learns that it is none any more, or that the store has lost what it serves, begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from flask_hotreload.errors import ReloadError, StoreUnavailable

if TYPE_CHECKING:
    from flask_hotreload.coordination.lease import Lease
    from flask_hotreload.coordination.protocol import Participant
    from flask_hotreload.coordination.records import Member, View
    from flask_hotreload.coordination.roll import Roll
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.coordination.worker import Worker

_log = logging.getLogger("flask_hotreload")


class Belonging:
    """On the agent's thread. Everything may raise :class:`~flask_hotreload.errors.StoreUnavailable`."""

    def __init__(
        self,
        participant: Participant,
        store: Store,
        worker: Worker,
        lease: Lease,
        roll: Roll,
        *,
        member: Member,
        introduce: Callable[[], object],
    ) -> None:
        """``introduce()`` makes the release known to a store that does not know it (any more)."""
        self._participant = participant
        self._store = store
        self._worker = worker
        self._lease = lease
        self._roll = roll
        self._member = member
        self._introduce = introduce
        #: Whether this worker serves what is committed, and its vote counts; any thread may ask.
        self.joined = False

    # Joining -------------------------------------------------------------------------------------------------------

    def join(self, view: View) -> bool:
        """Become a member, as soon as what is served here is what is committed and nothing is undecided.

        Return whether there is nothing more to do before something changes.
        """
        if self._differs():
            self.catch_up(view.head, anew=True)
            return False
        if self._store.join(self._roll.told()):
            if self._has_joined_wrongly():
                return False
            until = self._store.renew(self._member.id, self._worker.generation)
            if until > -inf:
                self._begin_to_serve(until)
            return True
        view = self._store.view(self._member.release)
        if view.head == 0 == self._worker.generation and (view.active is None or view.active.phase.decided):
            self._introduce()
        return view.head <= self._worker.generation

    def _differs(self) -> bool:
        """Whether the store has lost what runs here, and others have committed something else with its number."""
        return self._participant.publishes and self._worker.differs_from_head()

    def _has_joined_wrongly(self) -> bool:
        """Asked again as a member, since nobody goes on without it from now on. If so, it is none any more."""
        differs = True
        try:
            differs = self._differs()
        finally:
            if differs:
                self._store.leave(self._member.id)
        return differs

    def _begin_to_serve(self, until: float) -> None:
        self.joined = True
        self._lease.begin(until)
        if self._participant.publishes:
            self._worker.keep_copy()

    # Catching up ---------------------------------------------------------------------------------------------------

    def catch_up(self, head: int, *, anew: bool = False) -> None:
        """Run what is committed. It has run elsewhere, so it must run here: raise what is not the store's only if
        it does not, and let no request wait for it any longer.

        ``anew``: what runs here is something else, whatever its number.
        """
        try:
            self._run_what_is_committed(head, anew=anew)
        except StoreUnavailable:
            raise
        except ReloadError as error:
            self._lease.give_way(str(error))
            raise
        self._participant.settled(self._worker.generation)
        if self._participant.publishes:
            self._worker.keep_copy()
        if self.joined:
            self._roll.publish()

    def _run_what_is_committed(self, head: int, *, anew: bool) -> None:
        while True:
            try:
                return self._worker.catch_up(head, anew=anew)
            except StoreUnavailable:
                now = self._store.view(self._member.release).head
                if now <= head:
                    raise
                head = now  # something else was committed, and what that does not need is gone

    # Belonging no more ---------------------------------------------------------------------------------------------

    def confirm(self) -> None:
        """A renewal was refused. That may have met the moment between a decision and what it does here."""
        if self._lease.confirm():
            return
        _log.warning(
            "worker %s is no member any more: it was not heard of for as long as its lease, or the store has lost "
            "data. It catches up and joins again; requests wait meanwhile",
            self._member.id,
        )
        self.joined = False

    def publish_again(self, head: int) -> bool:
        """The store has lost what is served here, and serves ``head``: give it back.

        Return whether there is nothing more to do before something changes: others may have what is missing.
        """
        self.joined = False
        self._lease.end()
        if not self._worker.can_publish:
            self._lease.give_way("the store has lost what is served here, and this worker has no whole copy of it")
            return True
        if self._worker.publish_again():
            _log.error(
                "the store had lost data: it served generation %d. Worker %s has published again what all had "
                "committed, generation %d. See that the store keeps what it has acknowledged",
                head,
                self._member.id,
                self._worker.generation,
            )
            self._introduce()
        return False

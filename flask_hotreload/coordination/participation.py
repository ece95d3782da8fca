"""What the participant's actions mean for this worker: each is carried out, and voted on.

What nobody waits for, clearing up behind a decision, is left for later: where all change at once, whoever has opened
early would take the processor from those that have not.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.protocol import STAGED, Apply, Prepare, Release, Restore, TryAbort
from flask_hotreload.coordination.records import Ballot, News, Phase, TransactionRecord, Vote
from flask_hotreload.coordination.step import at_step
from flask_hotreload.coordination.worker import Part

if TYPE_CHECKING:
    from flask_hotreload.coordination.conductor import Conductor
    from flask_hotreload.coordination.protocol import Participant
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.coordination.worker import Worker

PROCESSORS = os.cpu_count() or 1
#: Seconds of a processor that a worker needs to open.
OPENING = 0.0004
#: Seconds for which one that has opened leaves the processor to the others, before it says so.
LONGEST_YIELD = 0.01

_log = logging.getLogger("flask_hotreload")

OwnAction = Prepare | Apply | Release | Restore | TryAbort


class Participation:
    """On the agent's thread. Everything may raise :class:`~flask_hotreload.errors.StoreUnavailable`."""

    def __init__(
        self,
        participant: Participant,
        store: Store,
        worker: Worker,
        conductor: Conductor,
        *,
        publish: Callable[[], object],
        vote_and_tell: Callable[[Vote], int],
        tell: Callable[[], object],
    ) -> None:
        """``publish()`` tells the others how this worker is, ``vote_and_tell()`` as well, and casts a vote;
        ``tell()`` has the signals of what has ended sent, by another thread: a receiver may reload.
        """
        self._participant = participant
        self._store = store
        self._worker = worker
        self._conductor = conductor
        self._publish = publish
        self._vote_and_tell = vote_and_tell
        self._tell = tell
        #: What is served here, and has not been cleared up behind.
        self.released: TransactionRecord | None = None
        self.released_at = 0.0  # on time.monotonic
        self._ended = True  # whether the worker has let go of its transaction
        self._whole = ""  # the digest of the whole source that it has made

    def carry_out(self, action: OwnAction) -> bool:
        """Return whether there is nothing more to do before something changes. :meth:`clear_up` goes before it."""
        if isinstance(action, Prepare):
            return self._prepare(action.record)
        if isinstance(action, Apply):
            return self._apply(action.record)
        if isinstance(action, Release):
            return self._release()
        if isinstance(action, Restore):
            self._restore(action)
        else:
            self._abort(action)
        return False

    def clear_up(self, *, at_leisure: bool = False) -> None:
        """Behind what is served, if that has not been done. Before anything else that changes what is served.

        ``at_leisure``: nothing else is under way. Else the store is left as it is: what begins next tidies it.
        """
        record, self.released = self.released, None
        if record is None:
            return
        try:
            self._end()
            self._worker.collect()
            if self._participant.publishes:
                self._worker.keep_copy(record, self._whole)
            if at_leisure and self._coordinates(record):
                self._store.tidy()
            if at_leisure:
                self._worker.read_ahead(journal=not self._participant.publishes)
        finally:
            self._tell()

    def _end(self) -> None:
        if not self._ended:
            self._ended, self._whole = True, self._worker.whole
            self._worker.end()

    # Before the decision -------------------------------------------------------------------------------------------

    def _prepare(self, record: TransactionRecord) -> bool:
        at_step("participant.staging")
        alike = self._coordinates(record) and self._conductor.alike
        ok, part = self._worker.prepare(record, alike=alike)
        self._participant.prepared(record, ok=ok)
        at_step("participant.prepared")
        return self._vote(record, Ballot.PREPARED, part, ok=ok)

    def _apply(self, record: TransactionRecord) -> bool:
        at_step("participant.applying")
        ok, part = self._worker.apply()
        self._participant.applied(ok=ok)
        at_step("participant.applied")
        return self._vote(record, Ballot.APPLIED, part, ok=ok)

    def _abort(self, action: TryAbort) -> None:
        aborted = self._store.abort(action.transaction, action.reason)
        self._participant.wrote()
        if aborted:
            record = self._participant.record
            self._store.ring(record.participants if record is not None else ())

    # After it ------------------------------------------------------------------------------------------------------

    def _release(self) -> bool:
        at_step("participant.committed")
        self._worker.release()
        at_step("participant.released")
        record = self._participant.record
        assert record is not None
        self.released, self.released_at, self._ended = record, time.monotonic(), False
        try:
            if not self._coordinates(record):
                time.sleep(min(LONGEST_YIELD, OPENING * max(0, len(record.participants) - 2 * PROCESSORS)))
            part = self._worker.served()
            self._worker.settle()  # before the vote: who looks after the answer finds what is served
            done = self._vote(record, Ballot.SETTLED, part, ok=True)
        finally:
            self._participant.settled(self._worker.generation)
        at_step("participant.settled")
        if self._coordinates(record):
            self._end()  # whoever asked is told when its own worker is done
        return done

    def _restore(self, action: Restore) -> None:
        at_step("participant.restoring")
        if action.in_doubt:
            _log.error(
                "worker %s is %s, and serves generation %d again, while others may serve what it voted for; it "
                "catches up when the store is back",
                self._participant.me,
                action.reason,
                self._worker.generation,
            )
        is_kept = action.reason == STAGED
        if not is_kept:
            self._worker.restore()
        record = self._participant.record
        part = self._worker.end(keep=is_kept)
        self._participant.settled(self._worker.generation)
        at_step("participant.settled")
        try:
            if record is not None:
                self._vote(record, Ballot.SETTLED, part, ok=False)
            self._publish()
        finally:
            self._tell()

    # Votes ---------------------------------------------------------------------------------------------------------

    def _coordinates(self, record: TransactionRecord) -> bool:
        return record.coordinator == self._participant.me

    def _vote(self, record: TransactionRecord, ballot: Ballot, part: Part, *, ok: bool) -> bool:
        """Return whether all that is left is to wait for others.

        The coordinator is rung by the last vote and by one that ends it; it looks by itself for those of the dead.
        """
        vote = Vote(record.id, ballot, self._participant.me, ok, msgspec.json.encode(part))
        if ok and self._conductor.take(record, vote):
            agreed = 1
        elif ok and ballot is Ballot.SETTLED:
            agreed = self._vote_and_tell(vote)
        else:
            agreed = self._store.vote(vote)
        stages = record.phase is Phase.STAGING
        is_last = ok and agreed == (1 if stages else len(record.participants))
        tells = is_last and not stages and ballot is not Ballot.SETTLED
        news = News(record.id, record.phase, agreed=True) if tells else None
        ends = is_last or not ok or agreed == 0
        if self._coordinates(record):
            self._conductor.news = news or self._conductor.news
            return not ends
        if ends:
            self._store.ring([record.coordinator], news)
        return ok and agreed > 0

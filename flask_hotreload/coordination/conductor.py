"""What a worker does for the reloads that its own threads ask for: the coordinator's actions, carried out.

It runs on the agent's thread, step by step, between the steps that the worker takes as a participant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from flask_hotreload.coordination.asking import Asking
from flask_hotreload.coordination.composing import Composer
from flask_hotreload.coordination.merged import Wanted, concluded
from flask_hotreload.coordination.payload import Payload, Signs, unseal
from flask_hotreload.coordination.protocol import (
    STAGED,
    WANTED,
    Advance,
    Commit,
    Coordinator,
    Finish,
    TryAbort,
    Wait,
)
from flask_hotreload.coordination.records import (
    Ballot,
    Member,
    News,
    Phase,
    TransactionRecord,
    View,
    Vote,
)
from flask_hotreload.coordination.step import at_step
from flask_hotreload.deadline import Deadline
from flask_hotreload.document import read_document
from flask_hotreload.errors import ReloadBusy, ReloadError, ReloadInvalid, StoreUnavailable
from flask_hotreload.parking import committing, not_staged, overtaken
from flask_hotreload.progress import Progress, untold
from flask_hotreload.report import ReloadReport

if TYPE_CHECKING:
    from flask_hotreload.coordination.reports import Reports
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.coordination.worker import Worker
    from flask_hotreload.document import Document
    from flask_hotreload.host import Asked, Limits

#: Seconds between two looks for participants that have died.
DEATHS = 0.05
#: Seconds that a phase may take beyond what its code is allowed to.
MARGIN = 2.0
_LOST = (
    "the store has lost what it knew of this reload; whether it was committed, GET the status tells once all workers "
    "agree again. Repeat it if it was not, and let the store keep what it has acknowledged"
)


class Conductor:
    """One reload after another, for ``member``. ``portable`` writes a document so that others understand it."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        signer: Signs,
        reports: Reports,
        *,
        member: Member,
        deployment: str,
        timeouts: Limits,
        portable: Callable[[Document], dict[str, Any]],
        keep: int = 0,
    ) -> None:
        """``keep``: for how many generations back the journal serves rollbacks."""
        #: Whether this worker has reached the store for long enough to begin something, see :class:`Lease`.
        self.steady: Callable[[], bool] = lambda: True
        self._store = store
        self._worker = worker
        self._signer = signer
        self._reports = reports
        reports.conducting = lambda: self.transaction
        worker.progress_of = self._progress_of
        self._member = member
        self._deployment = deployment
        self._timeouts = timeouts
        self._portable = portable
        self._composer = Composer(store, worker, signer, member=member, deployment=deployment, keep=keep)
        self._waiting: deque[Asking] = deque()  # appended by any thread, taken by the agent's
        self._asking: Asking | None = None
        self._buried: set[str] = set()
        #: Whether all participants of the transaction that it coordinates run the same sources.
        self.alike = False
        self._look_again = 0.0
        self._to_tell: list[str] = []  # whom, that a transaction has ended
        #: What has just become so of its transaction. The others are rung with it, the agent takes it.
        self.news: News | None = None
        #: What the store holds since its transaction has begun; the agent takes that, too, and need not look.
        self.begun: View | None = None

    def ask(self, document: Document, asked: Asked) -> Asking:
        """Line up a reload. Raise :class:`ReloadInvalid` for what cannot be told to other workers.

        A commit of what is staged, too: then :class:`ReloadBusy` if it was staged for another generation.
        """
        turn = Deadline(self._timeouts.prepare_timeout)
        if document.commits is None:
            asking = Asking(document, self._portable(document), asked, turn)
        else:
            staged = self._staged(document.commits)
            written = {**staged.document, "id": document.id, "stage": False}
            whole = replace(committing(read_document(staged.document)), expect=staged.parent)
            asking = Asking(whole, written, asked, turn, staged)
        self._waiting.append(asking)
        return asking

    def _staged(self, identity: str) -> Payload:
        """What is staged under this id, verified."""
        record = self._store.staged(self._member.release)
        if record is None or record.transaction != identity:
            raise not_staged(identity)
        if record.base != self._worker.generation:
            raise overtaken(identity, record.base, self._worker.generation)
        return unseal(
            record.payload,
            self._signer,
            deployment=self._deployment,
            release=record.release,
            generation=record.generation,
            transaction=record.transaction,
        )

    @property
    def busy(self) -> bool:
        return self._asking is not None or bool(self._waiting)

    def _progress_of(self, transaction: str) -> Progress:
        asking = self._asking
        return asking.asked.progress if asking is not None and self.transaction == transaction else untold

    def give_up(self, error: StoreUnavailable) -> None:
        """The store is away: who waits for a reload shall not wait for it. Of one that has begun nothing is known."""
        waiting = [*([self._asking] if self._asking is not None else []), *self._waiting]
        self._asking = None
        self._waiting.clear()
        for asking in waiting:
            if asking.record is None:
                asking.finish(StoreUnavailable(f"nothing was reloaded: {error}"))
            else:
                asking.finish(
                    StoreUnavailable(f"whether the reload was committed is unknown, GET the status tells: {error}")
                )

    @property
    def transaction(self) -> str | None:
        """The id of the transaction that it coordinates; what to ask the store's view about. Any thread may ask."""
        asking = self._asking
        record = asking.record if asking is not None else None
        return record.id if record is not None else None

    def step(self, view: View, now: float) -> bool:
        """Do one thing; return whether there is nothing more to do before something changes.

        ``view`` has to be one that was asked about :attr:`transaction`.
        """
        if self._end_forgotten(view):
            return False
        if self._asking is None and self._waiting:
            self._asking = self._waiting.popleft()
        asking = self._asking
        if asking is None:
            return True
        if asking.coordinator is None or asking.record is None:
            return self._begin(asking, view, now)
        for vote in view.votes:
            if vote.transaction == asking.record.id:
                asking.see(vote)
        dead = self._dead(asking.record.participants, now)
        seen = structs.replace(view, votes=view.votes + asking.taken)
        action = asking.coordinator.observe(seen, dead, now, steady=self.steady())
        if isinstance(action, Wait):
            return True
        if isinstance(action, Finish):
            self._conclude(asking, asking.record, action, view, dead)
            return not self._waiting  # the thread that has its answer now needs the interpreter
        self._carry_out(asking, asking.record, action)
        return False

    def hear(self, news: News) -> bool:
        """Do what news lead to at once, if anything; return whether that was so.

        Where each vote is shown to somebody, the votes are looked at.
        """
        asking = self._asking
        if asking is None or asking.coordinator is None or asking.record is None or asking.asked.is_watched:
            return False
        action = asking.coordinator.hear(news)
        if action is None:
            return False
        self._carry_out(asking, asking.record, action)
        return True

    def take(self, record: TransactionRecord, vote: Vote) -> bool:
        """Count a vote that nobody else has to see: the yes, while requests are held, of the only participant.

        Return whether it was that; else it has to be cast.
        """
        asking = self._asking
        if asking is None or asking.record is None or asking.record.id != record.id:
            return False
        if vote.ballot is not Ballot.APPLIED or record.participants != (self._member.id,):
            return False
        asking.see(vote)
        asking.taken = (vote,)
        return True

    def _dead(self, participants: Iterable[str], now: float) -> set[str]:
        """Looked for now and then, not at every vote: it costs as much as a vote for each participant."""
        if now >= self._look_again:
            # Whoever was dead stays it in this transaction: traces of the dead are removed by those that start.
            self._buried |= self._store.dead(participants)
            self._look_again = now + DEATHS
        return self._buried

    def _end_forgotten(self, view: View) -> bool:
        """Abort what has begun here and was given up when the store was away: else it would last to its deadline."""
        record = view.active
        if record is None or record.phase.decided or record.coordinator != self._member.id:
            return False
        if record.id == self.transaction:
            return False
        if self._store.abort(record.id, f"worker {self._member.id}, which coordinated it, had lost the store"):
            self._store.ring(record.participants)
        return True

    def _begin(self, asking: Asking, view: View, now: float) -> bool:
        """Take the turn of all workers, or wait for it."""
        if asking.document.may_be_retry and self._store.has_begun(asking.document.id):
            return self._answer(asking)
        self._reports.complete(view.active)  # its votes go when the next one begins
        expected, live = asking.document.expect, self._worker.generation
        if expected not in (None, live):
            self._finish(asking, ReloadBusy(f"generation {live} is live, not {expected} as expected"))
            return False
        release, generation = self._member.release, view.newest + 1
        of_release = [member.id for member in view.members if member.release == release]
        dead = self._store.dead(of_release)
        living = tuple(member for member in of_release if member not in dead)
        if self._member.id not in living or not self.steady():
            return self._wait_for_turn(asking)  # it has to join again first, or to wait until others have
        try:
            phase, payload = self._composer.opening(asking, generation)
        except ReloadError as error:  # there is no such generation, or the journal is not as it was signed
            self._finish(asking, error)
            return False
        record = TransactionRecord(
            id=asking.document.id,
            release=release,
            coordinator=self._member.id,
            participants=living,
            base=self._worker.generation,
            generation=generation,
            phase=phase,
            deadline=now + self._timeouts.prepare_timeout + MARGIN,
            payload=payload,
        )
        if self._store.begin(record):
            if phase is Phase.PREPARE:
                self._ring_others(record, _begins(record))
            asking.record = record
            self.begun = structs.replace(view, active=record, votes=(), outcome=None)
            self._look_again, self._buried = 0.0, set()
            asking.members = {member.id: member for member in view.members}
            self.alike = len({asking.members[member].sources for member in record.participants}) == 1
            asking.coordinator = Coordinator(record.id, dry_run=asking.document.dry_run, stage=asking.document.stage)
            workers = [asking.members[member] for member in record.participants]
            told = {"id": record.id, "workers": [f"{member.host}:{member.pid}" for member in workers]}
            asking.asked.progress("begin", told)
            at_step("coordinator.staging")
            return False
        return self._wait_for_turn(asking)

    def stand_aside(self) -> None:
        """This worker is no member for now. Who waits for a reload waits for no longer than for a turn."""
        if self._asking is not None and self._asking.record is not None:
            return
        waiting = [*([self._asking] if self._asking is not None else []), *self._waiting]
        if waiting and all(asking.turn.expired for asking in waiting):
            self.give_up(StoreUnavailable("this worker does not serve what is committed yet; ask another, or later"))

    def _wait_for_turn(self, asking: Asking) -> bool:
        if asking.turn.expired:
            self._finish(asking, ReloadBusy("another worker's reload has not ended; try again"))
            return False
        return True  # the participant stands by, and ends it if its coordinator does not

    def _answer(self, asking: Asking) -> bool:
        """A retry with the id of a transaction that was begun gets what became of that one, once it has ended."""
        identity, view = asking.document.id, self._store.view(self._member.release)
        is_last = view.active is not None and view.active.id == identity
        if is_last and asking.turn.expired:
            self._reports.complete(view.active)  # its coordinator lives, but does not
        outcome = self._reports.of(identity)
        if outcome is None and is_last:
            return self._wait_for_turn(asking)
        if outcome is None:
            outcome = ReloadInvalid(
                f"the id {identity!r} was used by an earlier reload, whose report is not kept any more; use a new one"
            )
        self._finish(asking, outcome)
        return False

    def _finish(self, asking: Asking, outcome: ReloadReport | ReloadError) -> None:
        self._asking = None
        asking.finish(outcome)

    # Actions -----------------------------------------------------------------------------------------------------

    def _carry_out(self, asking: Asking, record: TransactionRecord, action: Advance | Commit | TryAbort) -> None:
        if isinstance(action, Advance):
            if action.to is Phase.PREPARE:
                self._publish(asking, record)
            else:
                self._close(asking, record)
        elif isinstance(action, Commit):
            at_step("coordinator.before-commit")
            asking.asked.phase("decide")
            assert asking.journal is not None
            if self._store.commit(asking.journal, obsolete=asking.obsolete):
                at_step("coordinator.committed")
                self._tell(record, News(record.id, Phase.COMMITTED))
                asking.asked.phase("release")
        else:
            if action.reason == STAGED:
                self._keep_staged(asking, record)
            if self._store.abort(action.transaction, action.reason):
                self._store.ring(record.participants)
            elif action.reason == STAGED:
                self._store.drop_staged(record.id)  # somebody has decided otherwise

    def _publish(self, asking: Asking, record: TransactionRecord) -> None:
        """Give everybody what this worker has staged: the document, and every source that it read."""
        payload = self._composer.whole(asking, record.generation)
        deadline = self._store.now() + self._timeouts.prepare_timeout + MARGIN
        if self._store.advance(record.id, to=Phase.PREPARE, deadline=deadline, payload=payload):
            begun = structs.replace(record, phase=Phase.PREPARE, deadline=deadline, payload=payload)
            self._ring_others(record, _begins(begun))

    def _close(self, asking: Asking, record: TransactionRecord) -> None:
        """Let everybody close its lock, drain and apply."""
        asking.journal = self._composer.journal_record(asking, record)
        self._store.lay_ready(asking.journal, obsolete=asking.obsolete)
        at_step("coordinator.prepared")
        timeout = asking.document.timeout
        drain = self._timeouts.timeout if timeout is None else timeout
        deadline = self._store.now() + drain + self._timeouts.apply_timeout + MARGIN
        if self._store.advance(record.id, to=Phase.APPLY, deadline=deadline):
            asking.ballot = Ballot.APPLIED
            self._look_again = self._store.now() + DEATHS  # not while the first votes come
            at_step("coordinator.applying")
            self._tell(record, News(record.id, Phase.APPLY, deadline))

    def _tell(self, record: TransactionRecord, news: News) -> None:
        """To be called when the store has acknowledged it."""
        self._ring_others(record, news)
        self.news = news

    def _ring_others(self, record: TransactionRecord, news: News | None = None) -> None:
        """This worker's own agent goes on by itself."""
        self._store.ring([member for member in record.participants if member != self._member.id], news)

    def _keep_staged(self, asking: Asking, record: TransactionRecord) -> None:
        """So that any worker can commit it, also one that starts later."""
        until = self._store.now() + self._timeouts.stage_seconds
        self._store.put_staged(self._composer.staged_record(asking, record, until))

    def _conclude(
        self, asking: Asking, record: TransactionRecord, action: Finish, view: View, dead: set[str]
    ) -> None:
        if action.phase is not Phase.COMMITTED and self._is_lost(record, view):
            self._finish(asking, StoreUnavailable(_LOST))
            return
        has_gone_on = view.active is not None and view.active.id != record.id
        told = self._reports.of(record.id) if has_gone_on else None  # by who did so, when all votes were there
        if told is not None:
            self._finish(asking, told)
            return
        reason = view.active.reason if view.active is not None else None
        refused = any(not vote.ok for key, vote in asking.votes.items() if key[0] is not Ballot.SETTLED)
        silent = set(action.silent)
        if action.phase is not Phase.COMMITTED and not refused and reason not in WANTED:
            # Whoever aborted it at the deadline, the coordinator or another, these are why.
            silent |= {m for m in record.participants if m not in dead and (asking.ballot, m) not in asking.votes}
        outcome = concluded(
            record,
            action.phase,
            Wanted(
                asking.document.label,
                asking.asked.trigger,
                asking.asked.actor,
                asking.started_at,
                asking.document.dry_run or asking.document.stage,
            ),
            [asking.members[member] for member in record.participants],
            asking.votes.values(),
            reason=reason,
            dead=dead,
            silent=silent,
        )
        self._finish(asking, outcome)
        if asking.document.commits is not None:
            self._store.drop_staged(asking.document.commits)
        self._to_tell = [member.id for member in view.members]

    def tell_end(self) -> None:
        """Wake those who may wait for the turn; but whoever waits for the answer goes first."""
        told, self._to_tell = self._to_tell, []
        if told:
            self._store.ring(told)

    def _is_lost(self, record: TransactionRecord, view: View) -> bool:
        """Whether the store does not know any more what it has begun."""
        known = view.active is not None and view.active.id == record.id
        return not known and not self._store.has_begun(record.id)


def _begins(record: TransactionRecord) -> News:
    """That all are to prepare."""
    return News(record.id, Phase.PREPARE, record.deadline, record=record)

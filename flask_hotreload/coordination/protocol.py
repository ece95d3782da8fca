"""The two-phase commit as a pure state machine: what to do next, given what the store says. No I/O.

Two roles. A :class:`Participant` is a worker's side of one transaction after another; a :class:`Coordinator` is the
asker's side of one. Both are shown a view of the store and answer with one action. Whoever runs them carries the
action out, tells a participant how it went, and shows them the next view. If the store fails while an action is
carried out, a participant is shown ``None`` next; what has happened, the view after that tells.

What is guaranteed, for every interleaving, loss of wake-ups, pause and death of any process:

1. A transaction is decided once: the decision is one compare-and-set in the store.
2. It is committed only if every participant that has neither died nor left has voted ``APPLIED``, that is, holds its
   lock closed; and whoever serves is a participant, since nobody joins while a transaction is undecided. So once one
   worker serves the new generation, no other one admits a request to the old one.
3. A participant that has voted ``APPLIED`` follows the decision and never its own clock. When the deadline passes it
   *tries to abort* by the same compare-and-set, and does what the store says then.
4. Before that vote it may abort alone, since without its vote nothing can be committed.
5. A lock is closed no longer than until the phase's deadline, plus the time to read the decision; if the store cannot
   be read or written, no longer than ``in_doubt`` seconds more, counted from the first call that fails after the last
   view in which there was nothing to abort. Then, and only then, the old generation is served without knowing.
6. A transaction ends, whoever dies: anybody who sees it past its deadline, or its coordinator dead, aborts it.
7. If the store loses what it has acknowledged, the highest generation that any worker runs is published again, and
   all agree on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from msgspec.structs import replace

from flask_hotreload.coordination.records import Ballot, News, Phase, TransactionRecord, View

#: The reason of a transaction that was never meant to be committed.
DRY_RUN = "dry run"
#: The same of one whose participants keep what they have prepared, to be committed by another transaction.
STAGED = "staged"
#: The reasons for which a transaction ends as its asker wanted it to.
WANTED = frozenset({DRY_RUN, STAGED})

#: The reason of one whose votes were lost with the store's memory: locks need not stay closed until the deadline.
VOTES_LOST = "the store has lost votes"

# Actions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """Nothing to do before a wake-up, or before ``until`` on the store's clock; ``None``: no such moment."""

    until: float | None = None


@dataclass(frozen=True)
class Prepare:
    """Stage and check; then vote ``PREPARED`` and tell :meth:`Participant.prepared`."""

    record: TransactionRecord


@dataclass(frozen=True)
class Apply:
    """Close the lock, drain, apply; then vote ``APPLIED`` and tell :meth:`Participant.applied`."""

    record: TransactionRecord


@dataclass(frozen=True)
class Release:
    """Serve the staged generation, open the lock, vote ``SETTLED``; then tell :meth:`Participant.settled`."""

    transaction: str


@dataclass(frozen=True)
class Restore:
    """Undo everything, open the lock, vote ``SETTLED``; then tell :meth:`Participant.settled`.

    ``in_doubt``: it was voted for, and may have been committed.
    """

    transaction: str
    reason: str
    in_doubt: bool = False


@dataclass(frozen=True)
class CatchUp:
    """The head is ahead of what this worker runs: replay the journal up to it."""

    head: int


@dataclass(frozen=True)
class PublishAgain:
    """The store has lost what this worker runs, and serves ``head``: give it back."""

    head: int


@dataclass(frozen=True)
class TryAbort:
    """Ask the store to abort; the next view tells what was decided. ``silent``: whose votes are missing."""

    transaction: str
    reason: str
    silent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advance:
    """Move the transaction on."""

    transaction: str
    to: Phase


@dataclass(frozen=True)
class Commit:
    """Every vote is there: decide."""

    transaction: str


@dataclass(frozen=True)
class Finish:
    """Decided, and carried out by everybody that is going to. ``silent``: participants that have not said so."""

    phase: Phase
    silent: tuple[str, ...]


ParticipantAction = Wait | Prepare | Apply | Release | Restore | CatchUp | PublishAgain | TryAbort
CoordinatorAction = Wait | Advance | Commit | TryAbort | Finish


# Anybody -----------------------------------------------------------------------------------------------------------


def overdue(record: TransactionRecord, now: float, *, coordinator_is_dead: bool) -> str | None:
    """Why an undecided transaction will not be ended by its coordinator, as far as can be told."""
    if coordinator_is_dead:
        return f"the coordinating worker {record.coordinator} has died"
    if now >= record.deadline:
        return f"phase {record.phase.value} did not end in time"
    return None


def stand_by(view: View, now: float, *, coordinator_is_dead: bool = False) -> Wait | TryAbort:
    """What somebody does who has no part in the active transaction, but waits for its end: to join, or for a turn."""
    active = view.active
    if active is None or active.phase.decided:
        return Wait()
    reason = overdue(active, now, coordinator_is_dead=coordinator_is_dead)
    return Wait(active.deadline) if reason is None else TryAbort(active.id, reason)


def unsettled(view: View) -> set[str]:
    """Who has prepared the active transaction and has not said that the decision is carried out."""
    return view.voted(Ballot.PREPARED).keys() - view.voted(Ballot.SETTLED).keys()


# The participant ---------------------------------------------------------------------------------------------------


class Step(str, Enum):
    """Where a participant stands in the transaction that it takes part in."""

    IDLE = "idle"
    PREPARED = "prepared"  # staged; the lock is open
    APPLIED = "applied"  # the lock is closed; voted, or about to
    REFUSED = "refused"  # it voted no; what it has done waits to be undone


class Participant:
    """One worker's side. ``me`` is its id; ``in_doubt``: seconds it waits for a lost store, having voted yes."""

    def __init__(self, me: str, release: str, generation: int, *, in_doubt: float) -> None:
        self.me = me
        self.release = release
        self.generation = generation
        self.step = Step.IDLE
        self.record: TransactionRecord | None = None
        self._in_doubt_seconds = in_doubt
        #: Whether it can give back what the store has lost.
        self.publishes = False
        # Since when the store has been no use: a view that asks for an abort is none as long as the abort fails.
        self._away_since: float | None = None
        self._finished: str | None = None  # the last transaction that this worker is done with

    @property
    def transaction(self) -> str | None:
        """The id of the transaction that it is in; what to ask the store's view about."""
        return self.record.id if self.record is not None else None

    def observe(self, view: View | None, now: float, *, coordinator_is_dead: bool = False) -> ParticipantAction:
        """What to do, given a glance at the store; ``None``: it cannot be read, or has failed the last action.

        ``view`` has to be one that was asked about :attr:`transaction`, as it is now; else ``ValueError``.
        ``coordinator_is_dead``: the process that coordinates the active transaction has certainly ended.
        """
        if view is None:
            return self._without_store(now)
        if self.record is None:
            self._away_since = None
            return self._idle(view, now, coordinator_is_dead=coordinator_is_dead)
        if view.outcome is None:
            raise ValueError(f"the view does not tell of transaction {self.record.id}; ask about it")
        return self._within(self.record, view, view.outcome, now, coordinator_is_dead=coordinator_is_dead)

    def hear(self, news: News, now: float) -> Prepare | Apply | Release | None:
        """What to do at once, given what a ring tells; ``None``: nothing, look at the store.

        It saves the look, also while requests are held, and nothing else depends on it. That a transaction is
        committed never changes, and is told by who has seen it decided. That it is to be prepared, or may apply, is
        no longer true once somebody has aborted it: then the vote on having done so is refused, and the store tells
        why.
        """
        record = self.record
        if record is None:
            return None if news.record is None or now >= news.record.deadline else self._begins(news.record)
        if news.transaction != record.id or news.agreed:
            return None
        if news.phase is Phase.COMMITTED and self.step is Step.APPLIED:
            return Release(record.id)
        if news.phase is Phase.APPLY and self.step is Step.PREPARED and now < news.deadline:
            self.record = replace(record, phase=Phase.APPLY, deadline=news.deadline)
            return Apply(self.record)
        return None

    def _begins(self, record: TransactionRecord) -> Prepare | None:
        """As :meth:`_idle`, but that it leaves to that one whatever is not as it should be."""
        fits = record.base == self.generation and record.id != self._finished and self.me in record.participants
        return Prepare(record) if fits and record.phase is Phase.PREPARE and self._away_since is None else None

    def _idle(self, view: View, now: float, *, coordinator_is_dead: bool) -> ParticipantAction:
        if view.head != self.generation and (view.head > self.generation or self.publishes):
            return CatchUp(view.head) if view.head > self.generation else PublishAgain(view.head)
        active = view.active
        stand = stand_by(view, now, coordinator_is_dead=coordinator_is_dead)
        if active is None or isinstance(stand, TryAbort) or active.phase.decided:
            return stand
        if self.me not in active.participants:
            return stand
        if active.id == self._finished:
            return TryAbort(active.id, f"worker {self.me} had to give it up")
        if active.base != self.generation:
            return TryAbort(active.id, f"worker {self.me} serves generation {self.generation}, not {active.base}")
        mine = active.phase is Phase.PREPARE or (active.phase is Phase.STAGING and active.coordinator == self.me)
        return Prepare(active) if mine else stand

    def _within(
        self, record: TransactionRecord, view: View, outcome: Phase, now: float, *, coordinator_is_dead: bool
    ) -> ParticipantAction:
        if outcome is Phase.COMMITTED and self.step is Step.APPLIED:
            return Release(record.id)
        active = view.active
        if active is None or active.id != record.id or active.phase.decided:
            reason = active.reason if active is not None and active.id == record.id else None
            return Restore(record.id, reason or "the transaction is over")
        self.record = active
        reason = f"worker {self.me} refused" if self.step is Step.REFUSED else None
        if self.step is Step.APPLIED and active.phase is not Phase.APPLY:
            reason = VOTES_LOST
        reason = reason or overdue(active, now, coordinator_is_dead=coordinator_is_dead)
        if reason is not None:
            return TryAbort(record.id, reason)
        self._away_since = None
        if active.phase is Phase.APPLY and self.step is Step.PREPARED:
            return Apply(active)
        return Wait(active.deadline)

    def _without_store(self, now: float) -> ParticipantAction:
        if self._away_since is None:
            self._away_since = now
        if self.record is None:
            return Wait()
        if self.step is not Step.APPLIED:
            return Restore(self.record.id, "the store is away")  # without our vote nothing can be committed
        if self._doubted_long_enough(now):
            reason = f"in doubt: the store has been away for {self._in_doubt_seconds:g} s"
            return Restore(self.record.id, reason, in_doubt=True)
        return Wait(self._away_since + self._in_doubt_seconds)

    def _doubted_long_enough(self, now: float) -> bool:
        return self._away_since is not None and now >= self._away_since + self._in_doubt_seconds

    # What became of the actions

    def prepared(self, record: TransactionRecord, *, ok: bool) -> None:
        """``Prepare`` was carried out, and the vote cast."""
        self.record = record
        self.step = Step.PREPARED if ok else Step.REFUSED

    def applied(self, *, ok: bool) -> None:
        """``Apply`` was carried out. Tell this *before* the vote is cast: from then on there may be a decision.
        Unless ``ok``, the vote is a no, or none at all.
        """
        self.step = Step.APPLIED if ok else Step.REFUSED

    def wrote(self) -> None:
        """``TryAbort`` was answered, whatever it came to: the store can be read and written."""
        self._away_since = None

    def settled(self, generation: int) -> None:
        """``Release``, ``Restore`` or ``CatchUp`` was carried out; ``generation`` is served now."""
        if self.record is not None:
            self._finished = self.record.id
        self.record = None
        self.step = Step.IDLE
        self.generation = generation


# The coordinator ---------------------------------------------------------------------------------------------------


class Coordinator:
    """The asker's side of one transaction. ``dry_run``: abort once everybody is prepared. ``stage``: so, too, but
    what is prepared is kept.
    """

    def __init__(
        self, transaction: str, *, dry_run: bool = False, stage: bool = False, settle_seconds: float = 2.0
    ) -> None:
        self.transaction = transaction
        self._ends_prepared = STAGED if stage else DRY_RUN if dry_run else None
        self._settle_seconds = settle_seconds
        self._settle_until: float | None = None
        self._applies = False  # whether it has been in APPLY, as far as is known
        self._acted_on: Phase | None = None  # the last phase that has ended here

    def observe(self, view: View, dead: set[str], now: float, *, steady: bool = True) -> CoordinatorAction:
        """What to do, given the store's view, asked about the transaction, and who has certainly died.

        ``steady``: the store has not been away lately. If it has, those who seem to have died may not have noticed
        that it is back, and nothing is committed without them.
        """
        record = view.active
        if record is None or record.id != self.transaction:
            # Somebody has decided and gone on while this process was not running.
            return Finish(view.outcome or Phase.ABORTED, ())
        members = {member.id for member in view.members}
        living = [member for member in record.participants if member in members and member not in dead]
        if record.phase.decided:
            return self._settle(record, view, living, now)
        self._applies = self._applies or record.phase is Phase.APPLY
        if self._applies and record.phase is not Phase.APPLY:
            return TryAbort(record.id, VOTES_LOST)
        action = self._undecided(record, view, living, now)
        if isinstance(action, Commit) and not steady and len(living) < len(record.participants):
            return TryAbort(record.id, "the store was away, and it is not known who serves on without it")
        return action

    def _undecided(self, record: TransactionRecord, view: View, living: list[str], now: float) -> CoordinatorAction:
        ballot = Ballot.APPLIED if record.phase is Phase.APPLY else Ballot.PREPARED
        asked = [record.coordinator] if record.phase is Phase.STAGING else living
        votes = view.voted(ballot)
        for member in record.participants:
            if member in votes and not votes[member].ok:
                return TryAbort(record.id, f"worker {member} refused")
        missing = [member for member in asked if member not in votes]
        if missing and now >= record.deadline:
            reason = f"silent until the deadline of phase {record.phase.value}: {', '.join(missing)}"
            return TryAbort(record.id, reason, tuple(missing))
        if missing:
            return Wait(record.deadline)
        return self._next(record.phase)

    def _next(self, phase: Phase) -> Advance | TryAbort | Commit:
        """What follows an undecided phase in which nobody is waited for any more. Who hears of that now knows it."""
        self._acted_on = phase
        if phase is Phase.STAGING:
            return Advance(self.transaction, Phase.PREPARE)
        if phase is Phase.APPLY:
            return Commit(self.transaction)
        prepared = self._ends_prepared
        return Advance(self.transaction, Phase.APPLY) if prepared is None else TryAbort(self.transaction, prepared)

    def hear(self, news: News) -> Advance | TryAbort | Commit | None:
        """What to do at once, given what a ring tells; ``None``: nothing, look at the store.

        That all have agreed stays true: who has voted yes does nothing by itself until there is a decision. Whether
        the transaction still waits for one, the store knows, and refuses what comes too late.
        """
        told = news.agreed and news.phase in (Phase.PREPARE, Phase.APPLY) and news.transaction == self.transaction
        if not told or self._acted_on in (news.phase, Phase.APPLY):  # several may tell the same, and late
            return None
        self._applies = self._applies or news.phase is Phase.APPLY
        return self._next(news.phase)

    def _settle(self, record: TransactionRecord, view: View, living: list[str], now: float) -> CoordinatorAction:
        """Wait, for a while, until everybody has carried the decision out, so that the answer is true for all."""
        if self._settle_until is None:
            self._settle_until = now + self._settle_seconds
        waited_for = unsettled(view)
        missing = [member for member in living if member in waited_for]
        if missing and now < self._settle_until:
            return Wait(self._settle_until)
        return Finish(record.phase, tuple(missing))

"""A worker's agent: one thread that takes part in every transaction and coordinates those that this worker asks for.

It shows the store's view to the protocol's state machines and carries out what they answer. All waiting is on the
store's wake-ups; since those are hints, a transaction that is under way is looked at again every ``RECHECK`` seconds,
and so is a store that has failed; everything else every ``IDLE_RECHECK`` seconds.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from flask_hotreload.coordination.belonging import Belonging
from flask_hotreload.coordination.conductor import DEATHS, Conductor
from flask_hotreload.coordination.lease import Lease
from flask_hotreload.coordination.participation import Participation
from flask_hotreload.coordination.protocol import CatchUp, Participant, ParticipantAction, PublishAgain, Wait
from flask_hotreload.coordination.records import Member, News, Phase, View
from flask_hotreload.coordination.roll import FRESH, Roll
from flask_hotreload.errors import ReloadBusy, ReloadError, StoreUnavailable
from flask_hotreload.pace import ShortTurns
from flask_hotreload.parking import commit_of
from flask_hotreload.report import ReloadReport

if TYPE_CHECKING:
    from flask_hotreload.coordination.reports import Reports
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.coordination.worker import Worker
    from flask_hotreload.document import Document
    from flask_hotreload.host import Asked
    from flask_hotreload.probation import Tally

_log = logging.getLogger("flask_hotreload")

#: Seconds after which a transaction that is under way, or a store that has failed, is looked at without a wake-up.
RECHECK = 0.1
#: The same while nothing is under way.
IDLE_RECHECK = 5.0
#: The same where a wake-up may be lost with a connection, and requests wait for what it would tell.
LEASED_RECHECK = 1.0
#: Seconds for which a worker that serves what is committed lets the others come so far, before it clears up.
OTHERS_OPEN = 0.02
#: Seconds after which every worker has told what it has counted: two looks of its.
LAG = 0.4


class Agent:
    """Start it with :meth:`start` in the process that serves, when its application is complete."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        conductor: Conductor,
        reports: Reports,
        *,
        member: Member,
        in_doubt: float,
        load: Callable[[], tuple[int, int]],
        tell: Callable[[], None],
        tally: Callable[[], Tally | None] = lambda: None,
        gate: Callable[[Lease], object] = lambda lease: None,
        longest_wait: float = 15.0,
        introduce: Callable[[], object] = lambda: None,
        may_lose: bool = False,
    ) -> None:
        """``load()``: requests inside and held now. ``tell()`` has the signals of what has ended sent.

        ``tally()``: what is counted here of a generation on probation. ``gate``, ``longest_wait``: of the
        :class:`Lease`. ``introduce()`` makes the release known to a store that does not know it (any more).
        ``may_lose``: the store may lose what it has acknowledged, and this worker is to give it back.
        """
        self._store = store
        self._worker = worker
        self._conductor = conductor
        self._reports = reports
        self._member = member
        self._roll = Roll(store, worker, member=member, load=load, tally=tally)
        self.lease = Lease(
            lambda: store.renew(member.id, worker.generation),
            refused=lambda: store.ring([member.id]),
            gate=gate,
            longest=longest_wait,
        )
        self._participant = Participant(member.id, member.release, worker.generation, in_doubt=in_doubt)
        self._participant.publishes = may_lose
        self._part = Participation(
            self._participant,
            store,
            worker,
            conductor,
            publish=self._roll.publish,
            vote_and_tell=self._roll.vote,
            tell=tell,
        )
        self._belonging = Belonging(
            self._participant, store, worker, self.lease, self._roll, member=member, introduce=introduce
        )
        conductor.steady = self.lease.steady
        self._stopped = threading.Event()
        self._failed = False
        self._news: News | None = None  # heard in the last wait
        self._look_again = 0.0
        self._looked_at: tuple[str, Phase] | None = None  # the transaction, and how far it had come
        self._store_error: str | None = None
        self._thread: threading.Thread | None = None

    # For other threads -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Catch up, join, and go on in a thread. When this returns the worker serves what is committed.

        If the store is away the worker serves what it has loaded, says so, and joins when the store is back.
        """
        try:
            while not self._belonging.joined and self._store_error is None:
                if self._step() and not self._belonging.joined:
                    self._wait()
        except StoreUnavailable as error:
            self._away(error)
        except ReloadError:
            _log.exception("worker %s cannot run what is committed; it serves the code on disk", self._member.id)
        self._thread = threading.Thread(target=self._run, name="hotreload-agent", daemon=True)
        self._thread.start()

    @property
    def joined(self) -> bool:
        """Whether this worker serves what is committed, and its vote counts; or did so when the store went away."""
        return self._belonging.joined and self.lease.runs

    @property
    def away(self) -> str | None:
        """Why the store cannot be reached; ``None``: it can, as far as is known."""
        return self._store_error or self.lease.away

    def stop(self) -> None:
        """Leave. A transaction that this worker is in goes on without it."""
        self._stopped.set()
        self._store.ring([self._member.id])
        if self._thread is not None:
            self._thread.join()
        self.lease.stop()
        self._conductor.tell_end()
        try:
            self._part.clear_up()
        except Exception:  # noqa: BLE001  # it leaves all the same: what happened is in the log
            _log.exception("worker %s could not clear up before it left", self._member.id)
        record = self._participant.record
        try:
            self._store.leave(self._member.id)
            if record is not None:
                self._store.ring([record.coordinator])  # it may wait for this worker's vote
        except StoreUnavailable as error:
            _log.warning("worker %s could not say that it leaves: %s", self._member.id, error)
        self._store.close()

    def conduct(self, document: Document, asked: Asked) -> ReloadReport:
        """Run one transaction over all workers. Raise :class:`ReloadError` with its ``report``."""
        if threading.current_thread() is self._thread:
            raise ReloadBusy("code that is part of a reload cannot reload: do it after the reload has ended")
        if self._store_error is not None:
            self._store.view(self._member.release)  # raises if it is still away
        turns = ShortTurns()
        try:
            asking = self._conductor.ask(document, asked)
            self._store.ring([self._member.id])
            while not asking.done.wait(1.0):
                if self._thread is None or not self._thread.is_alive():
                    raise StoreUnavailable(f"the agent of worker {self._member.id} has ended; restart the worker")
        finally:
            turns.end()
        if isinstance(asking.outcome, ReloadError):
            raise asking.outcome
        assert asking.outcome is not None
        return asking.outcome

    def remember(self, report: ReloadReport) -> None:
        """Tell every worker of it."""
        self._reports.keep(report)

    def history(self) -> list[ReloadReport]:
        """The last reports of all workers, newest first. Raise :class:`StoreUnavailable`."""
        return self._reports.history()

    def earlier(self, identity: str) -> ReloadReport | None:
        """What a transaction with this id, asked for anywhere, came to: its report, or its error."""
        outcome = self._reports.of(identity) if self._store.has_begun(identity) else None
        if isinstance(outcome, ReloadError):
            raise outcome
        return outcome

    def discard(self, identity: str) -> bool:
        """Let go of what is staged under this id, on all workers; return whether it was, and is not being committed.

        From when this returns nobody is served by it any more.
        """
        if not self._store.drop_staged(identity, unless_begun=commit_of(identity)):
            return False
        self._worker.drop(identity)
        self._store.ring([member.id for member in self._roll.living()])
        return True

    def members(self) -> tuple[Member, ...]:
        """Every living member, as it tells of itself now, if it is quick. Raise :class:`StoreUnavailable`."""
        return self._roll.fresh()

    @property
    def leads(self) -> bool:
        """Whether this is the first of its release's living members: one at a time, but for moments of change."""
        return self._belonging.joined and self._member.id == self._roll.first()

    # Of a generation on probation: see :class:`~flask_hotreload.probation_watch.Siblings`

    @property
    def lag(self) -> float:
        return LAG

    def publish(self) -> None:
        """Tell how this worker is now. Raise :class:`StoreUnavailable`."""
        self._roll.publish()

    def tallies(self) -> dict[str, Tally]:
        """What the others have counted. Raise :class:`StoreUnavailable`."""
        return self._roll.tallies()

    def is_first(self) -> bool:
        """Whether no other living worker of the release comes before this one. Raise :class:`StoreUnavailable`."""
        return self._roll.is_first()

    @property
    def release(self) -> str:
        return self._member.release

    def now(self) -> float:
        return self._store.now()

    # The thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._stage_what_waits()
        while not self._stopped.is_set():
            try:
                self._go_on()
            except Exception:  # noqa: BLE001  # the thread must live: what happened is in the log
                _log.exception("the agent of worker %s failed; it tries again", self._member.id)
                busy = self._participant.record is not None or self._conductor.busy
                self._stopped.wait(RECHECK if busy else IDLE_RECHECK)

    def _go_on(self) -> None:
        """Do one thing, or wait if there is nothing to be done."""
        try:
            if not self._step() or self._clears_up():
                return
        except StoreUnavailable as error:
            self._away(error)
            self._failed = True  # the participant is told that its action may not have happened
        else:
            self._tell_members()
        self._wait()

    def _stage_what_waits(self) -> None:
        """A worker that has started later is to serve previews, too. It serves everything else meanwhile."""
        if not self._belonging.joined:
            return
        try:
            self._worker.stage_what_waits()
        except StoreUnavailable as error:
            self._away(error)
        except Exception:  # noqa: BLE001  # the thread must live: what happened is in the log
            _log.exception("worker %s cannot stage what the others have staged", self._member.id)

    def _tell_members(self) -> None:
        """Somebody may have asked how this worker does. While it takes part in a reload there is more to do."""
        if (
            not self._belonging.joined
            or self._participant.record is not None
            or self._conductor.busy
            or self._store_error
        ):
            return
        if self._store.now() < self._roll.told_at + FRESH:
            return
        try:
            self.publish()
            self._store.tidy()
        except StoreUnavailable as error:
            self._away(error)

    def _clears_up(self) -> bool:
        """Do so if there is something to be cleared up and the others have had their time; return whether."""
        if self._part.released is None:
            return False
        left = self._part.released_at + OTHERS_OPEN - monotonic()
        if left > 0:
            self._pause(left)
        else:
            self._conductor.tell_end()
            self._part.clear_up(at_leisure=not self._conductor.busy)
        return True

    def _wait(self) -> None:
        self._conductor.tell_end()
        busy = self._conductor.busy or self._participant.record is not None or not self._belonging.joined
        unsure = self._store_error is not None  # what has failed may have begun something
        idle = LEASED_RECHECK if self.lease.finite else IDLE_RECHECK
        self._pause(RECHECK if busy or unsure or self.lease.refused else idle)

    def _pause(self, seconds: float) -> None:
        try:
            self._news = self._store.wait(seconds)
        except StoreUnavailable:
            self._stopped.wait(RECHECK)  # nothing can wake us but the end

    def _step(self) -> bool:
        """Do one thing; return whether there is nothing more to do before something changes."""
        if self.lease.refused and self._belonging.joined and self._participant.record is None:
            self._belonging.confirm()
        done = self._hear()
        if done is not None:
            return done
        transaction = self._participant.transaction or self._conductor.transaction
        begun = self._begun()
        view = None if self._failed else begun or self._view(transaction)
        self._failed = False
        now = self._store.now()
        action = self._participant.observe(view, now, coordinator_is_dead=self._coordinator_is_dead(view))
        if not isinstance(action, Wait):
            return self._carry_out(action)
        if view is None:
            return True
        if not self._belonging.joined:
            return self._stand_outside(view, now)
        if self._participant.record is None:
            self._worker.keep_what_waits()
        own = self._conductor.transaction
        if own is None and self._conductor.busy:
            self._part.clear_up()  # it begins the next one
        if own not in (None, transaction):  # somebody has begun the next one before this worker has told of its own
            view = self._view(own)
        return view is None or self._conductor.step(view, now)

    def _hear(self) -> bool | None:
        """Do what news lead to at once, and return as :meth:`_step`; ``None``: nothing, look at the store."""
        news, self._news = self._conductor.news or self._news, None
        self._conductor.news = None
        if news is None or self._failed or (self._participant.record is None and not self.joined):
            return None
        action = self._participant.hear(news, self._store.now())
        if action is not None:
            return self._carry_out(action)
        return False if self._conductor.hear(news) else None

    def _begun(self) -> View | None:
        """What this worker need not look for: it has just begun the transaction that is under way."""
        view, self._conductor.begun = self._conductor.begun, None
        return view if self._participant.record is None else None

    def _view(self, transaction: str | None) -> View | None:
        look = self._store.view if self._conductor.busy or not self._belonging.joined else self._store.glance
        asked = monotonic()
        try:
            view = look(self._member.release, transaction)
        except StoreUnavailable as error:
            self._away(error)
            return None
        if self._store_error is not None:
            _log.warning("worker %s: the store is back", self._member.id)
            self._store_error = None
        if view.head == self._worker.generation:
            self.lease.grant(asked)
        return view

    def _away(self, error: StoreUnavailable) -> None:
        self.lease.lost()
        if self._store_error is None:
            _log.error("worker %s cannot reach the store, and serves on: %s", self._member.id, error)
            self._store_error = str(error)
        if self._participant.record is None:
            self._conductor.give_up(error)

    def _coordinator_is_dead(self, view: View | None) -> bool:
        record = view.active if view is not None else None
        if record is None or record.phase.decided or record.coordinator == self._member.id:
            return False
        now = self._store.now()
        if (record.id, record.phase) != self._looked_at:
            # It has just moved on, so somebody was there, and others may wait with their locks closed.
            self._looked_at = record.id, record.phase
            self._look_again = now + DEATHS
        if now < self._look_again:
            return False
        self._look_again = now + DEATHS
        try:
            return bool(self._store.dead([record.coordinator]))
        except StoreUnavailable:
            return False

    def _stand_outside(self, view: View, now: float) -> bool:
        """Do one thing while this worker is no member."""
        self._part.clear_up()
        done = self._belonging.join(view)
        if self._belonging.joined:
            return done
        self._conductor.stand_aside()
        return done if self._conductor.transaction is None else self._conductor.step(view, now)

    # The participant's actions -------------------------------------------------------------------------------------

    def _carry_out(self, action: ParticipantAction) -> bool:
        """Return whether there is nothing more to do before something changes."""
        self._part.clear_up()
        if isinstance(action, CatchUp):
            self._belonging.catch_up(action.head)
            return False
        if isinstance(action, PublishAgain):
            return self._belonging.publish_again(action.head)
        assert not isinstance(action, Wait)
        return self._part.carry_out(action)


def member_of(identity: str, release: str, generation: int) -> Member:
    """This process as a member."""
    return Member(identity, socket.gethostname(), os.getpid(), release, generation)

"""A deployment in virtual time: workers that run the protocol, and everything that can happen to them.

One random number generator decides everything, so a seed is a whole history. A worker's process can be stopped or
die between any two of its steps: between what a store has done and its answer, between an effect and the vote on it.
After each step the world is compared with what the protocol promises; what does not hold is a :class:`Violation`.

In every other history the store is one with leases, which learns of no death and may lose what it has acknowledged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from copy import copy
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

from msgspec import structs

from flask_hotreload.coordination import protocol
from flask_hotreload.coordination.memory import MemoryStore
from flask_hotreload.coordination.protocol import (
    Advance,
    Apply,
    CatchUp,
    Commit,
    Finish,
    Prepare,
    PublishAgain,
    Release,
    Restore,
    TryAbort,
    Wait,
)
from flask_hotreload.coordination.records import (
    Ballot,
    JournalRecord,
    Member,
    News,
    Phase,
    TransactionRecord,
    View,
    Vote,
)
from flask_hotreload.errors import StoreUnavailable

RELEASE = "0"
# Seconds.
PREPARE_TIME, APPLY_TIME, IN_DOUBT, SETTLE_TIME, TURN_TIME = 2.0, 1.0, 3.0, 1.0, 6.0
LEASE, RENEWED_EACH, GRACE = 1.5, 0.5, 1.0
RECHECK = 0.5
STEP = 0.001  # how long a step takes, on average
SLACK = RECHECK + 0.5  # for what has to be noticed, and the steps until something is done about it
TROUBLE = 8.0  # how long things go wrong
PATIENCE = 60.0  # and how long it may take afterwards until all is well

Steps = Generator["float | None", None, None]  # yields until when it sleeps, or None: it goes on at once


StoreFactory = Callable[..., Any]


class InMemory(MemoryStore):
    """A store that can lose what it has acknowledged since some moment."""

    def saved(self) -> dict[str, Any]:
        kept = ("_changed", "_clock", "_lease", "member_id")
        return {name: copy(value) for name, value in vars(self).items() if name not in kept}

    def fall_back(self, saved: dict[str, Any]) -> None:
        vars(self).update({name: copy(value) for name, value in saved.items()})


class Violation(AssertionError):
    """Something that the protocol promises did not hold."""


class Task:
    """One thread of a worker. It sleeps until ``wakes_at``, or until a wake-up arrives."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.wakes_at = 0.0
        self.hears = False  # whether a wake-up ends its sleep
        self.hinted = False  # whether one has come since the last sleep that it could have ended


class Worker:
    """A process. What it serves is ``code``, the transaction that it came from, and its ``generation``."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.agent = Task(self._agent())
        self.tasks = [self.agent]
        self.own_tasks = 1
        self.generation = 0
        self.code = "disk"
        self.staged: str | None = None
        self.serving = False
        self.open = True
        self.excused = False  # it lost the store after its vote, and serves what it can
        self.busy = False
        self.participant: Any = None
        self.news: News | None = None  # that of the last wake-up that had any
        self.agreed: News | None = None  # the same for the one that coordinates
        self.stopped_until = 0.0
        # The lease: requests that come before ``until`` may be admitted; what ``waits`` came when, and when a client
        # had seen which generation; whether it is past the gate.
        self.until = self.renewed_until = inf
        self.joined = self.refused = False
        self.waits: tuple[float, int, bool] | None = None
        self.alone_until = -inf  # until when it may admit because it, alone, has lost the store
        self.copy: JournalRecord | None = None
        self.contact_since: float | None = None if world.leased else -inf
        self.lost_alone = self.was_stopped = False
        # The store, as seen from here.
        self.cannot_read_until = self.cannot_write_until = 0.0
        # Since when the agent can neither read that there is nothing to abort, nor write.
        self.cut_off_since: float | None = None
        # The lock, while it is closed.
        self.must_open_by = 0.0
        self.failed_while_closed = False

    @property
    def stopped(self) -> bool:
        return self.stopped_until > self.world.now

    # The store -------------------------------------------------------------------------------------------------

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call the store. It may fail before it has done anything, or after: then only the answer is lost."""
        world = self.world
        writes = method not in ("glance", "view", "dead", "journal", "blobs")
        away = world.now < (self.cannot_write_until if writes else self.cannot_read_until)
        if away and world.leased:
            self.contact_since = None
        glitch = away or (world.troubled and world.random.random() < world.glitches)
        if glitch and (away or world.random.random() < 0.5):
            self._fails()
        if method == "begin" and not self.steady:
            return False
        answer = getattr(world.store, method)(*arguments, **options)
        if answer is True:
            world.observe(method, arguments)
        if glitch:
            self._fails()
        if writes and world.running is self.agent:
            self.cut_off_since = None
        if writes and world.troubled and world.random.random() < world.strikes:
            world.strike(self)
        return answer

    def _fails(self) -> None:
        if self.world.running is self.agent and self.cut_off_since is None:
            self.cut_off_since = self.world.now
        self.failed_while_closed = True
        raise StoreUnavailable("simulated")

    def _glance(self) -> View | None:
        try:
            found: View = self.ask("glance", RELEASE, self.participant.transaction)
        except StoreUnavailable:
            return None
        if found.head == self.generation:
            self.until = max(self.until, self.world.now)
        return found

    @property
    def steady(self) -> bool:
        """Whether it has reached the store for long enough to begin something."""
        now, since = self.world.now, self.contact_since
        return since is not None and now >= since + GRACE and now < self.renewed_until

    # The lease -------------------------------------------------------------------------------------------------

    def _begin_lease(self) -> Steps:
        until = self.ask("renew", self.name, self.generation)
        yield None
        if until > -inf:
            self.until = until
            self._renewed(until)
            self.joined, self.contact_since = True, self.world.now
            if self.own_tasks == 1:
                self.own_tasks = 2
                self.tasks.append(Task(self._renewing()))

    def _renewing(self) -> Steps:
        failures = 0
        pause = RENEWED_EACH
        while True:
            yield self.world.now + pause
            started = self.world.now
            try:
                yield None
                until = self.ask("renew", self.name, self.generation)
                yield None
            except StoreUnavailable:
                failures += 1
                # Others may have gone on while it was stopped; it cannot find out before the store is back.
                self.was_stopped = started >= self.until or (self.was_stopped and failures > 1)
                if failures > 1:
                    self._serve_on(started)
                pause = 0.0 if failures == 1 else 0.1
                continue
            failures = 0
            self.refused = until == -inf
            if not self.refused:
                self._renewed(until)
            pause = 0.1 if self.refused else RENEWED_EACH

    def _renewed(self, until: float) -> None:
        if self.contact_since is None or self.world.now >= self.renewed_until:
            self.contact_since = self.world.now
        self.renewed_until = until
        self.until = max(self.until, until)
        self.refused = False

    def _serve_on(self, started: float) -> None:
        self.until = max(self.until, started + GRACE)
        if self.lost_alone or self.was_stopped or self.world.glitches:
            self.alone_until = started + GRACE

    def _confirm(self) -> None:
        until = self.ask("renew", self.name, self.generation)
        if until > -inf:
            self._renewed(until)
        else:
            self.joined = False
            self.until = -inf

    def _join_again(self) -> Steps:
        if not self.ask("join", Member(self.name, "host", 1, RELEASE, self.generation)):
            yield self.world.now + 0.1
            return
        yield None
        if self._differs():
            yield from self._catch_up()
            self.participant.settled(self.generation)
        else:
            yield None
            yield from self._begin_lease()

    def _differs(self) -> bool:
        """Whether the store has lost what is served here, and the next one has the same number."""
        records = self.ask("journal", RELEASE)
        newest = records[-1] if records else None
        return newest is not None and newest.generation == self.generation and newest.transaction != self.code

    def _publish_again(self) -> None:
        self.joined, self.until = False, -inf
        assert self.copy is not None
        sources = {self.copy.transaction: b"source"}
        self.ask("publish_again", RELEASE, self.generation, [self.copy], sources, None)
        self.world.ring(list(self.world.workers))

    def _is_dead(self, record: TransactionRecord | None) -> bool:
        try:
            return record is not None and bool(self.ask("dead", [record.coordinator]))
        except StoreUnavailable:
            return False

    # As a participant ------------------------------------------------------------------------------------------

    def _agent(self) -> Steps:
        yield from self._boot()
        failed = False
        while True:
            yield None
            if self.refused and self.joined and self.participant.record is None:
                try:
                    self._confirm()
                except StoreUnavailable:
                    failed = True
                yield None
            action = None if failed else self._heard()
            yield None
            view = None
            if action is None:
                view = None if failed else self._glance()
                yield None
                coordinator_is_dead = view is not None and self._is_dead(view.active)
                failed = False
                self._is_doubt_over(view)
                yield None
                if view is not None and not self._has_to_abort(view, coordinator_is_dead):
                    self.cut_off_since = None
                action = self.participant.observe(view, self.world.now, coordinator_is_dead=coordinator_is_dead)
                yield None
            try:
                if isinstance(action, Wait) and view is not None and self.world.leased and not self.joined:
                    yield from self._join_again()
                else:
                    yield from self._carry_out(action)
            except StoreUnavailable:
                failed = True

    def _heard(self) -> Any:
        news, self.news = self.news, None
        return None if news is None else self.participant.hear(news, self.world.now)

    def _is_doubt_over(self, view: View | None) -> None:
        if view is not None and self.participant.record is None and view.head == self.generation:
            self.excused = self.excused and view.active is not None and not view.active.phase.decided

    def _has_to_abort(self, view: View, coordinator_is_dead: bool) -> bool:
        """Whether ``view`` leaves a worker that has voted with nothing but to write."""
        active = view.active
        undecided = active is not None and not active.phase.decided and active.id == self.participant.transaction
        return undecided and (coordinator_is_dead or self.world.now >= active.deadline)

    def _carry_out(self, action: Any) -> Steps:
        if isinstance(action, Wait):
            recheck = self.world.now + RECHECK
            yield recheck if action.until is None else min(recheck, max(action.until, self.world.now + STEP))
        elif isinstance(action, Prepare):
            yield from self._prepare(action.record)
        elif isinstance(action, Apply):
            yield from self._apply(action.record)
        elif isinstance(action, Release | Restore):
            yield from self._settle(action)
        elif isinstance(action, CatchUp):
            self.serving = False  # requests are held meanwhile
            yield from self._catch_up()
            self.participant.settled(self.generation)
            self.serving = True
        elif isinstance(action, PublishAgain):
            self._publish_again()
        elif isinstance(action, TryAbort):
            self.ask("abort", action.transaction, action.reason)
            self.participant.wrote()
            self.world.ring(list(self.world.workers))

    def _prepare(self, record: TransactionRecord) -> Steps:
        yield from self._busy(PREPARE_TIME)
        is_at_hand = record.phase is Phase.STAGING or self.world.rolls_back
        ok = self.world.agrees() and (is_at_hand or bool(self.ask("blobs", [record.id])))
        self.staged = record.id
        yield None
        self.participant.prepared(record, ok=ok)
        yield None
        self._vote(record, Ballot.PREPARED, ok=ok)

    def _apply(self, record: TransactionRecord) -> Steps:
        self.open = False
        self.failed_while_closed = False
        self.must_open_by = max(record.deadline, self.world.now) + SLACK
        started = self.world.now
        yield from self._busy(APPLY_TIME)
        self.must_open_by = max(self.must_open_by, started + APPLY_TIME + SLACK)
        ok = self.world.agrees()
        yield None
        self.participant.applied(ok=ok)
        yield None
        self._vote(record, Ballot.APPLIED, ok=ok)

    def _settle(self, action: Release | Restore) -> Steps:
        record = self.participant.record
        if isinstance(action, Release):
            self.world.require(self.staged == record.id, f"{self.name} releases what it has not staged")
            self.generation, self.code = record.generation, record.id
            self.copy = JournalRecord(RELEASE, record.generation, record.id, b"", (record.id,))
            self.world.require_decision(record.id, Phase.COMMITTED, self)
            self.excused = False
        elif action.reason.startswith("in doubt"):
            self._require_doubt()
            self.excused = True
        elif not self.open and self.participant.step is protocol.Step.APPLIED:
            self.world.require_decision(record.id, Phase.ABORTED, self)
        self._open_lock()
        yield None
        self.participant.settled(self.generation)
        yield None
        self._vote(record, Ballot.SETTLED, ok=isinstance(action, Release))

    def _open_lock(self) -> None:
        if not self.open:
            by = self.must_open_by + (IN_DOUBT if self.failed_while_closed else 0.0)
            self.world.require(
                self.world.now <= by, f"{self.name} kept its lock closed until {self.world.now}, not {by}"
            )
        self.open = True

    def _require_doubt(self) -> None:
        """The excuse has to be true."""
        waited = 0.0 if self.cut_off_since is None else self.world.now - self.cut_off_since
        self.world.require(waited >= IN_DOUBT, f"{self.name} was in doubt too soon: {waited}")

    def _vote(self, record: TransactionRecord, ballot: Ballot, *, ok: bool) -> None:
        agreed = self.ask("vote", Vote(record.id, ballot, self.name, ok))
        tells = ok and ballot is not Ballot.SETTLED and record.phase is not Phase.STAGING
        is_last = tells and agreed == len(record.participants)
        self.world.ring([record.coordinator], News(record.id, record.phase, agreed=True) if is_last else None)

    def _busy(self, limit: float) -> Steps:
        """Mostly short; sometimes longer than allowed."""
        random = self.world.random
        # Who overhears the bell begins late, so in the end nobody needs half of the time for one step.
        longest = 0.5 * limit if self.world.troubled else 0.1 * limit
        until = self.world.now + random.choice((0.0, 0.01, 0.1 * limit, longest)) * random.random()
        if self.world.troubled and random.random() < 0.02:
            until += 2 * limit
            self.must_open_by += 2 * limit
        self.busy = True
        while self.world.now < until:
            yield until
        self.busy = False

    def _boot(self) -> Steps:
        while not self.serving:
            yield None
            try:
                view = self.ask("view", RELEASE)
                yield None
                stand = protocol.stand_by(view, self.world.now, coordinator_is_dead=self._is_dead(view.active))
                yield None
                if isinstance(stand, TryAbort):
                    self.ask("abort", stand.transaction, stand.reason)
                elif view.head > self.generation:
                    yield from self._catch_up()
                elif view.head < self.generation:
                    self._publish_again()
                elif self.ask("join", Member(self.name, "host", 1, RELEASE, self.generation)):
                    yield None
                    self.participant = protocol.Participant(self.name, RELEASE, self.generation, in_doubt=IN_DOUBT)
                    if self.world.leased:
                        if self._differs():
                            yield from self._catch_up()
                            continue
                        yield None
                        self.participant.publishes = True
                        yield from self._begin_lease()
                        if not self.joined:
                            continue
                    self.serving = True
                else:
                    yield self.world.now + RECHECK
            except StoreUnavailable:
                yield self.world.now + RECHECK

    def _catch_up(self) -> Steps:
        records = self.ask("journal", RELEASE)
        yield None
        sources = self.ask("blobs", [record.transaction for record in records])
        if len(sources) < len(records):
            return  # one became obsolete meanwhile
        yield from self._busy(PREPARE_TIME)
        if not records:
            return
        self.generation, self.code, self.copy = records[-1].generation, records[-1].transaction, records[-1]
        self.excused = False

    # As a coordinator ------------------------------------------------------------------------------------------

    def coordinate(self, transaction: str, *, dry_run: bool) -> Steps:
        record = yield from self._begin(transaction, dry_run=dry_run)
        if record is None:
            return
        coordinator = protocol.Coordinator(transaction, dry_run=dry_run, settle_seconds=SETTLE_TIME)
        while True:
            yield None
            try:
                agreed, self.agreed = self.agreed, None
                action: Any = None if agreed is None else coordinator.hear(agreed)
                yield None
                if action is None:
                    view = self.ask("view", RELEASE, transaction)
                    yield None
                    dead = self.ask("dead", record.participants)
                    yield None
                    action = coordinator.observe(view, dead, self.world.now, steady=self.steady)
                    yield None
                if isinstance(action, Finish):
                    self.world.require_decision(transaction, action.phase, self)
                    return
                yield from self._conduct(action, record)
            except StoreUnavailable:
                yield self.world.now + 0.05

    def _conduct(self, action: Any, record: TransactionRecord) -> Steps:
        news = None
        if isinstance(action, Wait):
            yield min(action.until, self.world.now + RECHECK)
            return
        if isinstance(action, Advance):
            if action.to is Phase.PREPARE or self.world.rolls_back:
                self.ask("put_blobs", {record.id: b"source"})
                yield None
            deadline = self.world.now + (PREPARE_TIME if action.to is Phase.PREPARE else APPLY_TIME)
            if self.ask("advance", record.id, to=action.to, deadline=deadline):
                begun = structs.replace(record, phase=Phase.PREPARE, deadline=deadline)
                news = News(record.id, action.to, deadline, record=begun if action.to is Phase.PREPARE else None)
        elif isinstance(action, Commit):
            journal = JournalRecord(RELEASE, record.generation, record.id, b"", (record.id,))
            obsolete = [each.generation for each in self.ask("journal", RELEASE) if self.world.random.random() < 0.5]
            yield None
            if self.ask("commit", journal, obsolete=obsolete):
                news = News(record.id, Phase.COMMITTED)
        elif isinstance(action, TryAbort):
            self.ask("abort", action.transaction, action.reason)
        yield None
        self.world.ring(record.participants, news)

    def _begin(self, transaction: str, *, dry_run: bool) -> Generator[float | None, None, TransactionRecord | None]:
        until = self.world.now + TURN_TIME
        while self.world.now < until:
            yield None
            try:
                view: View = self.ask("view", RELEASE, transaction)
                yield None
                if view.active is not None and view.active.id == transaction:
                    return view.active  # it had begun, only the answer was lost
                stand = protocol.stand_by(view, self.world.now, coordinator_is_dead=self._is_dead(view.active))
                yield None
                if isinstance(stand, TryAbort):
                    self.ask("abort", stand.transaction, stand.reason)
                    continue
                record = self._proposed(view, transaction, dry_run=dry_run)
                yield None
                if self.name in record.participants and self.ask("begin", record):
                    yield None
                    if record.phase is Phase.PREPARE:
                        news = News(record.id, Phase.PREPARE, record.deadline, record=record)
                        self.world.ring(record.participants, news)
                    return record
            except StoreUnavailable:
                pass
            yield self.world.now + 0.1
        return None

    def _proposed(self, view: View, transaction: str, *, dry_run: bool) -> TransactionRecord:
        dead = self.ask("dead", [member.id for member in view.members])
        living = tuple(member.id for member in view.members if member.id not in dead)
        return TransactionRecord(
            transaction,
            RELEASE,
            coordinator=self.name,
            participants=living,
            base=self.generation,
            generation=view.newest + 1,
            phase=Phase.STAGING if dry_run or not self.world.rolls_back else Phase.PREPARE,
            deadline=self.world.now + PREPARE_TIME,
        )


class World:
    """``workers`` of them at first, and ``asks`` transactions while there is trouble."""

    def __init__(self, seed: int, store: StoreFactory | None = None) -> None:
        """``store``: makes the one in which they meet, from a clock, and how long leases are in seconds, if any."""
        self.seed = seed
        self.random = random = Random(seed)
        self.now = 0.0
        self.troubled = True
        self.glitches = random.choice((0.0, 0.0, 0.005, 0.05))
        self.refusals = random.choice((0.0, 0.0, 0.05))
        self.loss = random.choice((0.0, 0.1, 1.0))  # of wake-ups
        self.stalls = random.choice((0.0, 0.0, 0.02))
        self.strikes = random.choice((0.0, 0.0, 0.03))  # faults that follow closely upon a change of the store
        self.leased = seed % 2 == 0
        self.rolls_back = seed % 5 == 3  # then nothing has to be staged by one before all can
        self.store = (store or InMemory)(clock=lambda: self.now, lease=LEASE if self.leased else None)
        self.saved = self.store.saved()  # what the store may fall back to
        self.lost_data = self.crashed_since = False
        self.unsettled = False  # since it has lost data
        self.highest = 0  # that anybody served then
        self.workers: dict[str, Worker] = {}
        self.decisions: dict[str, Phase] = {}
        self.committed: dict[int, set[str]] = defaultdict(set)  # generation → transactions
        self.running: Task | None = None
        self.answered = 0  # the newest generation that a client has seen
        self._numbers = count(1)
        self._events: list[tuple[float, int, Callable[[], None], bool]] = []
        for _ in range(random.choice((1, 2, 2, 3, 3, 4))):
            self.start()
        self._plan()

    # What happens ----------------------------------------------------------------------------------------------

    def start(self, name: str | None = None) -> None:
        name = name or f"w{next(self._numbers)}"
        self.workers[name] = worker = Worker(self, name)
        for other in self.workers.values() if self.leased else ():
            if not other.lost_alone:  # then nobody reaches the store
                worker.cannot_read_until = max(worker.cannot_read_until, other.cannot_read_until)
                worker.cannot_write_until = max(worker.cannot_write_until, other.cannot_write_until)

    def _plan(self) -> None:
        random = self.random
        for _ in range(random.choice((2, 3, 4))):
            self.at(random.uniform(0.2, TROUBLE), self._ask)
        kinds = random.sample(
            (self._crash, self._stop, self._lose_store, self._join, self._retire), k=random.choice((1, 2, 5))
        )
        for _ in range(random.choice((0, 2, 4, 8))):
            self.at(random.uniform(0.2, TROUBLE), random.choice(kinds))
        if self.leased and random.random() < 0.3:
            self.at(random.uniform(0.0, TROUBLE), self._save)
            self.at(random.uniform(0.5, TROUBLE), self._lose_data)

    def at(self, moment: float, event: Callable[[], None], *, trouble: bool = True) -> None:
        heappush(self._events, (moment, next(self._numbers), event, trouble))

    def _save(self) -> None:
        self.saved = self.store.saved()

    def _lose_data(self) -> None:
        """The store goes away, for everybody, and comes back with what it had once saved."""
        until = self.now + self.random.choice((0.1, 1.0, 4.0)) * self.random.random()
        for worker in self.workers.values():
            worker.cannot_read_until = worker.cannot_write_until = until
            worker.contact_since = None
            worker.lost_alone = False
        self.store.fall_back(self.saved)
        self.lost_data = self.unsettled = True
        self.highest = max((worker.generation for worker in self.workers.values()), default=0)
        self.crashed_since = False

    def _some(self) -> Worker | None:
        names = list(self.workers)
        return self.workers[self.random.choice(names)] if names else None

    def _ask(self) -> None:
        worker = self._some()
        if worker is not None and worker.serving and len(worker.tasks) == worker.own_tasks:
            dry_run = self.troubled and self.random.random() < 0.1
            worker.tasks.append(Task(worker.coordinate(f"t{next(self._numbers)}", dry_run=dry_run)))

    def strike(self, worker: Worker) -> None:
        """What is evenly spread seldom meets the short moments that matter: this does."""
        kind = self.random.choice((self._crash, self._stop, self._lose_store, self._lose_store))
        self.at(self.now, lambda: kind(worker))

    def _crash(self, worker: Worker | None = None) -> None:
        worker = worker or self._some()
        if worker is None or worker.name not in self.workers:
            return
        del self.workers[worker.name]
        self.crashed_since = True
        if not self.leased:
            self.store.bury(worker.name)
        for task in worker.tasks:
            task.steps.close()
        name = worker.name if self.random.random() < 0.3 else None  # process ids are used again
        if self.leased:
            name = None  # where nobody sees a process end, ids are not
        self.at(self.now + self.random.expovariate(2.0), lambda: self.start(name), trouble=False)

    def _retire(self) -> None:
        """A worker stops to serve, says so if it can, and ends some time later."""
        worker = self._some()
        if worker is None or worker.stopped or not worker.serving:
            return
        del self.workers[worker.name]
        self.crashed_since = True
        for task in worker.tasks:
            task.steps.close()
        try:
            worker.ask("leave", worker.name)
        except StoreUnavailable:
            pass
        if not self.leased:
            self.at(self.now + self.random.expovariate(1.0), lambda: self.store.bury(worker.name), trouble=False)
        self.at(self.now + self.random.expovariate(2.0), self.start, trouble=False)

    def _stop(self, worker: Worker | None = None) -> None:
        worker = worker or self._some()
        if worker is not None and not worker.stopped:
            seconds = self.random.choice((0.1, 1.0, 5.0)) * self.random.random()
            worker.stopped_until = self.now + seconds
            worker.must_open_by += seconds  # while it is stopped it holds nobody up

    def _lose_store(self, worker: Worker | None = None) -> None:
        random = self.random
        seconds = random.choice((0.5, 2.0, 8.0)) * random.uniform(0.2, 1.0)
        worker = worker or self._some()
        disk_is_full = random.random() < 0.5
        everybody = list(self.workers.values())
        losing = everybody if random.random() < 0.5 or worker is None else [worker]
        for each in losing:
            each.lost_alone = each.lost_alone or len(losing) < len(everybody)
            until = self.now + seconds
            if self.leased:  # one that ends does not end another, which may be everybody's
                until = max(until, each.cannot_write_until)
            each.cannot_write_until = until
            if not disk_is_full:
                each.cannot_read_until = until

    def _join(self) -> None:
        if len(self.workers) < 6:
            self.start()

    def agrees(self) -> bool:
        return not (self.troubled and self.random.random() < self.refusals)

    def ring(self, names: Any, news: News | None = None) -> None:
        for name in names:
            chance = self.random.random()
            if not self.troubled or chance > self.loss:
                for _ in range(2 if chance > 0.9 else 1):
                    late = self.troubled and self.random.random() < 0.05
                    moment = self.now + self.random.expovariate(1.0 if late else 200.0)
                    self.at(moment, lambda name=name: self._wake(name, news), trouble=False)

    def _wake(self, name: str, news: News | None) -> None:
        worker = self.workers.get(name)
        if worker is not None and news is not None:
            if news.agreed:
                worker.agreed = news
            else:
                worker.news = news
        for task in worker.tasks if worker is not None else ():
            if task.hears:
                task.wakes_at = self.now
            else:
                task.hinted = True

    # Time ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trouble first, then none. Raise :class:`Violation`."""
        self._until(lambda: self.now >= TROUBLE)
        self.troubled = False
        self._events = sorted(event for event in self._events if not event[3])
        for worker in self.workers.values():
            worker.stopped_until = min(worker.stopped_until, self.now)
            worker.cannot_read_until = worker.cannot_write_until = self.now
        self.require(self._until(lambda: self.is_quiet, PATIENCE), f"it does not come to rest: {self}")
        self._check_end()
        before = self.store.view(RELEASE).head
        self._ask()
        self.require(
            self._until(lambda: self.is_quiet and self.store.view(RELEASE).head > before, PATIENCE),
            f"no further reload: {self}",
        )
        self._check_end()

    @property
    def is_quiet(self) -> bool:
        active = self.store.view(RELEASE).active
        return (
            (active is None or active.phase.decided)
            and bool(self.workers)
            and not self._events
            and all(worker.serving and not worker.excused for worker in self.workers.values())
            and all(len(worker.tasks) == worker.own_tasks for worker in self.workers.values())
            and all((worker.joined and not worker.refused) or not self.leased for worker in self.workers.values())
            and all(worker.participant.record is None and not worker.busy for worker in self.workers.values())
            and all(worker.generation == self.store.view(RELEASE).head for worker in self.workers.values())
        )

    def _until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        limit = self.now + seconds
        while not holds():
            if self.now > limit:
                return False
            self._step()
        return True

    def _step(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            heappop(self._events)[2]()
        ready = []
        now = self.now
        soonest = self._events[0][0] if self._events else now + RECHECK
        for worker in self.workers.values():
            for task in worker.tasks:
                moment = task.wakes_at if task.wakes_at > worker.stopped_until else worker.stopped_until
                if moment <= now:
                    ready.append((worker, task))
                elif moment < soonest:
                    soonest = moment
        if not ready:
            self.now = soonest
            return
        worker, task = ready[int(self.random.random() * len(ready))]
        self._check(worker)
        self._run(worker, task)
        self.now += STEP * 2 * self.random.random()
        self._check(worker)

    def _run(self, worker: Worker, task: Task) -> None:
        task.hears = False
        self.running = task
        try:
            until = next(task.steps)
        except StopIteration:
            worker.tasks.remove(task)
            return
        if until is None:
            if self.troubled and self.random.random() < self.stalls:
                task.wakes_at = self.now + self.random.expovariate(10.0)  # others are quicker, once
                worker.must_open_by += task.wakes_at - self.now
            return
        task.wakes_at = until
        task.hears = task is not worker.agent or not worker.busy
        if task.hears and task.hinted:
            task.hinted = False
            task.wakes_at = self.now

    # What is promised --------------------------------------------------------------------------------------------

    def require(self, holds: object, otherwise: str) -> None:
        if not holds:
            raise Violation(f"{otherwise} (seed {self.seed}, at {self.now:.3f} s)")

    def require_decision(self, transaction: str, phase: Phase, worker: Worker) -> None:
        decided = self.decisions.get(transaction)
        if decided is None and phase is Phase.ABORTED:
            return  # it never began
        if self.lost_data and phase is Phase.ABORTED:
            return  # the store has forgotten what it decided
        if self.lost_data and any(transaction in committed for committed in self.committed.values()):
            return  # aborted since the store had forgotten that, and published again by who knew
        self.require(decided is phase, f"{worker.name} takes {transaction} for {phase}, but it was {decided}")

    def observe(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A change that the store has made."""
        if method not in ("commit", "abort"):
            return
        record = arguments[0]
        transaction = record.transaction if method == "commit" else record
        self.require(self.lost_data or transaction not in self.decisions, f"{transaction} was decided twice")
        self.decisions[transaction] = Phase.COMMITTED if method == "commit" else Phase.ABORTED
        if method == "commit":
            again = record.generation in self.committed
            self.require(self.lost_data or not again, f"generation {record.generation} was given twice")
            self.committed[record.generation].add(transaction)
            for worker in () if self.unsettled else self.workers.values():
                closed = not worker.serving or not worker.open or worker.excused or self.now >= worker.until
                closed = closed or self.now < worker.alone_until
                self.require(closed, f"{transaction} was committed while {worker.name} admitted requests")

    def _check(self, worker: Worker) -> None:
        """A request comes to ``worker`` now, unless one waits there already."""
        if not worker.serving:
            return
        if worker.waits is None:
            worker.waits = (self.now, self.answered, False)
        came, seen, passed = worker.waits
        passed = passed or came < worker.until
        worker.waits = (came, seen, passed)
        if passed and worker.open:
            worker.waits = None
            self._answer(worker, seen)

    def _answer(self, worker: Worker, seen: int) -> None:
        """``seen``: the newest generation that a client had seen when the request came."""
        if worker.generation > self.answered:
            self.answered = worker.generation
            for each in self.workers.values():
                if not each.stopped:  # that one is looked at when it goes on
                    self._check(each)
        excused = worker.excused or self.unsettled or self.now < worker.alone_until
        if worker.generation < seen and not excused:
            self.require(False, f"{worker.name} answers {worker.generation} after {seen}")
        known = self.committed.get(worker.generation, {"disk"})
        if worker.code not in known:
            self.require(False, f"{worker.name} serves {worker.code} as generation {worker.generation}")

    def _check_end(self) -> None:
        view = self.store.view(RELEASE)
        for worker in self.workers.values():
            self.require(worker.open, f"the lock of {worker.name} is still closed")
            self.require(worker.generation == view.head, f"{worker.name} serves {worker.generation}, not {view.head}")
            self.require(not worker.excused, f"{worker.name} is still in doubt")
        self.require(
            len({worker.code for worker in self.workers.values()}) == 1, f"they serve different code: {self}"
        )
        self.unsettled = False
        for generation, transactions in () if self.lost_data else self.committed.items():
            for transaction in transactions:
                outcome = self.store.view(RELEASE, transaction).outcome
                self.require(outcome is Phase.COMMITTED, f"generation {generation} has left the journal")
        for record in self.store.journal(RELEASE):
            self.require(self.store.blobs(record.digests), f"the sources of generation {record.generation} are gone")
        if self.committed and not self.lost_data:
            self.require(view.head == max(self.committed), f"the head is {view.head}, not {max(self.committed)}")
        if self.lost_data and not self.crashed_since:
            self.require(view.head >= self.highest, f"the head is {view.head}; somebody served {self.highest}")
        if self.lost_data:  # what clients had seen before is not served any more
            self.answered = view.head
            for worker in self.workers.values():
                worker.waits = None

    def __repr__(self) -> str:
        active = self.store.view(RELEASE).active
        workers = [
            (
                each.name,
                each.generation,
                each.code,
                each.serving,
                each.open,
                each.joined,
                each.participant and each.participant.step.value,
            )
            for each in self.workers.values()
        ]
        return f"<World {self.now:.3f} s, active {active}, workers {workers}>"


def run(seed: int, store: StoreFactory | None = None) -> World:
    """One history. Raise :class:`Violation`, which names the seed."""
    world = World(seed, store)
    world.run()
    return world


def histogram(worlds: list[World]) -> dict[str, int]:
    """What has happened in these, so that a test can tell whether it has tested anything."""
    found: dict[str, int] = defaultdict(int)
    for world in worlds:
        for phase in world.decisions.values():
            found[phase.value] += 1
    return dict(found)

"""How the pause grows up to 1,000 workers, from a simulation: nobody has that many processors at hand.

The protocol's own state machines run in virtual time. Each worker has a processor to itself; each message on the
way to Redis or from it takes as long as is drawn. Redis does one thing at a time, and answers all that it has found
waiting when that is done and, if any of it has to be kept, written. What each of these costs was measured, see
:data:`COSTS`. One random number generator decides everything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, NamedTuple

from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile
from flask_hotreload.coordination.lease import RENEWED_EACH
from flask_hotreload.coordination.memory import FIRST_RELEASE, MemoryStore
from flask_hotreload.coordination.protocol import (
    Advance,
    Apply,
    Commit,
    Coordinator,
    CoordinatorAction,
    Finish,
    Participant,
    ParticipantAction,
    Prepare,
    Release,
    Wait,
)
from flask_hotreload.coordination.records import Ballot, JournalRecord, Member, News, Phase, TransactionRecord, Vote

WORKERS = (10, 32, 100, 316, 1000)
#: Seconds that a message takes, one way; drawn evenly.
DELAYS = (0.0002, 0.005)
LIMIT = 60.0  # seconds; nothing goes wrong here


class Growing(NamedTuple):
    """Seconds that something takes which grows with the number of workers: as measured with 10, 100 and 1,000."""

    with_10: float
    with_100: float
    with_1000: float

    def of(self, workers: int) -> float:
        if workers <= 100:
            fewer, less, more, most = 10, self.with_10, 100, self.with_100
        else:
            fewer, less, more, most = 100, self.with_100, 1000, self.with_1000
        return max(0.0, less + (most - less) * (workers - fewer) / (more - fewer))


@dataclass(frozen=True)
class Costs:
    """Seconds of a processor, the server's but for the last three."""

    command: float  # a script that answers with little
    view: Growing  # everything, for the coordinator
    publish: Growing  # one message to all
    write: float  # until what was changed is on the disk
    own: float  # what a worker does from a wake-up or an answer to its next question
    close: float  # its lock; apply nothing
    read: Growing  # the coordinator: what it was shown


#: On the machine of ``docs/benchmarks.rst``, Redis 6.2, by the time of its process over many calls.
COSTS = Costs(
    command=0.000026,
    view=Growing(0.000040, 0.000209, 0.007750),
    publish=Growing(0.000029, 0.000285, 0.007450),
    write=0.0008,
    own=0.0002,
    close=0.0001,
    read=Growing(0.000078, 0.000406, 0.006870),
)


class Ask(NamedTuple):
    """Yielded by a worker: do it in the server, and go on with its answer."""

    does: Callable[[], Any]
    seconds: float
    kept: bool = False  # whether it is answered only when it is written


class Ring(NamedTuple):
    """Yielded by a worker: wake these. It goes on at once; what is new it knows itself."""

    members: Sequence[str]
    news: News | None = None


class Work(NamedTuple):
    """Yielded by a worker: it is busy for so long."""

    seconds: float


class Sleep(NamedTuple):
    """Yielded by a worker: until it is rung."""


Steps = Generator[Any, Any, None]


@dataclass
class Outcome:
    """Of one transaction, in seconds. ``pause``: the longest that a worker was closed."""

    pause: float
    total: float


@dataclass
class Worker:
    name: str
    participant: Participant
    steps: Steps | None = None
    sleeps: bool = False
    rung: bool = False
    news: News | None = None  # of the last ring that had any
    closed_at: float = 0.0
    closed: list[float] = field(default_factory=list)  # for how long, each time


class World:
    """``workers`` of them, joined. ``run`` makes one transaction after another."""

    def __init__(self, workers: int, seed: int, costs: Costs = COSTS, delays: tuple[float, float] = DELAYS) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._costs = costs
        self._delays = delays
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._asked: list[tuple[Ask, Callable[[Any], None]]] = []  # what the server finds when it is free
        self._is_serving = False
        self.store = MemoryStore(clock=lambda: self.now)
        names = [f"w{number}" for number in range(workers)]
        self.workers = {name: Worker(name, Participant(name, FIRST_RELEASE, 0, in_doubt=LIMIT)) for name in names}
        for worker in self.workers.values():
            assert self.store.join(Member(worker.name, "host", 1, FIRST_RELEASE, 0))
            worker.steps = self._follow(worker)
            self._go_on(worker)
            self._at(self.random.uniform(0, RENEWED_EACH), self._renew)
        self._view, self._publish, self._read = (each.of(workers) for each in (costs.view, costs.publish, costs.read))

    def run(self, transactions: int) -> list[Outcome]:
        return [self._transaction(number) for number in range(1, transactions + 1)]

    def _transaction(self, number: int) -> Outcome:
        asker = self.random.choice(list(self.workers.values()))
        began, done = self.now, []
        asker.steps = self._coordinate(asker, number, done.append)
        asker.sleeps = False
        self._go_on(asker)
        while not done:
            self._step()
        total = done[0] - began
        asker.steps = self._follow(asker)
        self._go_on(asker)
        until = self.now + 3 * RENEWED_EACH
        self._at(until, lambda: None)
        while self.now < until:  # all of them rest
            self._step()
        pauses = [worker.closed.pop() for worker in self.workers.values()]
        return Outcome(max(pauses), total)

    # Workers -----------------------------------------------------------------------------------------------------

    def _follow(self, worker: Worker) -> Steps:
        while True:
            news, worker.news = worker.news, None
            heard = None if news is None else worker.participant.hear(news, self.now)
            if heard is None:
                view = yield self._glance(worker)
                yield Work(self._costs.own)
                heard = worker.participant.observe(view, self.now)
            yield from self._carry_out(worker, heard)
            yield Sleep()

    def _glance(self, worker: Worker) -> Ask:
        transaction = worker.participant.transaction
        return Ask(lambda: self.store.glance(FIRST_RELEASE, transaction), self._costs.command)

    def _carry_out(self, worker: Worker, action: ParticipantAction) -> Generator[Any, Any, bool]:
        """Do what the protocol says; return whether a coordinator has to look at what has come of it."""
        participant = worker.participant
        if isinstance(action, Prepare):
            participant.prepared(action.record, ok=True)
            return (yield from self._vote(worker, action.record, Ballot.PREPARED))
        if isinstance(action, Apply):
            worker.closed_at = self.now
            yield Work(self._costs.close)
            participant.applied(ok=True)
            return (yield from self._vote(worker, action.record, Ballot.APPLIED))
        if isinstance(action, Release):
            yield Work(self._costs.close)
            worker.closed.append(self.now - worker.closed_at)
            record = participant.record
            assert record is not None
            all_have = yield from self._vote(worker, record, Ballot.SETTLED)
            participant.settled(record.generation)
            return bool(all_have)
        return True

    def _vote(self, worker: Worker, record: TransactionRecord, ballot: Ballot) -> Generator[Any, Any, bool]:
        """Return whether it was the last one."""
        vote = Vote(record.id, ballot, worker.name, ok=True)
        kept = ballot is not Ballot.APPLIED  # with the last one it tells of itself
        agreed = yield Ask(lambda: self.store.vote(vote), self._costs.command, kept)
        stages = record.phase is Phase.STAGING
        is_last = bool(agreed == (1 if stages else len(record.participants)))
        tells = is_last and not stages and ballot is not Ballot.SETTLED
        news = News(record.id, record.phase, agreed=True) if tells else None
        if worker.name == record.coordinator:
            worker.news = news
        elif is_last:
            yield Ring([record.coordinator], news)
        return is_last

    def _coordinate(self, worker: Worker, number: int, done: Callable[[float], None]) -> Steps:
        record = TransactionRecord(
            id=f"t{number}",
            release=FIRST_RELEASE,
            coordinator=worker.name,
            participants=tuple(self.workers),
            base=number - 1,
            generation=number,
            phase=Phase.STAGING,
            deadline=self.now + LIMIT,
            payload=b"",
        )
        assert (yield Ask(lambda: self.store.begin(record), self._costs.command, kept=True))
        coordinator = Coordinator(record.id)
        while True:
            news, worker.news = worker.news, None
            heard: ParticipantAction | None = None if news is None else worker.participant.hear(news, self.now)
            action: CoordinatorAction | None = None if news is None or heard is not None else coordinator.hear(news)
            if heard is None and action is None:
                view = yield Ask(lambda: self.store.view(FIRST_RELEASE, record.id), self._view)
                yield Work(self._read + self._costs.own)
                heard = worker.participant.observe(view, self.now)
                action = coordinator.observe(view, set(), self.now) if isinstance(heard, Wait) else None
            if action is None:
                assert heard is not None
                if not (yield from self._carry_out(worker, heard)):
                    yield Sleep()
                continue
            if isinstance(action, Finish):
                done(self.now)
                return
            if isinstance(action, Advance):
                yield self._advancing(action)
                worker.news = News(record.id, action.to, self.now + LIMIT) if action.to is Phase.APPLY else None
                yield Ring(record.participants, worker.news)
            elif isinstance(action, Commit):
                assert (yield self._deciding(number, record.id))
                worker.news = News(record.id, Phase.COMMITTED)
                yield Ring(record.participants, worker.news)
            else:
                yield Sleep()

    def _advancing(self, action: Advance) -> Ask:
        return Ask(
            lambda: self.store.advance(action.transaction, to=action.to, deadline=self.now + LIMIT),
            self._costs.command,
            kept=action.to is not Phase.APPLY,
        )

    def _deciding(self, number: int, transaction: str) -> Ask:
        journal = JournalRecord(FIRST_RELEASE, number, transaction, b"", ())
        return Ask(lambda: self.store.commit(journal, obsolete=[number - 1]), self._costs.command, kept=True)

    # Messages ----------------------------------------------------------------------------------------------------

    def _at(self, moment: float, does: Callable[[], None]) -> None:
        heappush(self._events, (moment, next(self._numbers), does))

    def _step(self) -> None:
        self.now, _, does = heappop(self._events)
        does()

    def _delay(self) -> float:
        return self.random.uniform(*self._delays)

    def _go_on(self, worker: Worker, answer: Any = None) -> None:
        """Until it has to wait for something."""
        steps = worker.steps
        assert steps is not None
        try:
            while isinstance(wanted := steps.send(answer), Ring):
                answer = None
                self._ring(worker, wanted)
        except StopIteration:
            return

        def goes_on(answer: Any = None) -> None:
            if worker.steps is steps:
                self._go_on(worker, answer)

        if isinstance(wanted, Work):
            self._at(self.now + wanted.seconds, goes_on)
        elif isinstance(wanted, Ask):
            self._at(self.now + self._delay(), lambda: self._arrives(wanted, goes_on))
        elif worker.rung:
            worker.rung = False
            self._at(self.now, goes_on)
        else:
            worker.sleeps = True

    def _ring(self, worker: Worker, ring: Ring) -> None:
        members = list(ring.members)
        others = [self.workers[name] for name in members if name != worker.name]
        worker.rung = worker.rung or (ring.news is None and len(others) < len(members))
        cost = self._costs.command if len(others) == 1 else self._publish

        def published(_: Any) -> None:
            for other in others:
                self._at(self.now + self._delay(), lambda other=other: self._wake(other, ring.news))

        self._at(self.now + self._delay(), lambda: self._arrives(Ask(lambda: None, cost), published, silent=True))

    def _wake(self, worker: Worker, news: News | None) -> None:
        worker.news = news or worker.news
        if worker.sleeps:
            worker.sleeps = False
            self._go_on(worker)
        else:
            worker.rung = True

    # The server --------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """A worker's lease."""
        self._at(self.now + RENEWED_EACH, self._renew)
        self._arrives(Ask(lambda: None, self._costs.command, kept=True), lambda _: None, silent=True)

    def _arrives(self, ask: Ask, answered: Callable[[Any], None], *, silent: bool = False) -> None:
        """``silent``: what becomes of it is not an answer that travels back."""
        told = answered if silent else lambda answer: self._at(self.now + self._delay(), lambda: answered(answer))
        self._asked.append((ask, told))
        if not self._is_serving:
            self._is_serving = True
            self._at(self.now, self._serve)

    def _serve(self) -> None:
        """All that waits, one after the other; then write; then answer."""
        asked, self._asked = self._asked, []
        answers = [(ask.does(), told) for ask, told in asked]
        taken = sum(ask.seconds for ask, _ in asked)
        taken += self._costs.write if any(ask.kept for ask, _ in asked) else 0.0
        self._at(self.now + taken, lambda: self._answer(answers))

    def _answer(self, answers: list[tuple[Any, Callable[[Any], None]]]) -> None:
        for answer, told in answers:
            told(answer)
        self._is_serving = bool(self._asked)
        if self._asked:
            self._at(self.now, self._serve)


def outcomes(workers: int, transactions: int, seed: int = 1, **world: Any) -> list[Outcome]:
    return World(workers, seed, **world).run(transactions)


def measure() -> list[Figure]:
    figures = []
    for workers in WORKERS:
        found = outcomes(workers, amount(100 if workers <= 100 else 20, quick_run=2))
        pauses = [1000 * outcome.pause for outcome in found]
        total = percentile([1000 * outcome.total for outcome in found], 0.5)
        figures.append(
            Figure(
                f"simulated: pause, {workers:,} workers, messages of {DELAYS[0] * 1000:g} to {DELAYS[1] * 1000:g} ms",
                f"p50 {percentile(pauses, 0.5):.1f} ms, longest {max(pauses):.1f} ms; all of it {total:.0f} ms",
                "",
                None,
            )
        )
    return figures

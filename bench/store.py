"""What the protocol over the SQLite store adds to a pause: as many real processes, of which each only votes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, perf_counter, sleep

from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile
from flask_hotreload.coordination.protocol import (
    Advance,
    Apply,
    Commit,
    Coordinator,
    Finish,
    Participant,
    Prepare,
    Release,
    Restore,
    TryAbort,
)
from flask_hotreload.coordination.records import Ballot, JournalRecord, Member, Phase, TransactionRecord, View, Vote
from flask_hotreload.coordination.sqlite import SQLiteStore

RELEASE = "0"
LIMIT = 30.0  # seconds


class Voter:
    """A worker without an application: it votes yes, and tells for how long its lock would have been closed."""

    def __init__(self, file: Path, member: str) -> None:
        self.store = SQLiteStore(file, member)
        self.me = self.store.member_id
        head = self.store.view(RELEASE).head
        self.participant = Participant(self.me, RELEASE, head, in_doubt=LIMIT)
        self._closed_at = 0.0
        until = monotonic() + LIMIT
        while not self.store.join(Member(self.me, "bench", 0, RELEASE, head)):
            assert monotonic() < until, "could not join"
            sleep(0.01)

    def step(self) -> bool:
        """Whether there may be more to do without a further wake-up."""
        participant, store = self.participant, self.store
        action = participant.observe(store.glance(RELEASE, participant.transaction), store.now())
        if isinstance(action, Prepare):
            participant.prepared(action.record, ok=True)
            self._vote(action.record, Ballot.PREPARED)
            return False
        if isinstance(action, Apply):
            self._closed_at = perf_counter()
            participant.applied(ok=True)
            self._vote(action.record, Ballot.APPLIED)
            return False
        if isinstance(action, Release | Restore):
            record = participant.record
            assert record is not None
            closed = perf_counter() - self._closed_at
            participant.settled(record.generation if isinstance(action, Release) else record.base)
            self._vote(record, Ballot.SETTLED, str(closed).encode())
            return True
        return False

    def _vote(self, record: TransactionRecord, ballot: Ballot, detail: bytes = b"{}") -> None:
        cast = self.store.vote(Vote(record.id, ballot, self.me, ok=True, detail=detail))
        if record.coordinator != self.me and cast >= len(record.participants):
            self.store.ring([record.coordinator])


def follow(file: Path, member: str) -> None:
    """Until it is killed."""
    voter = Voter(file, member)
    print("joined", flush=True)
    while True:
        if not voter.step():
            voter.store.wait(0.1)


def transaction(asker: Voter, number: int, members: tuple[str, ...]) -> float:
    """Run one; return the longest time, in seconds, that a lock would have been closed."""
    store = asker.store
    record = TransactionRecord(
        f"t{number}", RELEASE, asker.me, members, number - 1, number, Phase.STAGING, store.now() + LIMIT, b"x" * 2000
    )
    assert store.begin(record)
    coordinator = Coordinator(record.id)
    while True:
        if asker.step():
            continue
        view = store.view(RELEASE, record.id)
        action = coordinator.observe(view, store.dead(members), store.now())
        if isinstance(action, Advance):
            store.advance(record.id, to=action.to, deadline=store.now() + LIMIT)
            store.ring(members)
        elif isinstance(action, Commit):
            store.commit(JournalRecord(RELEASE, number, record.id, record.payload, ()), obsolete=[number - 1])
            store.ring(members)
        elif isinstance(action, Finish):
            return _longest(action, view, members)
        else:
            assert not isinstance(action, TryAbort), action.reason
            store.wait(0.1)


def _longest(finish: Finish, view: View, members: tuple[str, ...]) -> float:
    settled = view.voted(Ballot.SETTLED)
    assert finish.phase is Phase.COMMITTED
    assert set(settled) == set(members)
    return max(float(vote.detail) for vote in settled.values())


@contextmanager
def followers(file: Path, number: int) -> Iterator[tuple[str, ...]]:
    with ExitStack() as undo:
        names = tuple(f"w{each}" for each in range(number))
        for name in names:
            process = subprocess.Popen([sys.executable, "-m", "bench.store", str(file), name], stdout=subprocess.PIPE)
            undo.callback(process.wait)
            undo.callback(process.kill)
            assert process.stdout is not None
            undo.enter_context(process.stdout)
            process.stdout.readline()
        yield names


def pauses(workers: int, rounds: int) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asker = Voter(Path(folder, "store.sqlite"), "asker")
        with followers(Path(folder, "store.sqlite"), workers - 1) as names:
            members = (asker.me, *names)
            measured = []
            for number in range(1, rounds + 1):
                measured.append(transaction(asker, number, members))
                sleep(0.005)  # so that everybody idles
        asker.store.close()
    return measured[rounds // 10 :]


def measure() -> list[Figure]:
    figures = []
    for workers, target in ((1, None), (2, None), (4, 1.5), (8, None), (16, None), (32, 6.0)):
        measured = [1000 * pause for pause in pauses(workers, amount(400, quick_run=20))]
        median, rare = percentile(measured, 0.5), percentile(measured, 0.99)
        figures.append(
            Figure(
                f"the protocol's share of a pause, {workers} workers ({len(measured)} reloads)",
                f"p50 {median:.2f} ms, p99 {rare:.2f} ms",
                "" if target is None else f"p50 ≤ {target} ms",
                None if target is None else median <= target,
            )
        )
    return figures


if __name__ == "__main__":
    follow(Path(sys.argv[1]), sys.argv[2])

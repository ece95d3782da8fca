"""A store in this process's memory: for one process, and for the simulation."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from time import monotonic

from msgspec.structs import replace

from flask_hotreload.coordination.records import (
    Ballot,
    JournalRecord,
    Member,
    News,
    Phase,
    StagedRecord,
    TransactionRecord,
    View,
    Vote,
)
from flask_hotreload.coordination.store import RELEASES, REMEMBERED, REPORTS

FIRST_RELEASE = "0"
#: Why a transaction was aborted when a worker has given back to a store what that had lost.
AGAIN = "the store had lost data, which a worker has published again"


class MemoryStore:
    """Any number of members may share it. ``clock`` may be replaced; :meth:`bury` tells that a member is dead.

    ``lease``: seconds, by ``clock``, after which a member that has not renewed is as good as dead. Without it only
    :meth:`bury` tells.
    """

    def __init__(
        self, member_id: str = "", *, clock: Callable[[], float] = monotonic, lease: float | None = None
    ) -> None:
        self.member_id = member_id or f"{socket.gethostname()}:{os.getpid()}"
        self._clock = clock
        self._lease = inf if lease is None else lease
        self._changed = threading.Condition()  # protects everything below
        self._release = FIRST_RELEASE
        self._heads: dict[str, int] = {FIRST_RELEASE: 0}  # in the order in which they began
        self._newest = 0
        self._origins: dict[str, str] = {}  # digest of a whole source → release
        self._seal: bytes | None = None
        self._active: TransactionRecord | None = None
        self._votes: dict[tuple[Ballot, str], Vote] = {}
        self._members: dict[str, Member] = {}
        self._leases: dict[str, float] = {}  # when they end
        self._dead: set[str] = set()  # until they join again
        self._journal: list[JournalRecord] = []
        self._obsolete: deque[str] = deque(maxlen=REMEMBERED)  # committed transactions
        self._begun: deque[str] = deque(maxlen=REMEMBERED)
        self._blobs: dict[str, bytes] = {}
        self._base: tuple[str, bytes, frozenset[str]] | None = None  # release, base, digests
        self._staged: dict[str, StagedRecord] = {}  # by release
        self._reports: dict[object, bytes] = {}  # by transaction, or by a key of its own
        self._rung = False
        self._news: News | None = None

    def now(self) -> float:
        return self._clock()

    def glance(self, release: str, transaction: str | None = None) -> View:
        return replace(self.view(release, transaction), votes=(), members=())

    def view(self, release: str, transaction: str | None = None) -> View:
        with self._changed:
            return View(
                release=self._release,
                head=self._heads.get(release, 0),
                newest=self._newest,
                active=self._active,
                votes=tuple(self._votes.values()),
                members=tuple(self._members.values()),
                outcome=self._outcome(transaction),
            )

    def _outcome(self, transaction: str | None) -> Phase | None:
        if transaction is None:
            return None
        if self._active is not None and self._active.id == transaction:
            return self._active.phase
        return Phase.COMMITTED if self._is_committed(transaction) else Phase.ABORTED

    def _is_committed(self, transaction: str) -> bool:
        return transaction in self._obsolete or any(record.transaction == transaction for record in self._journal)

    # Members ---------------------------------------------------------------------------------------------------

    def join(self, member: Member) -> bool:
        with self._changed:
            undecided = self._undecided()
            if undecided is not None and undecided.release == member.release:
                return False
            if self._heads.get(member.release) != member.generation:
                return False
            self._members[member.id] = member
            self._leases[member.id] = self._clock() + self._lease
            self._dead.discard(member.id)
            return True

    def update(self, member: Member) -> None:
        with self._changed:
            if member.id in self._members:
                self._members[member.id] = member

    def leave(self, member: str) -> None:
        with self._changed:
            self._members.pop(member, None)

    def renew(self, member: str, generation: int) -> float:
        with self._changed:
            found = self._members.get(member)
            if found is None or self._heads.get(found.release) != generation:
                return -inf
            self._leases[member] = self._clock() + self._lease
            return self._leases[member]

    def bury(self, member: str) -> None:
        """``member`` has died."""
        with self._changed:
            self._dead.add(member)

    def dead(self, members: Iterable[str]) -> set[str]:
        with self._changed:
            return {member for member in members if self._is_buried(member)}

    def _is_buried(self, member: str) -> bool:
        """Whether it is dead; if so, it is no member from now on."""
        if member in self._members and self._leases[member] <= self._clock():
            self._dead.add(member)
        if member in self._dead:
            self._members.pop(member, None)
        return member in self._dead

    # The transaction -------------------------------------------------------------------------------------------

    def _undecided(self) -> TransactionRecord | None:
        return None if self._active is None or self._active.phase.decided else self._active

    def tidy(self) -> None:
        """Here it costs nothing when a transaction begins."""

    def has_begun(self, transaction: str) -> bool:
        with self._changed:
            return transaction in self._begun or self._is_committed(transaction)

    def begin(self, record: TransactionRecord) -> bool:
        with self._changed:
            if self._undecided() is not None or self._heads.get(record.release) != record.base:
                return False
            if record.generation <= self._newest or self.has_begun(record.id):
                return False
            members = {member.id for member in self._members.values() if member.release == record.release}
            if not members.issuperset(record.participants):
                return False
            if not all(self._is_buried(member) for member in members.difference(record.participants)):
                return False
            used = {digest for each in self._journal for digest in each.digests}
            used.update(() if self._base is None else self._base[2])
            self._staged = {name: each for name, each in self._staged.items() if each.until > self._clock()}
            used.update(digest for each in self._staged.values() for digest in each.digests)
            self._blobs = {digest: data for digest, data in self._blobs.items() if digest in used}
            self._active = record
            self._begun.append(record.id)
            self._votes.clear()
            return True

    def advance(self, transaction: str, *, to: Phase, deadline: float, payload: bytes | None = None) -> bool:
        before = {Phase.PREPARE: Phase.STAGING, Phase.APPLY: Phase.PREPARE}[to]
        with self._changed:
            active = self._active
            if active is None or active.id != transaction or active.phase is not before:
                return False
            payload = active.payload if payload is None else payload
            self._active = replace(active, phase=to, deadline=deadline, payload=payload)
            return True

    def vote(self, vote: Vote, *, told: Member | None = None) -> int:
        if told is not None:
            self.update(told)
        with self._changed:
            active = self._active
            if active is None or active.id != vote.transaction or (vote.ballot, vote.member) in self._votes:
                return 0
            if active.phase.decided and vote.ballot is not Ballot.SETTLED:
                return 0
            self._votes[vote.ballot, vote.member] = vote
            return sum(each.ok and each.ballot is vote.ballot for each in self._votes.values())

    def lay_ready(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> None:
        """Nothing here is written anywhere."""

    def commit(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> bool:
        superseded = {(record.release, generation) for generation in obsolete}
        with self._changed:
            active = self._active
            if active is None or active.id != record.transaction or active.phase is not Phase.APPLY:
                return False
            self._active = replace(active, phase=Phase.COMMITTED)
            gone = [each for each in self._journal if (each.release, each.generation) in superseded]
            self._obsolete.extend(each.transaction for each in gone)
            self._journal = [*(each for each in self._journal if each not in gone), record]
            self._heads[record.release] = self._newest = record.generation
            self._know(record.sources, record.release)
            return True

    def _know(self, sources: str, release: str) -> None:
        """Workers that boot with ``sources`` belong to ``release``."""
        if sources:
            self._origins.pop(sources, None)
            self._origins[sources] = release
        for each in list(self._origins)[:-REMEMBERED]:
            del self._origins[each]

    def abort(self, transaction: str, reason: str) -> bool:
        with self._changed:
            active = self._undecided()
            if active is None or active.id != transaction:
                return False
            self._active = replace(active, phase=Phase.ABORTED, reason=reason)
            return True

    # The journal -----------------------------------------------------------------------------------------------

    def journal(self, release: str) -> Sequence[JournalRecord]:
        with self._changed:
            return [record for record in self._journal if record.release == release]

    def new_release(self, release: str, *, only_if: str) -> bool:
        with self._changed:
            if self._release != only_if or release in self._heads:
                return False
            self._heads[release] = self._newest
            self._release = release
            self._know(release, release)
            used = {release, *(member.release for member in self._members.values())}
            active = self._undecided()
            used.update(() if active is None else [active.release])
            for each in [each for each in self._heads if each not in used][:-RELEASES]:
                self._forget(each)
            return True

    def _forget(self, release: str) -> None:
        del self._heads[release]
        self._obsolete.extend(each.transaction for each in self._journal if each.release == release)
        self._journal = [each for each in self._journal if each.release != release]
        self._staged.pop(release, None)
        self._origins = {sources: of for sources, of in self._origins.items() if of != release}
        if self._base is not None and self._base[0] == release:
            self._base = None

    def release_of(self, sources: str) -> str | None:
        with self._changed:
            return self._origins.get(sources)

    def publish_again(
        self,
        release: str,
        head: int,
        journal: Sequence[JournalRecord],
        blobs: Mapping[str, bytes],
        base: bytes | None,
    ) -> bool:
        with self._changed:
            if head <= self._heads.get(release, 0):
                return False
            active = self._undecided()
            if active is not None and active.release == release:
                self._active = replace(active, phase=Phase.ABORTED, reason=AGAIN)
            self._members = {name: each for name, each in self._members.items() if each.release != release}
            if release not in self._heads:
                self._know(release, release)
            kept = {each.transaction for each in journal}
            gone = [each.transaction for each in self._journal if each.release == release]
            self._obsolete.extend(each for each in gone if each not in kept)
            self._journal = [*(each for each in self._journal if each.release != release), *journal]
            for each in journal:
                self._know(each.sources, release)
            self._staged.pop(release, None)
            self._blobs.update(blobs)
            if base is not None:
                self._base = release, base, frozenset(blobs)
            elif self._base is not None and self._base[0] == release:
                self._base = None
            self._heads[release] = head
            self._newest = max(self._newest, head)
            return True

    def put_seal(self, seal: bytes) -> bytes:
        with self._changed:
            if self._seal is None or all(self._is_buried(member) for member in list(self._members)):
                self._seal = seal
            return self._seal

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        with self._changed:
            self._blobs.update(blobs)

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        with self._changed:
            return {digest: self._blobs[digest] for digest in digests if digest in self._blobs}

    def put_base(self, release: str, base: bytes, blobs: Mapping[str, bytes]) -> bool:
        with self._changed:
            if self._release != release or self._undecided() is not None:
                return False
            if any(record.release == release for record in self._journal):
                return False
            self._base = release, base, frozenset(blobs)
            self._blobs.update(blobs)
            return True

    def base(self, release: str) -> bytes | None:
        with self._changed:
            return self._base[1] if self._base is not None and self._base[0] == release else None

    def put_staged(self, staged: StagedRecord) -> None:
        with self._changed:
            self._staged[staged.release] = staged

    def staged(self, release: str) -> StagedRecord | None:
        with self._changed:
            staged = self._staged.get(release)
            return staged if staged is not None and staged.until > self._clock() else None

    def drop_staged(self, transaction: str, *, unless_begun: str | None = None) -> bool:
        with self._changed:
            releases = [release for release, each in self._staged.items() if each.transaction == transaction]
            if not releases or (unless_begun is not None and self.has_begun(unless_begun)):
                return False
            del self._staged[releases[0]]
            return True

    def put_report(self, report: bytes, *, transaction: str | None = None, only_first: bool = False) -> None:
        key = object() if transaction is None else transaction
        with self._changed:
            if not (only_first and key in self._reports):
                self._reports[key] = report
            for each in list(self._reports)[:-REPORTS]:
                del self._reports[each]

    def report(self, transaction: str) -> bytes | None:
        with self._changed:
            return self._reports.get(transaction)

    def reports(self) -> list[bytes]:
        with self._changed:
            return list(self._reports.values())

    # Wake-ups --------------------------------------------------------------------------------------------------

    def ring(self, members: Iterable[str], news: News | None = None) -> None:
        with self._changed:
            self._rung = True
            self._news = news or self._news
            self._changed.notify_all()

    def wait(self, seconds: float | None) -> News | None:
        with self._changed:
            self._changed.wait_for(lambda: self._rung, seconds)
            news, self._rung, self._news = self._news, False, None
            return news

    def close(self) -> None:
        """The member is dead from now on."""
        self.bury(self.member_id)
        self.ring([self.member_id])

"""A store in a Redis server, for the workers of many hosts.

Members are known to live by leases: a key with Redis' own expiry for each, which the member renews and whose end it
counts on its own clock, from before it asked. Who is told dead is buried in the same step, that is, no member any
more, and cannot renew.

The guarantees need a server whose clock is not put forward, by which leases would end before their members know it,
and that keeps what it has acknowledged, see :mod:`~flask_hotreload.coordination.redis_durability`.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from flask_hotreload.coordination.memory import FIRST_RELEASE
from flask_hotreload.coordination.records import (
    JournalRecord,
    Member,
    News,
    Phase,
    StagedRecord,
    TransactionRecord,
    View,
    Vote,
)
from flask_hotreload.coordination.redis_address import Address
from flask_hotreload.coordination.redis_bell import Bell
from flask_hotreload.coordination.redis_durability import (
    PATIENCE,
    REPLICATION,
    replicas_in,
    warn_unless_kept,
    warn_unless_replicated,
)
from flask_hotreload.coordination.redis_server import Argument, Server
from flask_hotreload.errors import StoreUnavailable

#: Seconds that a lease lasts from its renewal.
LEASE = 3.0
#: Seconds by which a member counts it shorter, for clocks that run at different speeds.
MARGIN = 0.1
#: Seconds after the store was away for which this process begins no transaction: the others have to notice, too.
GRACE = 2.0
_BEFORE = {Phase.PREPARE: Phase.STAGING, Phase.APPLY: Phase.PREPARE}
#: How much is sent at once of what may be large: sources, and their bytes; and how many are asked for.
_SENT, _SENT_BYTES, _ASKED = 500, 1 << 20, 50
_MISSING = 2  # what a script answers if a blob that was put before is gone again
_TRIES = 4

_write_json = msgspec.json.Encoder().encode
_write = msgspec.msgpack.Encoder().encode
_read_record = msgspec.msgpack.Decoder(JournalRecord).decode
_read_staged = msgspec.msgpack.Decoder(StagedRecord).decode
_read_active = msgspec.json.Decoder(TransactionRecord).decode
_read_vote = msgspec.json.Decoder(Vote).decode
_read_member = msgspec.json.Decoder(Member).decode


class _Known(NamedTuple):
    """What was read of the active transaction, so that it need not be sent again."""

    written: bytes = b""
    record: TransactionRecord | None = None
    version: bytes = b""

    @property
    def id(self) -> str:
        return self.record.id if self.record is not None else ""


class RedisStore:
    """See :class:`~flask_hotreload.coordination.store.Store`. ``url``: see
    :mod:`~flask_hotreload.coordination.redis_address`; ``deployment``: which workers belong together.

    ``member_id``
        The id under which this process joins; else one that nobody else has. It costs the server nothing.
    ``clock``
        In the place of the server's, for a simulation.
    ``lease``
        Seconds; 0: it never runs out, for a simulation.
    """

    def __init__(
        self,
        url: str,
        deployment: str,
        member_id: str | None = None,
        *,
        clock: Callable[[], float] | None = None,
        lease: float = LEASE,
    ) -> None:
        if not deployment:
            raise ValueError("a deployment needs a name; set HOTRELOAD_DEPLOYMENT")
        self._address = Address(url)
        self._prefix = f"hotreload:{{{quote(deployment, safe='')}}}:"
        self._server = self._connected()
        self._wanted_id = member_id
        self._member_id: str | None = None
        self._bell: Bell | None = None
        self._coming_to_life = threading.Lock()  # protects the two
        self._clock = clock
        self._lease = lease
        self._known = _Known()
        self._members: tuple[list[bytes], tuple[Member, ...]] = ([], ())  # as they stand there, and read
        self._ready: JournalRecord | None = None  # what was laid ready last
        self._replicas = 0
        self._is_checked = False
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<RedisStore {self._address.text} {self._prefix} member {self._member_id}>"

    def _connected(self) -> Server:
        return Server(self._address, self._key("state"))

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _run(self, script: str, *arguments: Argument) -> list[Any]:
        return self._server.run(script, *arguments)

    def _did(self, script: str, *arguments: Argument) -> bool:
        return bool(self._run(script, *arguments)[0])

    def close(self) -> None:
        with self._coming_to_life:
            member, self._member_id = self._member_id, None
            bell, self._bell = self._bell, None
        if member is not None and not self._server.is_lost:
            try:
                self.leave(member)
            except StoreUnavailable:
                pass  # its lease runs out
        if bell is not None:
            bell.close()
        self._server.close()

    def forget(self) -> None:
        """In a forked child: everything belongs to the parent. The child connects by itself if it needs to."""
        self._server.close()
        if self._bell is not None:
            self._bell.let_go()
        self._server, self._bell, self._member_id = self._connected(), None, None
        self._coming_to_life = threading.Lock()

    # Members ---------------------------------------------------------------------------------------------------

    @property
    def member_id(self) -> str:
        return self._come_to_life()[0]

    def _come_to_life(self) -> tuple[str, Bell]:
        with self._coming_to_life:
            if self._bell is None or self._member_id is None:
                # Process ids repeat between containers whose hosts have the same name.
                unique = f"{socket.gethostname()}:{os.getpid()}-{secrets.token_hex(4)}"
                self._member_id = unique if self._wanted_id is None else self._wanted_id
                self._bell = Bell(self._server, f"{self._prefix}{self._address.database}:", self._member_id)
                self._bell.listen()
            return self._member_id, self._bell

    def join(self, member: Member) -> bool:
        self._come_to_life()
        joined = self._did(
            "join", member.id, member.release, member.generation, _write_json(member), self._milliseconds
        )
        if joined and not self._is_checked:
            self._is_checked = True
            warn_unless_kept(self._server)
        return joined

    @property
    def _milliseconds(self) -> int:
        return int(self._lease * 1000)

    def update(self, member: Member) -> None:
        self._run("update", member.id, _write_json(member))

    def leave(self, member: str) -> None:
        self._run("leave", member)

    def renew(self, member: str, generation: int) -> float:
        asked = time.monotonic()
        if not self._did("renew", member, generation, self._milliseconds):
            return float("-inf")
        return asked + self._lease - MARGIN if self._lease else float("inf")

    def dead(self, members: Iterable[str]) -> set[str]:
        asked = list(members)
        if not asked:
            return set()
        (found,) = self._run("dead", *asked)
        return {member.decode() for member in found}

    # The transaction -------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._server.now() if self._clock is None else self._clock()

    def view(self, release: str, transaction: str | None = None) -> View:
        return self._look(release, transaction, whole=True)

    def glance(self, release: str, transaction: str | None = None) -> View:
        return self._look(release, transaction, whole=False)

    def _look(self, release: str, transaction: str | None, *, whole: bool) -> View:
        known = self._known
        current, head, newest, written, *rest, committed, votes, members = self._run(
            "look", release, transaction or "", known.id, known.version, int(whole)
        )
        active = None if written is None else self._active(known, written, *rest)
        outcome = None
        if transaction is not None:
            outcome = Phase.COMMITTED if committed else Phase.ABORTED
            if active is not None and active.id == transaction:
                outcome = active.phase
        return View(
            release=current.decode(),
            head=int(head),
            newest=int(newest),
            active=active,
            votes=tuple(map(_read_vote, votes or ())),
            members=self._read_members(members),
            outcome=outcome,
        )

    def _active(
        self,
        known: _Known,
        written: bytes,
        phase: bytes,
        deadline: bytes,
        reason: bytes | None,
        version: bytes,
        payload: bytes | None,
    ) -> TransactionRecord:
        if known.record is None or payload is not None:
            known = self._known = _Known(written, replace(_read_active(written), payload=payload or b""), version)
            assert known.record is not None
        return replace(
            known.record,
            phase=Phase(phase.decode()),
            deadline=float(deadline),
            reason=None if reason is None else reason.decode(),
        )

    def _read_members(self, written: list[bytes] | None) -> tuple[Member, ...]:
        if not written:
            return ()
        if written != self._members[0]:
            self._members = (written, tuple(map(_read_member, written)))
        return self._members[1]

    def begin(self, record: TransactionRecord) -> bool:
        if time.monotonic() < self._server.back_since + GRACE:
            return False
        written = _write_json(replace(record, payload=b"", reason=None))
        call = self._server.call_of(
            "begin",
            record.id,
            record.release,
            record.base,
            record.generation,
            record.phase.value,
            repr(record.deadline),
            written,
            record.payload,
            repr(self.now()),
            *record.participants,
        )
        # Asked now, while no lock is closed.
        answer, replication = self._server.ask(call, REPLICATION, required=1)
        self._replicas = replicas_in(replication)
        return bool(self._server.told(answer)[0])

    def tidy(self) -> None:
        """The server knows at any time what nobody needs: there is little to do when a transaction begins."""

    def has_begun(self, transaction: str) -> bool:
        return self._did("has_begun", transaction)

    def advance(self, transaction: str, *, to: Phase, deadline: float, payload: bytes | None = None) -> bool:
        new = () if payload is None else (payload,)
        return self._did("advance", transaction, _BEFORE[to].value, to.value, repr(deadline), *new)

    def vote(self, vote: Vote, *, told: Member | None = None) -> int:
        more = () if told is None else (_write_json(told),)
        cast = vote.transaction, vote.ballot.value, vote.member, int(vote.ok), _write_json(vote)
        return int(self._run("vote", *cast, *more)[0])

    def lay_ready(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> None:
        self._run("lay_ready", record.transaction, _write(record), *record.digests)
        self._ready = record

    def commit(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> bool:
        if self._ready != record:
            self.lay_ready(record)
        call = self._server.call_of(
            "commit", record.transaction, record.release, record.generation, record.sources, *obsolete
        )
        if not self._replicas:
            (answer,) = self._server.ask(call)
            return bool(self._server.told(answer)[0])
        answer, reached = self._server.ask(call, ("WAIT", self._replicas, int(PATIENCE * 1000)), required=1)
        committed = bool(self._server.told(answer)[0])
        if committed:
            warn_unless_replicated(self._server, record.generation, reached=reached, replicas=self._replicas)
        return committed

    def abort(self, transaction: str, reason: str) -> bool:
        return self._did("abort", transaction, reason)

    # The journal -----------------------------------------------------------------------------------------------

    def journal(self, release: str) -> Sequence[JournalRecord]:
        (records,) = self._server.ask(("HVALS", self._key(f"journal:{release}")))
        return sorted(map(_read_record, records), key=lambda record: record.generation)

    def new_release(self, release: str, *, only_if: str) -> bool:
        return self._did("new_release", release, only_if)

    def release_of(self, sources: str) -> str | None:
        (release,) = self._server.ask(("HGET", self._key("sources"), sources))
        if release is None:
            return FIRST_RELEASE if sources == FIRST_RELEASE else None
        return str(release, "utf-8")

    def publish_again(
        self,
        release: str,
        head: int,
        journal: Sequence[JournalRecord],
        blobs: Mapping[str, bytes],
        base: bytes | None,
    ) -> bool:
        named = {digest for record in journal for digest in record.digests}
        of_base = [digest for digest in blobs if digest not in named]
        records: list[Argument] = []
        for record in journal:
            written = record.generation, record.transaction, _write(record), record.sources
            records += [*written, len(record.digests), *record.digests]
        fixed = release, head, base or b"", int(base is not None), len(journal), len(of_base)
        return self._with_blobs(blobs, "publish_again", *fixed, *of_base, *records)

    def put_seal(self, seal: bytes) -> bytes:
        kept: bytes = self._run("put_seal", seal)[0]
        return kept

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        for some in _portions(blobs):
            self._run("put_blobs", *some)

    def _with_blobs(self, blobs: Mapping[str, bytes], script: str, *arguments: Argument) -> bool:
        """Do what names blobs; the script sees that they are there. A ``begin`` in between may remove them again."""
        for _ in range(_TRIES):
            (done,) = self._run(script, *arguments)
            if done != _MISSING:
                return bool(done)
            self.put_blobs(blobs)
        raise StoreUnavailable(f"the Redis server {self._address.text} keeps no sources now; try again")

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        wanted = list(digests)
        found: dict[str, bytes] = {}
        for start in range(0, len(wanted), _ASKED):
            some = wanted[start : start + _ASKED]
            (sources,) = self._server.ask(("HMGET", self._key("blobs"), *some))
            found.update((digest, source) for digest, source in zip(some, sources, strict=True) if source is not None)
        return found

    def put_base(self, release: str, base: bytes, blobs: Mapping[str, bytes]) -> bool:
        return self._with_blobs(blobs, "put_base", release, base, *blobs)

    def base(self, release: str) -> bytes | None:
        ((of, base),) = self._server.ask(("HMGET", self._key("base"), "release", "base"))
        return base if of == release.encode() else None

    def put_staged(self, staged: StagedRecord) -> None:
        self._run(
            "put_staged",
            staged.release,
            staged.transaction,
            repr(staged.until),
            _write(staged),
            *staged.digests,
        )

    def staged(self, release: str) -> StagedRecord | None:
        (written,) = self._server.ask(("HGET", self._key(f"staged:{release}"), "record"))
        staged = None if written is None else _read_staged(written)
        return staged if staged is not None and staged.until > self.now() else None

    def drop_staged(self, transaction: str, *, unless_begun: str | None = None) -> bool:
        return self._did("drop_staged", transaction, *(() if unless_begun is None else (unless_begun,)))

    # The past --------------------------------------------------------------------------------------------------

    def put_report(self, report: bytes, *, transaction: str | None = None, only_first: bool = False) -> None:
        self._run("put_report", report, int(only_first), *(() if transaction is None else (transaction,)))

    def report(self, transaction: str) -> bytes | None:
        found: bytes | None = self._run("report", transaction)[0]
        return found

    def reports(self) -> list[bytes]:
        (told,) = self._server.ask(("HGETALL", self._key("reports")))
        numbered = zip(map(int, told[::2]), told[1::2], strict=True)
        return [report for _, report in sorted(numbered)]

    # Wake-ups --------------------------------------------------------------------------------------------------

    def ring(self, members: Iterable[str], news: News | None = None) -> None:
        self._come_to_life()[1].ring(members, news)

    def wait(self, seconds: float | None) -> News | None:
        return self._come_to_life()[1].wait(seconds)


def _portions(blobs: Mapping[str, bytes]) -> Iterator[list[str | bytes]]:
    """Digests, each followed by its source; so many as are sent at once."""
    some: list[str | bytes] = []
    size = 0
    for digest, source in blobs.items():
        if some and (len(some) >= 2 * _SENT or size + len(source) > _SENT_BYTES):
            yield some
            some, size = [], 0
        some += digest, source
        size += len(source)
    if some:
        yield some


_stores: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)

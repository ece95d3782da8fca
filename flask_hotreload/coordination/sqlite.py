"""A store in one SQLite file, for all the workers of one host. Nothing has to be configured or started for it.

A process opens the file when it first needs it, and again if it has been forked since: no connection, socket or lock
crosses a fork.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from flask_hotreload.coordination import active as under_way
from flask_hotreload.coordination import blobs as kept
from flask_hotreload.coordination import past, presence, recorded, releases
from flask_hotreload.coordination import staged as waiting
from flask_hotreload.coordination.bell import Bell
from flask_hotreload.coordination.database import FAR_TOO_LONG_LOG, LONG_LOG, Database
from flask_hotreload.coordination.hands import Hands
from flask_hotreload.coordination.memory import FIRST_RELEASE
from flask_hotreload.coordination.presence import Presence
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
from flask_hotreload.errors import StoreUnavailable

#: What is voted on before the decision, by workers that prepare at the same time, or hold requests.
_BY_HANDS = (Ballot.PREPARED, Ballot.APPLIED)
#: Seconds for which a member that was alive is not looked at again.
_ALIVE = 0.02
_GLANCE = """
SELECT meta.release, (SELECT head FROM releases WHERE name = ?), max(newest, (SELECT max(head) FROM releases)), {},
    EXISTS (SELECT 1 FROM journal WHERE journal.id = ?),
    active.id, active.release, coordinator, participants, base, generation, phase, deadline, reason, version,
    CASE WHEN active.id = ? AND version = ? THEN NULL ELSE (SELECT data FROM payload) END
FROM meta LEFT JOIN active
"""
_VIEW = _GLANCE.format("(SELECT group_concat(vote) FROM votes), (SELECT group_concat(member) FROM members)")
_GLANCE = _GLANCE.format("NULL, NULL")
_VOTE = "INSERT OR IGNORE INTO votes SELECT ?, ?, ? FROM active WHERE id = ?"
_UPDATE = "UPDATE members SET member = ? WHERE id = ?"
_MAY_SERVE = """
SELECT 1 FROM members JOIN releases ON releases.name = members.release WHERE members.id = ? AND releases.head = ?
"""

_write_json = msgspec.json.Encoder().encode
_read_votes = msgspec.json.Decoder(tuple[Vote, ...]).decode
_read_members = msgspec.json.Decoder(tuple[Member, ...]).decode
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode


class _Payload(NamedTuple):
    """Of the active transaction. A new ``version`` has other ``data``."""

    transaction: str
    version: int
    data: bytes


class _Opened:
    """What one process holds of the store."""

    def __init__(self, file: Path, busy_seconds: float) -> None:
        with ExitStack() as undo:
            self.database = Database(file, busy_seconds=busy_seconds, first_release=FIRST_RELEASE)
            undo.callback(self.database.close)
            self.hands: dict[Ballot, Hands] = {}
            with self.database.explaining():
                for ballot in _BY_HANDS:
                    self.hands[ballot] = Hands(file, ballot)
                    undo.callback(self.hands[ballot].close)
            undo.pop_all()
        self.member: str | None = None
        self.presence: Presence | None = None
        self.bell: Bell | None = None
        self.payload = _Payload("", 0, b"")  # as it was seen last
        self.members: tuple[str, tuple[Member, ...]] = ("", ())  # as they stand in the file, and read
        self.seen_alive: dict[str, float] = {}
        self.journal: dict[str, JournalRecord] = {}  # transaction → its record, as they were read last
        self.ready: tuple[JournalRecord, tuple[int, ...]] | None = None  # what was laid ready last

    def close(self) -> None:
        for each in self._held():
            each.close()

    def descriptors(self) -> list[int]:
        return [descriptor for each in self._held() for descriptor in each.descriptors()]

    def _held(self) -> list[Bell | Presence | Hands | Database]:
        held = (self.bell, self.presence, *self.hands.values(), self.database)
        return [each for each in held if each is not None]


class SQLiteStore:
    """See :class:`~flask_hotreload.coordination.store.Store`. ``file`` is made if it is not there; its folder is not.

    ``member_id``
        The id under which this process joins; ``host:pid``, or the next that is free, if it is not given.
    ``busy_seconds``
        How long a change may wait for others that write.
    """

    def __init__(self, file: Path, member_id: str | None = None, *, busy_seconds: float = 2.0) -> None:
        self._file = Path(file)
        self._wanted_id = member_id
        self._busy_seconds = busy_seconds
        self._opened: _Opened | None = None
        self._opening = threading.RLock()  # protects _opened, and its member, presence and bell
        _stores.add(self)

    def __repr__(self) -> str:
        member = None if self._opened is None else self._opened.member
        return f"<SQLiteStore {self._file} member {member}>"

    @property
    def _database(self) -> Database:
        return self._open().database

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            with self._opening:
                opened = self._opened
                if opened is None:
                    opened = self._opened = _Opened(self._file, self._busy_seconds)
        return opened

    def close(self) -> None:
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            try:
                opened.close()
            except (StoreUnavailable, OSError, sqlite3.Error):
                pass  # whatever is left ends with the process

    def forget(self) -> None:
        """In a forked child: everything belongs to the parent. The child opens its own if it needs any."""
        opened, self._opened = self._opened, None
        self._opening = threading.RLock()
        if opened is not None:
            _of_parents.append(opened)
            for descriptor in opened.descriptors():
                os.close(descriptor)

    # Members ---------------------------------------------------------------------------------------------------

    @property
    def member_id(self) -> str:
        member = self._open().member
        return self._come_to_life().member or "" if member is None else member

    def _come_to_life(self) -> _Opened:
        with self._opening:
            opened = self._open()
            if opened.member is not None:
                return opened
            with opened.database.write() as connection:  # in turn: nobody removes the traces of the dead meanwhile
                member, held = self._claim()
                try:
                    opened.bell = Bell(self._file, member)
                    self._succeed(connection, member)
                except BaseException:
                    held.close()
                    raise
            opened.presence = held
            opened.member = member
            return opened

    def _claim(self) -> tuple[str, Presence]:
        own = f"{socket.gethostname()}:{os.getpid()}"
        wanted = (
            [self._wanted_id] if self._wanted_id is not None else (own if n == 1 else f"{own}.{n}" for n in count(1))
        )
        for member in wanted:
            try:
                return member, Presence(self._file, member)
            except BlockingIOError:
                continue
        raise StoreUnavailable(f"another process that runs is member {self._wanted_id} of {self._file}")

    @staticmethod
    def _succeed(connection: sqlite3.Connection, member: str) -> None:
        """Whatever an earlier process of this id was doing is over: it is not the one that lives now."""
        connection.execute("DELETE FROM members WHERE id = ?", (member,))
        connection.execute(
            f"UPDATE active SET phase = ?, reason = ? WHERE coordinator = ? AND {under_way.UNDECIDED}",
            (Phase.ABORTED.value, f"the coordinating worker {member} has died", member),
        )

    def join(self, member: Member) -> bool:
        if member.id != self.member_id:
            raise ValueError(f"this process is {self.member_id}; it cannot join as {member.id}")
        with self._database.write() as connection:
            undecided = connection.execute(f"SELECT release FROM active WHERE {under_way.UNDECIDED}").fetchone()
            if undecided is None:
                self._bury(connection)
            elif undecided[0] == member.release:
                return False
            head = connection.execute("SELECT head FROM releases WHERE name = ?", (member.release,)).fetchone()
            if head is None or head[0] != member.generation:
                return False
            row = (member.id, member.release, _write_json(member).decode())
            connection.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", row)
            return True

    def _bury(self, connection: sqlite3.Connection) -> None:
        for (member,) in connection.execute("SELECT id FROM members").fetchall():
            if presence.is_dead(self._file, member):
                connection.execute("DELETE FROM members WHERE id = ?", (member,))
        presence.remove_traces(self._file)

    def update(self, member: Member) -> None:
        self._database.change(_UPDATE, _updated(member))
        self._database.shorten_log(FAR_TOO_LONG_LOG)

    def leave(self, member: str) -> None:
        self._database.change("DELETE FROM members WHERE id = ?", (member,))

    def dead(self, members: Iterable[str]) -> set[str]:
        seen = self._open().seen_alive
        now = time.monotonic()
        found = set()
        for member in members:
            if now - seen.get(member, -1.0) < _ALIVE:
                continue
            try:
                dead = presence.is_dead(self._file, member)
            except OSError as error:
                raise StoreUnavailable(f"it cannot be seen whether worker {member} lives: {error}") from error
            if dead:
                found.add(member)
            else:
                seen[member] = now
        return found

    def renew(self, member: str, generation: int) -> float:
        # The row of a member that has died stays until the next one joins: what it has counted is still of use.
        there = self._database.read(_MAY_SERVE, (member, generation)) and not self.dead([member])
        return inf if there else -inf

    # The transaction -------------------------------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic()

    def view(self, release: str, transaction: str | None = None) -> View:
        return self._look(release, transaction, whole=True)

    def glance(self, release: str, transaction: str | None = None) -> View:
        return self._look(release, transaction, whole=False)

    def _look(self, release: str, transaction: str | None, *, whole: bool, in_turn: bool = False) -> View:
        opened, statement = self._open(), _VIEW if whole else _GLANCE
        known = opened.payload
        ((current, head, newest, votes, members, journalled, *row),) = opened.database.read(
            statement, (release, transaction, known.transaction, known.version)
        )
        active = None
        if row[0] is not None:
            active, opened.payload = _active(row, known)
        outcome = None
        if transaction is not None:
            outcome = Phase.COMMITTED if journalled else Phase.ABORTED
            if active is not None and active.id == transaction:
                outcome = active.phase
        read_votes = () if votes is None else _read_votes(f"[{votes}]")
        if whole and active is not None:
            with self._database.explaining():
                by_hand = [hands.votes(active.id) for hands in opened.hands.values()]
            if None in by_hand and not in_turn:  # somebody begins the next one right now
                with self._database.turn():
                    return self._look(release, transaction, whole=whole, in_turn=True)
            read_votes += tuple(vote for votes in by_hand for vote in votes or ())
        if members is not None and members != opened.members[0]:
            opened.members = (members, _read_members(f"[{members}]"))
        read_members = () if members is None else opened.members[1]
        return View(current, head or 0, newest, active, read_votes, read_members, outcome)

    def begin(self, record: TransactionRecord) -> bool:
        with self._database.write() as connection:
            left_out = under_way.left_out(connection, record)
            if left_out is None or not all(presence.is_dead(self._file, member) for member in left_out):
                return False
            if not connection.execute(under_way.TIDIED).fetchone():
                self._tidy(connection)
            under_way.put(connection, record)
            for hands in self._open().hands.values():
                hands.call(record.id)
        self._database.shorten_log(FAR_TOO_LONG_LOG)
        return True

    def tidy(self) -> None:
        if self._database.read(under_way.UNTIDY):
            with self._database.write() as connection:
                if connection.execute(under_way.UNTIDY).fetchone():
                    self._tidy(connection)
                    under_way.tidied(connection)
        self._database.shorten_log(LONG_LOG)

    def _tidy(self, connection: sqlite3.Connection) -> None:
        waiting.remove_expired(connection, self.now())
        recorded.remove_old(connection)
        releases.forget_old_sources(connection)
        kept.remove_unused(connection)

    def has_begun(self, transaction: str) -> bool:
        return past.has_begun(self._database, transaction)

    def advance(self, transaction: str, *, to: Phase, deadline: float, payload: bytes | None = None) -> bool:
        with self._database.write() as connection:
            return under_way.advance(connection, transaction, to, deadline, payload)

    def vote(self, vote: Vote, *, told: Member | None = None) -> int:
        hands = self._open().hands
        if vote.ballot in hands:
            with self._database.explaining():
                if vote.ballot is Ballot.PREPARED:
                    hands[Ballot.APPLIED].verify()  # nobody is held yet
                return hands[vote.ballot].vote(vote)
        row = (vote.member, vote.ok, _write_json(vote).decode(), vote.transaction)
        with self._database.write() as connection:
            if told is not None:
                connection.execute(_UPDATE, _updated(told))
            if connection.execute(_VOTE, row).rowcount < 1:
                return 0
            return int(connection.execute("SELECT count(*) FROM votes WHERE ok").fetchall()[0][0])

    def lay_ready(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> None:
        opened, obsolete = self._open(), tuple(obsolete)
        with opened.database.write() as connection:
            recorded.lay_ready(connection, record, obsolete)
        opened.ready = record, obsolete

    def commit(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> bool:
        obsolete = tuple(obsolete)
        if self._open().ready != (record, obsolete):
            self.lay_ready(record, obsolete=obsolete)
        return self._database.change(under_way.COMMIT, (record.transaction,))

    def abort(self, transaction: str, reason: str) -> bool:
        aborted = self._database.change(
            f"UPDATE active SET phase = ?, reason = ? WHERE id = ? AND {under_way.UNDECIDED}",
            (Phase.ABORTED.value, reason, transaction),
        )
        for hands in self._open().hands.values() if aborted else ():
            with suppress(OSError):  # that a late vote is told so at once is no more than convenient
                hands.end(transaction)
        return aborted

    # The journal -----------------------------------------------------------------------------------------------

    def journal(self, release: str) -> Sequence[JournalRecord]:
        opened = self._open()
        records = recorded.read(opened.database, release, opened.journal)
        opened.journal = {record.transaction: record for record in records}
        return records

    def new_release(self, release: str, *, only_if: str) -> bool:
        with self._database.write() as connection:
            return releases.begin(connection, release, only_if=only_if)

    def release_of(self, sources: str) -> str | None:
        return releases.of_sources(self._database, sources)

    def publish_again(
        self,
        release: str,
        head: int,
        journal: Sequence[JournalRecord],
        blobs: Mapping[str, bytes],
        base: bytes | None,
    ) -> bool:
        with self._database.write() as connection:
            return releases.publish_again(connection, release, head, journal, blobs, base)

    def put_seal(self, seal: bytes) -> bytes:
        with self._database.write() as connection:
            ((found,),) = connection.execute("SELECT seal FROM meta").fetchall()
            members = connection.execute("SELECT id FROM members").fetchall()
            if found is not None and not all(presence.is_dead(self._file, member) for (member,) in members):
                return found if isinstance(found, bytes) else b""
            connection.execute("UPDATE meta SET seal = ?", (seal,))
            return seal

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        with self._database.write() as connection:
            kept.put_blobs(connection, blobs)

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        return kept.read_blobs(self._database, digests)

    def put_base(self, release: str, base: bytes, blobs: Mapping[str, bytes]) -> bool:
        with self._database.write() as connection:
            return kept.put_base(connection, release, base, blobs)

    def base(self, release: str) -> bytes | None:
        return kept.read_base(self._database, release)

    def put_staged(self, staged: StagedRecord) -> None:
        waiting.put(self._database, staged)

    def staged(self, release: str) -> StagedRecord | None:
        return waiting.read(self._database, release, self.now())

    def drop_staged(self, transaction: str, *, unless_begun: str | None = None) -> bool:
        return waiting.drop(self._database, transaction, unless_begun)

    def put_report(self, report: bytes, *, transaction: str | None = None, only_first: bool = False) -> None:
        past.put_report(self._database, report, transaction, only_first=only_first)

    def report(self, transaction: str) -> bytes | None:
        return past.report(self._database, transaction)

    def reports(self) -> list[bytes]:
        return past.reports(self._database)

    # Wake-ups --------------------------------------------------------------------------------------------------

    def ring(self, members: Iterable[str], news: News | None = None) -> None:
        try:
            bell = self._come_to_life().bell
        except StoreUnavailable:
            return
        if bell is not None:
            bell.ring(members, news)

    def wait(self, seconds: float | None) -> News | None:
        bell = self._come_to_life().bell
        return bell.wait(seconds) if bell is not None else None


def _active(row: Sequence[Any], known: _Payload) -> tuple[TransactionRecord, _Payload]:
    """The record in a row of a look, which is without the payload if that is the ``known`` one."""
    transaction, release, coordinator, participants, base, generation, phase, deadline, reason, version, data = row
    payload = known if data is None else _Payload(transaction, version, data)
    record = TransactionRecord(
        transaction,
        release,
        coordinator,
        _read_names(participants),
        base,
        generation,
        Phase(phase),
        deadline,
        payload.data,
        reason,
    )
    return record, payload


def _updated(member: Member) -> tuple[str, str]:
    return _write_json(member).decode(), member.id


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
#: What forked children must not even let go of: closing a parent's connection could write to its file.
_of_parents: list[_Opened] = []


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)

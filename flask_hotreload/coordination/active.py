"""The transaction that is under way in a SQLite store: the statements, for whoever has the turn."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination import past
from flask_hotreload.coordination.records import Phase

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import TransactionRecord

UNDECIDED = "phase NOT IN ('committed', 'aborted')"
#: A row if somebody has tidied up since the last one.
TIDIED = "SELECT 1 FROM active JOIN meta WHERE active.id = tidied"
#: A row if the last one is decided, and nobody has tidied up since.
UNTIDY = f"SELECT 1 FROM active JOIN meta WHERE active.id IS NOT tidied AND NOT ({UNDECIDED})"
#: Decide for commit, if it is this one's time.
COMMIT = f"UPDATE active SET phase = '{Phase.COMMITTED.value}' WHERE id = ? AND phase = '{Phase.APPLY.value}'"
#: Whether something is under way or the id was used; the head of a release; the newest generation of all releases.
_STATE = f"""
SELECT EXISTS (SELECT 1 FROM active WHERE {UNDECIDED} UNION ALL {past.BEGUN}),
    (SELECT head FROM releases WHERE name = ?), max(newest, (SELECT max(head) FROM releases)) FROM meta
"""
_BEFORE = {Phase.PREPARE: Phase.STAGING, Phase.APPLY: Phase.PREPARE}

_write_names = msgspec.json.Encoder().encode


def left_out(connection: sqlite3.Connection, record: TransactionRecord) -> set[str] | None:
    """``None``: it may not begin. Else the members of its release that it leaves out: they have to be dead."""
    ((busy, head, newest),) = connection.execute(_STATE, (record.id, record.id, record.release)).fetchall()
    if busy or head != record.base or record.generation <= newest:
        return None
    rows = connection.execute("SELECT id FROM members WHERE release = ?", (record.release,)).fetchall()
    members = {row[0] for row in rows}
    return members.difference(record.participants) if members.issuperset(record.participants) else None


def tidied(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE meta SET tidied = (SELECT id FROM active)")


def put(connection: sqlite3.Connection, record: TransactionRecord) -> None:
    """In the place of the one before, without votes."""
    past.remember(connection, record.id)
    connection.execute("DELETE FROM votes")
    connection.execute(
        "INSERT OR REPLACE INTO active VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            record.id,
            record.release,
            record.coordinator,
            _write_names(record.participants).decode(),
            record.base,
            record.generation,
            record.phase.value,
            record.deadline,
            record.reason,
        ),
    )
    connection.execute("INSERT OR REPLACE INTO payload VALUES (1, ?)", (record.payload,))


def advance(
    connection: sqlite3.Connection, transaction: str, to: Phase, deadline: float, payload: bytes | None
) -> bool:
    changed = connection.execute(
        "UPDATE active SET phase = ?, deadline = ?, version = version + ? WHERE id = ? AND phase = ?",
        (to.value, deadline, payload is not None, transaction, _BEFORE[to].value),
    ).rowcount
    if changed and payload is not None:
        connection.execute("UPDATE payload SET data = ?", (payload,))
    return changed > 0

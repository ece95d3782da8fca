"""The journal in a SQLite store: the statements, for whoever has the turn.

A row of the journal outlives its record, for its id. What is large of a record stands in a table of its own, before
the row does, and until the next transaction begins after the record has left the journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.records import JournalRecord
from flask_hotreload.coordination.store import REMEMBERED

if TYPE_CHECKING:
    from flask_hotreload.coordination.database import Database

_OBSOLETE = "UPDATE journal SET live = 0 WHERE release = ?"
_PUT = "INSERT OR REPLACE INTO journal (release, generation, id, live, sources) VALUES (?, ?, ?, 1, ?)"
_LAY_READY = "INSERT OR REPLACE INTO records VALUES (?, ?, ?)"

_write_names = msgspec.json.Encoder().encode
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode


def lay_ready(connection: sqlite3.Connection, record: JournalRecord) -> None:
    digests = _write_names(record.digests).decode()
    connection.execute(_LAY_READY, (record.transaction, record.payload, digests))


def put(connection: sqlite3.Connection, record: JournalRecord, *, is_ready: bool = False) -> None:
    if not is_ready:
        lay_ready(connection, record)
    connection.execute(_PUT, (record.release, record.generation, record.transaction, record.sources))


def retire(connection: sqlite3.Connection, release: str, generations: Iterable[int] | None = None) -> None:
    """These records, or all of the release, leave the journal."""
    if generations is None:
        connection.execute(_OBSOLETE, (release,))
    else:
        connection.executemany(f"{_OBSOLETE} AND generation = ?", [(release, each) for each in generations])


def remove_old(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM records WHERE id NOT IN (SELECT id FROM journal WHERE live)")
    connection.execute(
        "DELETE FROM journal WHERE NOT live AND number <= (SELECT max(number) FROM journal) - ?", (REMEMBERED,)
    )


def read(database: Database, release: str) -> list[JournalRecord]:
    """Oldest first."""
    rows = database.read(
        "SELECT release, generation, id, payload, digests, sources FROM journal JOIN records USING (id) "
        "WHERE release = ? AND live ORDER BY generation",
        (release,),
    )
    return [
        JournalRecord(of, generation, transaction, payload, _read_names(digests), sources)
        for of, generation, transaction, payload, digests, sources in rows
    ]

"""What waits to be committed, in a SQLite store: the statements, for whoever has the turn."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.records import StagedRecord

if TYPE_CHECKING:
    from flask_hotreload.coordination.database import Database

_DROP = """
DELETE FROM staged WHERE id = ?
AND NOT EXISTS (SELECT 1 FROM begun WHERE id = ? UNION ALL SELECT 1 FROM journal WHERE id = ?)
"""

_write_names = msgspec.json.Encoder().encode
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode


def put(database: Database, staged: StagedRecord) -> None:
    database.change(
        "INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            staged.release,
            staged.transaction,
            staged.base,
            staged.generation,
            staged.until,
            staged.payload,
            _write_names(staged.digests).decode(),
        ),
    )


def read(database: Database, release: str, now: float) -> StagedRecord | None:
    rows = database.read(
        "SELECT release, id, base, generation, until, payload, digests FROM staged WHERE release = ? AND until > ?",
        (release, now),
    )
    if not rows:
        return None
    ((of, transaction, base, generation, until, payload, digests),) = rows
    return StagedRecord(of, transaction, base, generation, until, payload, _read_names(digests))


def drop(database: Database, transaction: str, unless_begun: str | None) -> bool:
    return database.change(_DROP, (transaction, unless_begun, unless_begun))


def remove_expired(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM staged WHERE until <= ?", (now,))

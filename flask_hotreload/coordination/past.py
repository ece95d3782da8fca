"""What a SQLite store remembers of attempts: their reports, and the ids that were used."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from flask_hotreload.coordination.store import REMEMBERED, REPORTS

if TYPE_CHECKING:
    from flask_hotreload.coordination.database import Database

BEGUN = "SELECT 1 FROM begun WHERE id = ? UNION ALL SELECT 1 FROM journal WHERE id = ?"


def remember(connection: sqlite3.Connection, transaction: str) -> None:
    """That it was begun."""
    connection.execute("INSERT INTO begun (id) VALUES (?)", (transaction,))
    connection.execute("DELETE FROM begun WHERE number <= (SELECT max(number) FROM begun) - ?", (REMEMBERED,))


def has_begun(database: Database, transaction: str) -> bool:
    return bool(database.read(BEGUN, (transaction, transaction)))


def put_report(database: Database, report: bytes, transaction: str | None, *, only_first: bool) -> None:
    conflict = "NOTHING" if only_first else "UPDATE SET report = excluded.report"
    with database.write() as connection:
        connection.execute(
            f"INSERT INTO reports (id, report) VALUES (?, ?) ON CONFLICT (id) DO {conflict}", (transaction, report)
        )
        connection.execute("DELETE FROM reports WHERE number <= (SELECT max(number) FROM reports) - ?", (REPORTS,))


def report(database: Database, transaction: str) -> bytes | None:
    rows = database.read("SELECT report FROM reports WHERE id = ?", (transaction,))
    return rows[0][0] if rows else None


def reports(database: Database) -> list[bytes]:
    return [each for (each,) in database.read("SELECT report FROM reports ORDER BY number")]

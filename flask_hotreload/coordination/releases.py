"""The releases of a SQLite store: the statements, for whoever has the turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flask_hotreload.coordination import blobs as kept
from flask_hotreload.coordination import recorded
from flask_hotreload.coordination.memory import AGAIN
from flask_hotreload.coordination.store import RELEASES, REMEMBERED

if TYPE_CHECKING:
    from flask_hotreload.coordination.database import Database
    from flask_hotreload.coordination.records import JournalRecord

_UNUSED = """
SELECT name, head FROM releases
WHERE name NOT IN (SELECT release FROM meta) AND name NOT IN (SELECT release FROM members)
AND name NOT IN (SELECT release FROM active WHERE phase NOT IN ('committed', 'aborted'))
ORDER BY number
"""


def begin(connection: sqlite3.Connection, release: str, *, only_if: str) -> bool:
    """As :meth:`Store.new_release` says."""
    if connection.execute("SELECT 1 FROM releases WHERE name = ?", (release,)).fetchone():
        return False
    if not connection.execute("UPDATE meta SET release = ? WHERE release = ?", (release, only_if)).rowcount:
        return False
    connection.execute(
        "INSERT INTO releases (name, head) SELECT ?, max(newest, (SELECT max(head) FROM releases)) FROM meta",
        (release,),
    )
    know(connection, [release], release)
    for name, head in connection.execute(_UNUSED).fetchall()[:-RELEASES]:
        _forget(connection, name, head)
    return True


def _forget(connection: sqlite3.Connection, release: str, head: int) -> None:
    connection.execute("UPDATE meta SET newest = max(newest, ?)", (head,))
    recorded.retire(connection, release)
    connection.execute("DELETE FROM releases WHERE name = ?", (release,))
    for table in ("bases", "staged", "origins"):
        connection.execute(f"DELETE FROM {table} WHERE release = ?", (release,))


def know(connection: sqlite3.Connection, sources: Iterable[str], release: str) -> None:
    """Workers that boot with one of these ``sources`` belong to ``release`` from now on."""
    connection.executemany(
        "INSERT OR REPLACE INTO origins (sources, release) VALUES (?, ?)",
        [(each, release) for each in sources if each],
    )
    forget_old_sources(connection)


def forget_old_sources(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM origins WHERE number <= (SELECT max(number) FROM origins) - ?", (REMEMBERED,))


def of_sources(database: Database, sources: str) -> str | None:
    rows = database.read("SELECT release FROM origins WHERE sources = ?", (sources,))
    return rows[0][0] if rows else None


def publish_again(
    connection: sqlite3.Connection,
    release: str,
    head: int,
    journal: Sequence[JournalRecord],
    blobs: Mapping[str, bytes],
    base: bytes | None,
) -> bool:
    """As :meth:`Store.publish_again` says."""
    known = connection.execute("SELECT head FROM releases WHERE name = ?", (release,)).fetchone()
    if head <= (0 if known is None else known[0]):
        return False
    connection.execute(
        "UPDATE active SET phase = 'aborted', reason = ? WHERE release = ? AND phase NOT IN ('committed', 'aborted')",
        (AGAIN, release),
    )
    for table in ("members", "staged"):
        connection.execute(f"DELETE FROM {table} WHERE release = ?", (release,))
    if known is None:
        connection.execute("INSERT INTO releases (name, head) VALUES (?, ?)", (release, head))
        know(connection, [release], release)
    connection.execute("UPDATE releases SET head = ? WHERE name = ?", (head, release))
    recorded.retire(connection, release)
    for record in journal:
        recorded.put(connection, record)
    know(connection, [record.sources for record in journal], release)
    kept.put_blobs(connection, blobs)
    if base is not None:
        kept.exchange_base(connection, release, base, blobs)
    else:
        connection.execute("DELETE FROM bases WHERE release = ?", (release,))
    return True

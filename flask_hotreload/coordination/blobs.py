"""Sources by digest in a SQLite store, and the bases that name them: the statements, for whoever has the turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from flask_hotreload.coordination.database import Database

_MAY_PUT_BASE = """
SELECT 1 FROM meta WHERE release = ?
AND NOT EXISTS (SELECT 1 FROM active WHERE phase NOT IN ('committed', 'aborted'))
AND NOT EXISTS (SELECT 1 FROM journal WHERE journal.release = meta.release)
"""
_PUT_BLOB = """
INSERT INTO blobs VALUES (?, ?)
ON CONFLICT (digest) DO UPDATE SET data = excluded.data WHERE data <> excluded.data
"""
_AT_ONCE = 500  # how many blobs one statement asks for

_write_names = msgspec.json.Encoder().encode
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode


def put_blobs(connection: sqlite3.Connection, blobs: Mapping[str, bytes]) -> None:
    connection.executemany(_PUT_BLOB, list(blobs.items()))


def read_blobs(database: Database, digests: Iterable[str]) -> dict[str, bytes]:
    """Those that are there. What somebody has exchanged for something that is not even bytes is not there."""
    wanted = list(digests)
    found: dict[str, bytes] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        places = ",".join("?" * len(some))
        rows = database.read(f"SELECT digest, data FROM blobs WHERE digest IN ({places})", some)
        found.update((digest, data) for digest, data in rows if isinstance(data, bytes))
    return found


def remove_unused(connection: sqlite3.Connection) -> None:
    """Remove the blobs that no record of a journal, no base and nothing that is staged names."""
    rows = connection.execute(
        "SELECT digests FROM records UNION ALL SELECT digests FROM bases UNION ALL SELECT digests FROM staged"
    ).fetchall()
    used = {digest for row in rows for digest in _read_names(row[0])}
    unused = [row for row in connection.execute("SELECT digest FROM blobs").fetchall() if row[0] not in used]
    connection.executemany("DELETE FROM blobs WHERE digest = ?", unused)


def put_base(connection: sqlite3.Connection, release: str, base: bytes, blobs: Mapping[str, bytes]) -> bool:
    """As :meth:`Store.put_base` says."""
    if not connection.execute(_MAY_PUT_BASE, (release,)).fetchone():
        return False
    put_blobs(connection, blobs)
    exchange_base(connection, release, base, blobs)
    return True


def exchange_base(connection: sqlite3.Connection, release: str, base: bytes, digests: Iterable[str]) -> None:
    connection.execute("DELETE FROM bases")
    connection.execute("INSERT INTO bases VALUES (?, ?, ?)", (release, base, _write_names(sorted(digests)).decode()))


def read_base(database: Database, release: str) -> bytes | None:
    rows = database.read("SELECT base FROM bases WHERE release = ?", (release,))
    return None if not rows else rows[0][0] if isinstance(rows[0][0], bytes) else b""

"""The journal in a SQLite store: the statements, for whoever has the turn.

A row of the journal outlives its record, for its id. What is large of a record stands in a table of its own, before
the row does, and until somebody tidies up after the record has left the journal.

Requests are held while a commit is carried out, and each statement hands the interpreter to whoever wants it. So a
commit is one statement: all that it leads to lies ready, and the file itself does it, as part of that statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.records import JournalRecord
from flask_hotreload.coordination.store import REMEMBERED

if TYPE_CHECKING:
    from flask_hotreload.coordination.database import Database

#: What a commit leads to. Rows of the journal name the transaction whose commit ends them.
ON_COMMIT = """
CREATE TRIGGER committed AFTER UPDATE OF phase ON active WHEN new.phase = 'committed' BEGIN
    INSERT INTO journal (release, generation, id, live) VALUES (new.release, new.generation, new.id, 1);
    UPDATE journal SET live = 0 WHERE ended_by = new.id;
    UPDATE releases SET head = new.generation WHERE name = new.release;
    INSERT OR REPLACE INTO origins (sources, release)
        SELECT sources, new.release FROM records WHERE id = new.id AND sources != '';
END
"""

_OBSOLETE = "UPDATE journal SET live = 0 WHERE release = ?"
_TO_BE_OBSOLETE = "UPDATE journal SET ended_by = ? WHERE release = ? AND generation = ?"
_PUT = "INSERT OR REPLACE INTO journal (release, generation, id, live) VALUES (?, ?, ?, 1)"
_LAY_READY = "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)"

_write_names = msgspec.json.Encoder().encode
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode


def lay_ready(connection: sqlite3.Connection, record: JournalRecord, obsolete: Iterable[int] = ()) -> None:
    """For the commit of its transaction, with which the ``obsolete`` generations leave the journal."""
    digests = _write_names(record.digests).decode()
    connection.execute(_LAY_READY, (record.transaction, record.payload, digests, record.sources))
    ends = [(record.transaction, record.release, generation) for generation in obsolete]
    connection.executemany(_TO_BE_OBSOLETE, ends)


def put(connection: sqlite3.Connection, record: JournalRecord) -> None:
    """As a commit would have."""
    lay_ready(connection, record)
    connection.execute(_PUT, (record.release, record.generation, record.transaction))


def retire(connection: sqlite3.Connection, release: str) -> None:
    """All records of the release leave the journal."""
    connection.execute(_OBSOLETE, (release,))


def remove_old(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM records WHERE id NOT IN (SELECT id FROM journal WHERE live)")
    connection.execute(
        "DELETE FROM journal WHERE NOT live AND number <= (SELECT max(number) FROM journal) - ?", (REMEMBERED,)
    )


def read(database: Database, release: str, known: Mapping[str, JournalRecord]) -> list[JournalRecord]:
    """Oldest first. ``known``: transaction → its record, of those that need not be read: a record never changes.

    But an id of long ago may have become another's.
    """
    places = ", ".join("?" * len(known))
    rows = database.read(
        "SELECT release, generation, journal.id, payload, digests, sources FROM journal "
        f"LEFT JOIN records ON records.id = journal.id AND journal.id NOT IN ({places}) "
        "WHERE release = ? AND live ORDER BY generation",
        (*known, release),
    )
    if any(known[row[2]].generation != row[1] for row in rows if row[2] in known):
        return read(database, release, {})
    return [
        known[transaction]
        if transaction in known
        else JournalRecord(of, generation, transaction, payload, _read_names(digests), sources)
        for of, generation, transaction, payload, digests, sources in rows
        if transaction in known or payload is not None
    ]

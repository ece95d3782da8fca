"""One SQLite file, opened by one process: who may write, what can go wrong with it, and what to do then."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask_hotreload.coordination import presence, recorded
from flask_hotreload.coordination.meeting_place import boot_id
from flask_hotreload.coordination.write_lock import WriteLock
from flask_hotreload.errors import StoreUnavailable

_log = logging.getLogger("flask_hotreload")

#: Tells the store's files from other SQLite files, and from those of other versions.
APPLICATION_ID = 0x686F7472
VERSION = 8
_MAGIC = b"SQLite format 3\0"
_COMPANIONS = ("-wal", "-shm")
#: A write-ahead log that is longer than this is to be carried over into the file, when there is time. Bytes.
LONG_LOG = 1 << 20
#: One that is longer than this is carried over at once: there seems to be no time.
FAR_TOO_LONG_LOG = 8 << 20

SCHEMA = """
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, release TEXT NOT NULL, newest INTEGER NOT NULL,
    seal BLOB, tidied TEXT
);
CREATE TABLE origins (number INTEGER PRIMARY KEY, sources TEXT NOT NULL UNIQUE, release TEXT NOT NULL);
CREATE TABLE releases (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, head INTEGER NOT NULL);
CREATE TABLE active (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, release TEXT NOT NULL, coordinator TEXT NOT NULL,
    participants TEXT NOT NULL, base INTEGER NOT NULL, generation INTEGER NOT NULL, phase TEXT NOT NULL,
    deadline REAL NOT NULL, reason TEXT, version INTEGER NOT NULL
);
CREATE TABLE payload (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL);
CREATE TABLE votes (member TEXT PRIMARY KEY, ok INTEGER NOT NULL, vote TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE members (id TEXT PRIMARY KEY, release TEXT NOT NULL, member TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    number INTEGER PRIMARY KEY, release TEXT NOT NULL, generation INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,
    live INTEGER NOT NULL, ended_by TEXT
);
CREATE TABLE records (id TEXT PRIMARY KEY, payload BLOB NOT NULL, digests TEXT NOT NULL, sources TEXT NOT NULL);
CREATE TABLE blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE bases (release TEXT PRIMARY KEY, base BLOB NOT NULL, digests TEXT NOT NULL);
CREATE TABLE staged (
    release TEXT PRIMARY KEY, id TEXT NOT NULL, base INTEGER NOT NULL, generation INTEGER NOT NULL,
    until REAL NOT NULL, payload BLOB NOT NULL, digests TEXT NOT NULL
);
CREATE TABLE begun (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE reports (number INTEGER PRIMARY KEY, id TEXT UNIQUE, report BLOB NOT NULL);
"""


class Database:
    """``file`` is made if it is not there. ``busy_seconds``: how long to wait for others that write.

    Any thread may read and write. Everything raises :class:`StoreUnavailable`, with the remedy.
    """

    def __init__(self, file: Path, *, busy_seconds: float, first_release: str) -> None:
        self.file = file
        self._busy_seconds = busy_seconds
        self._first_release = first_release
        self._reading = threading.Lock()  # protects _reader
        self._path, self._log = str(file), f"{file}-wal"
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error

    def read(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """The rows."""
        try:
            with self._reading:
                self._verify()
                return self._reader.execute(statement, parameters).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error

    def change(self, statement: str, parameters: Sequence[object]) -> bool:
        """Carry out one statement that writes; return whether it has changed anything."""
        with self.turn() as connection:
            return connection.execute(statement, parameters).rowcount > 0

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Whatever the file system or SQLite says within this is raised as :class:`StoreUnavailable`."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error

    @contextmanager
    def turn(self) -> Iterator[sqlite3.Connection]:
        """Statements each of which takes effect by itself; nobody else writes between them."""
        try:
            with self._lock:
                self._verify()
                yield self._writer
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Several statements that take effect together, or not at all if the block raises."""
        with self.turn() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def shorten_log(self, longest: int) -> None:
        """Let the write-ahead log begin anew, if it has more bytes. That waits for the disk; others go on."""
        with self.explaining():
            if os.stat(self._log).st_size > longest:
                with closing(self._connect()) as connection:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        with self._lock:
            self._writer.close()
        with self._reading:
            self._reader.close()
        self._lock.close()

    def descriptors(self) -> list[int]:
        """What a forked child has to close. The connections it must not touch at all (sqlite.org, howtocorrupt)."""
        return [self._lock.descriptor]

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the error that led here is the one to tell

    # Opening -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        with ExitStack() as undo:
            self._lock = WriteLock(self.file.with_name(f"{self.file.name}.lock"), seconds=self._busy_seconds)
            undo.callback(self._lock.close)
            with self._lock:
                self._writer = self._opened_or_made()
                undo.callback(self._writer.close)
                self._reader = self._connect()
                undo.callback(self._reader.close)
                self._reader.execute("SELECT release FROM meta").fetchone()  # which makes the log, if there is none
                self._identity = self._identify()
            undo.pop_all()

    def _opened_or_made(self) -> sqlite3.Connection:
        """Only in this store's turn."""
        os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not self.file.stat().st_size:
            self._refuse_to_start_anew("has been emptied or deleted")
        try:
            return self._prepared()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
        os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._make(connection)
            self._recognise(connection)
            if not presence.anybody_is_alive(self.file):
                self._inspect(connection)
            self._forget_another_boot(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        # "rw": a file that somebody has deleted is not silently made anew.
        connection = sqlite3.connect(
            f"file:{quote(str(self.file))}?mode=rw",
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # What is acknowledged survives the death of every process; a power failure leaves none to disagree.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # see shorten_log()
            connection.execute(f"PRAGMA journal_size_limit={LONG_LOG}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailable(
                f"the store cannot be kept in {self.file.parent}: its file system has no shared memory (is it on the "
                "network?); name a folder on a local disk"
            )
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(recorded.ON_COMMIT)
        connection.execute("INSERT INTO meta VALUES (1, ?, ?, 0, NULL, NULL)", (boot_id(), self._first_release))
        connection.execute("INSERT INTO releases (name, head) VALUES (?, 0)", (self._first_release,))
        connection.execute("COMMIT")

    def _recognise(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise StoreUnavailable(f"{self.file} is a database of something else; name another file for the store")
        if version != VERSION:
            raise StoreUnavailable(
                f"the store {self.file} was made by another version of flask_hotreload (format {version}, not "
                f"{VERSION}); stop the workers and remove it"
            )

    def _inspect(self, connection: sqlite3.Connection) -> None:
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {damage}")

    def _forget_another_boot(self, connection: sqlite3.Connection) -> None:
        """Since the machine was started anew its clock is another one, and everybody of then is dead."""
        if connection.execute("SELECT boot FROM meta").fetchone()[0] == boot_id():
            return
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM members")
        connection.execute(
            "UPDATE active SET phase = 'aborted', reason = 'the machine was started anew' "
            "WHERE phase NOT IN ('committed', 'aborted')"
        )
        connection.execute("UPDATE meta SET boot = ?", (boot_id(),))
        connection.execute("COMMIT")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        with open(self.file, "rb") as opened:
            what = "is damaged" if opened.read(len(_MAGIC)) == _MAGIC else "is not a store"
        self._refuse_to_start_anew(what)
        aside = f"{self.file}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}"
        for companion in (*_COMPANIONS, ""):
            try:
                os.replace(f"{self.file}{companion}", f"{aside}{companion}")
            except FileNotFoundError:
                continue
        _log.error(
            "the store %s %s (%s); it was set aside as %s, and a new one begins", self.file, what, error, aside
        )

    def _refuse_to_start_anew(self, what: str) -> None:
        """Two stores for workers that serve at the same time would be two truths."""
        if presence.anybody_is_alive(self.file):
            raise StoreUnavailable(
                f"the store {self.file} {what} while workers run that meet there; restart them all"
            )

    # While it is open --------------------------------------------------------------------------------------------

    def _identify(self) -> tuple[int, ...]:
        file, log = os.stat(self._path), os.stat(self._log)
        return file.st_dev, file.st_ino, log.st_ino

    def _verify(self) -> None:
        """What is deleted or replaced goes on to work for those that have it open, but for nobody else."""
        try:
            there = self._identify()
        except FileNotFoundError:
            there = ()
        if there != self._identity:
            raise StoreUnavailable(
                f"the store {self.file} was deleted or replaced while workers meet there; restart them all"
            )

    def _explained(self, error: sqlite3.Error | OSError) -> StoreUnavailable:
        if isinstance(error, sqlite3.Error):
            return StoreUnavailable(f"the store {self.file} {_explanation(error)}")
        return StoreUnavailable(
            f"the store {self.file} cannot be used: {error.strerror or error}; make {self.file.parent} a folder "
            "in which the workers can read and write files"
        )


_REMEDIES = (
    ("locked", "is locked by another program; end that program (the workers themselves wait for each other)"),
    ("malformed", "is damaged; restart the workers: it is set aside then"),
    ("not a database", "is damaged; restart the workers: it is set aside then"),
    ("is full", "cannot grow: the disk is full; make room"),
    ("readonly", "cannot be written; give the workers write permission for the file and its folder"),
    ("unable to open", "cannot be opened; give the workers read and write permission for the file and its folder"),
    ("disk I/O", "cannot be read or written: the disk fails, or a limit of its size is reached"),
)


def _explanation(error: sqlite3.Error) -> str:
    text = str(error)
    for part, remedy in _REMEDIES:
        if part in text:
            return f"{remedy} ({text})"
    return f"cannot be used ({text})"


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return any(part in str(error) for part in ("malformed", "not a database"))

"""Votes by show of hands: those that lead to a decision take no turn at a store's file.

Beside the store lies a file for each such ballot, to which everybody appends: that a transaction calls for votes,
each vote, and that it is over. An append is one system call, which the kernel carries out as if alone (POSIX,
``write`` with ``O_APPEND``), and whoever reads after its own append sees all that were before: so of several that
vote at once the last one counts them all. Nobody waits for anybody, while a turn would be held, and waited for, by
processes that the scheduler has put aside.

A vote is kept as long as the system runs, whatever becomes of the processes.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from flask_hotreload.coordination.records import Ballot, Vote
from flask_hotreload.errors import StoreUnavailable

_CALLED, _OVER, _YES, _NO = b"called", b"over", b"yes", b"no"

_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Vote).decode


class Hands:
    """Of one ``ballot`` beside ``store``, whose turn, where one is needed, is the caller's.

    Everything raises :class:`OSError`, as of any file, or :class:`StoreUnavailable` if the file was deleted.
    """

    def __init__(self, store: Path, ballot: Ballot) -> None:
        self._path = str(store.with_name(f"{store.name}.{ballot.value}"))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)
        self._identity = _identity(os.fstat(self._file))

    def call(self, transaction: str) -> None:
        """From now on votes on ``transaction`` count, and no others. In the store's turn."""
        self.verify()
        os.ftruncate(self._file, 0)
        self._append(_end(transaction, _CALLED))

    def end(self, transaction: str) -> None:
        """Votes that are cast from now on do not count."""
        self._append(_end(transaction, _OVER))

    def vote(self, vote: Vote) -> int:
        """Return how many have voted yes by then; 0 if this vote does not count: the member has voted before, or
        it is not called for.
        """
        self.verify()
        begin = _begin(vote)
        if begin in self._everything():  # a member is one process, and casts one vote at a time
            return 0
        self._append(begin + _write(vote) + _end(vote.transaction, _YES if vote.ok else _NO))
        of_it, over = _of(self._everything(), vote.transaction)
        return 0 if over else of_it.count(_end(vote.transaction, _YES))

    def votes(self, transaction: str) -> tuple[Vote, ...] | None:
        """Those that count; ``None``: they are not called for, by now or yet."""
        everything = self._everything()
        if _end(transaction, _CALLED) not in everything:
            return None
        of_it, _ = _of(everything, transaction)
        ends = tuple(_end(transaction, word).rstrip() for word in (_YES, _NO))
        return tuple(_read(line.split(b"\t")[2]) for line in of_it.splitlines() if line.endswith(ends))

    def close(self) -> None:
        os.close(self._file)

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [self._file]

    def _append(self, line: bytes) -> None:
        if os.write(self._file, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _everything(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def verify(self) -> None:
        """A file that is deleted goes on to work for those that have it open, but for nobody else."""
        try:
            there = _identity(os.stat(self._path))
        except FileNotFoundError:
            there = None
        if there != self._identity:
            raise StoreUnavailable(f"{self._path} was deleted or replaced while workers vote there; restart them all")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


# A line: transaction, member, vote, word, transaction. One that was cut off has no end, and harms no other since each
# begins a new line. JSON, in which ids and votes are written, holds neither tabs nor ends of lines.


def _of(everything: bytes, transaction: str) -> tuple[bytes, bool]:
    """Its votes that count, and whether it is over."""
    called = everything.partition(_end(transaction, _CALLED))[2]
    votes, over, _ = called.partition(_end(transaction, _OVER))
    return votes, bool(over)


def _begin(vote: Vote) -> bytes:
    return b"\n%b\t%b\t" % (_write(vote.transaction), _write(vote.member))


def _end(transaction: str, word: bytes) -> bytes:
    return b"\t%b\t%b\n" % (word, _write(transaction))

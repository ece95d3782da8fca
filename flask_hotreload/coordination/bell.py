"""Wake-ups between the processes of one host: a datagram to a Unix socket. Hints: they may be lost.

A socket's address has room for about a hundred bytes, less than many a folder's path; so it is named by way of the
folder's open descriptor, where the system has such names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from flask_hotreload.coordination.hint import LONGEST, read, written
from flask_hotreload.coordination.presence import member_file, socket_name
from flask_hotreload.coordination.records import News

_DESCRIPTORS = Path("/proc/self/fd")


class Bell:
    """Rings other members, and is rung as ``member``, whose presence this process must hold."""

    def __init__(self, store: Path, member: str) -> None:
        self._store = store
        self._me = member
        self._closed = False
        self._addresses: dict[str, str] = {}
        with ExitStack() as undo:
            self._folder = os.open(store.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, self._folder)
            # Not imported by name: under gevent it is gevent's, and waiting lets other greenlets run.
            self._ear = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._hand = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._hand.setblocking(False)
            # Left by a process that had this id and has ended.
            store.with_name(socket_name(member_file(store, member))).unlink(missing_ok=True)
            self._ear.bind(self._address(member))
            self._undo = undo.pop_all()

    def ring(self, members: Iterable[str], news: News | None = None) -> None:
        """Never raises, never waits: who does not listen, or has enough hints to read, is not waited for."""
        hint = written(self._me, news)
        for member in members:
            try:
                self._hand.sendto(hint, self._address(member))
            except OSError:
                continue

    def wait(self, seconds: float | None) -> News | None:
        """Until somebody rings or has rung, or this is closed; at most ``seconds``. Return news, if there are any."""
        news = None
        if self._closed:
            return news
        try:
            self._ear.settimeout(seconds)
            while news is None:  # one look at the store serves all the hints there are
                news = read(self._ear.recv(LONGEST)).news
                self._ear.settimeout(0.0)
        except OSError:
            pass  # nothing more to read, or the time is over, or it is closed
        return news

    def close(self) -> None:
        self._closed = True
        self.ring([self._me])
        self._undo.close()

    def descriptors(self) -> list[int]:
        """What a forked child has to close, and nothing else of it."""
        return [self._ear.fileno(), self._hand.fileno(), self._folder]

    def _address(self, member: str) -> str:
        address = self._addresses.get(member)
        if address is None:
            name = socket_name(member_file(self._store, member))
            folder = _DESCRIPTORS / str(self._folder) if _DESCRIPTORS.exists() else self._store.parent
            address = self._addresses[member] = str(folder / name)
        return address

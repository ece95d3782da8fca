"""A TCP proxy that stands between a client and a server, and does to them what networks do.

What it does is set while it runs: ``proxy.delay = 0.01``, ``proxy.drop_next_request()``. A request is whatever one
side has sent at once; a client that waits for each answer before it sends again sends one request at a time.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import ExitStack


class FaultProxy:
    """Forwards to ``host:port`` of this machine. Everything is let through until something else is asked for.

    ``delay``: seconds that each piece waits, in both directions. ``byte_delay``: the server's answers come byte by
    byte, so many seconds apart. ``swallows``: nothing is passed on, and no connection ends. ``refuses``: new
    connections end at once.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self.delay = 0.0
        self.byte_delay = 0.0
        self.swallows = False
        self.refuses = False
        #: Set when a connection was cut as it was asked for.
        self.has_cut = threading.Event()
        self._cut: tuple[bytes, str] | None = None
        self._ended = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()  # protects _pairs and _cut
        self._ears = socket.create_server(("127.0.0.1", 0))
        self.port = self._ears.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    # What it is asked to do ------------------------------------------------------------------------------------

    def cut_before(self, word: bytes = b"") -> None:
        """The next request in which ``word`` stands does not reach the server: its connection ends."""
        self._cut_at(word, "before")

    def cut_after(self, word: bytes = b"") -> None:
        """The next request in which ``word`` stands reaches the server; its answer is lost with the connection."""
        self._cut_at(word, "after")

    def _cut_at(self, word: bytes, when: str) -> None:
        with self._lock:
            self._cut = word, when
            self.has_cut.clear()

    def cut_all(self) -> None:
        """All connections end now."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                _shut(end)

    def heal(self) -> None:
        self.delay = self.byte_delay = 0.0
        self.swallows = self.refuses = False
        with self._lock:
            self._cut = None

    # Threads -----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._ears.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client, server), name="proxy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        pair = client, server
        with self._lock:
            self._pairs.add(pair)
        loses_answer = False
        try:
            while not self._ended.is_set():
                readable, _, _ = select.select(pair, (), (), 0.1)
                if self.swallows:
                    self._ended.wait(0.01)
                    continue
                for end in readable:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    self._ended.wait(self.delay) if self.delay else None
                    if end is client:
                        when = self._takes(data)
                        if when == "before":
                            self.has_cut.set()
                            return
                        loses_answer = loses_answer or when == "after"
                        server.sendall(data)
                    elif loses_answer:
                        self.has_cut.set()
                        return
                    else:
                        self._answer(client, data)
        except OSError:
            return
        finally:
            with self._lock:
                self._pairs.discard(pair)
            for end in pair:
                _shut(end)
                end.close()

    def _takes(self, data: bytes) -> str | None:
        with self._lock:
            if self._cut is None or self._cut[0] not in data:
                return None
            when = self._cut[1]
            self._cut = None
            return when

    def _answer(self, client: socket.socket, data: bytes) -> None:
        if not self.byte_delay:
            client.sendall(data)
            return
        for number in range(len(data)):
            if self._ended.wait(self.byte_delay):
                return
            client.sendall(data[number : number + 1])

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        _shut(self._ears)
        self._ears.close()
        self.cut_all()
        until = time.monotonic() + 10.0
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            assert not thread.is_alive()


def _shut(end: socket.socket) -> None:
    with ExitStack() as stack:
        stack.push(lambda kind, *_: kind is not None and issubclass(kind, OSError))
        end.shutdown(socket.SHUT_RDWR)

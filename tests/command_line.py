"""The command line as a process: through pipes or a terminal, with a service to ask and ways to be in between."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from cluster import PATIENCE, TOKEN, Cluster, cluster

APPS = Path(__file__).parent / "apps" / "cli"
RELOAD = ("reload", "--dispatcher", "edition", "--script", "edition.py", "--path", "/api")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Done(NamedTuple):
    """``code``: the exit code. No token is in what it has printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs commands in ``folder``, against the service at ``url``."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def environment(self, **changes: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        kept |= {"HOTRELOAD_TOKEN": TOKEN, "HOTRELOAD_URL": self.url, "GIT_CEILING_DIRECTORIES": "/", "TERM": "xterm"}
        for name, value in changes.items():
            kept.pop(name, None)
            if value is not None:
                kept[name] = value
        return kept

    def start(self, *arguments: str, env: Mapping[str, str | None] | None = None, **options: Any) -> Any:
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            [sys.executable, "-m", "flask_hotreload.cli", *arguments],
            cwd=self.folder,
            env=self.environment(**(env or {})),
            **given,
        )

    def run(self, *arguments: str, sent: str | None = None, **options: Any) -> Done:
        if sent is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*arguments, **options) as process:
            return finish(process, sent)


def finish(process: Any, sent: str | None = None) -> Done:
    try:
        out, err = process.communicate(sent.encode() if sent is not None else None, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = Done(process.returncode, (out or b"").decode(), (err or b"").decode())
    assert TOKEN not in done.out + done.err
    return done


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Cluster]:
    """The service for the command line, in the new folder ``folder``."""
    shutil.copytree(APPS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with cluster(folder, **options) as running:
        yield running


def url_of(running: Cluster) -> str:
    return "http://{}:{}".format(*running.address)


def generation(running: Cluster) -> int:
    """The number of what is served."""
    number: int = running.status()["generation"]
    return number


def write(folder: Path, edition: int, *, before: str = "", after: str = "") -> Path:
    """Write the dispatcher's file anew, at once."""
    fresh = folder / ".edition.py"
    fresh.write_text(f"{before}def edition() -> int:\n    return {edition}\n{after}")
    return fresh.replace(folder / "edition.py")


class Stop:
    """A place where new code stops when it is imported, in each of ``pids``, until it is told to go on."""

    def __init__(self, folder: Path, pids: set[int]) -> None:
        self._pipes = {pid: folder / f"stop.{pid}" for pid in pids}
        for pipe in self._pipes.values():
            os.mkfifo(pipe)
        self.source = f"import os; open(f'{folder}/stop.{{os.getpid()}}').read()\n"

    @contextmanager
    def first_reached(self) -> Iterator[None]:
        """Wait until one of them has been stopped, and keep it so for the block. It goes on afterwards."""
        with ExitStack() as opened:
            pid = self._reached(opened)
            del self._pipes[pid]
            yield

    def go_on(self) -> None:
        """Let each go on, one after the other, once it is there."""
        while self._pipes:
            with self.first_reached():
                pass

    def _reached(self, opened: ExitStack) -> int:
        pause, deadline = threading.Event(), monotonic() + PATIENCE
        while monotonic() < deadline:
            for pid, pipe in self._pipes.items():
                with suppress(OSError):  # ENXIO: nobody reads
                    opened.callback(os.close, os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                    return pid
            pause.wait(0.005)
        raise AssertionError("nobody has come to the stop")


# In between ------------------------------------------------------------------------------------------------------


@contextmanager
def cutting(target: tuple[str, int], cut: Callable[[int, bytes], int | None]) -> Iterator[str]:
    """A proxy before ``target``. ``cut(number, answered)`` says, after each part of the answer on the connection of
    that number, how much of what was answered so far the client may have before the connection ends; ``None``: all,
    and it goes on.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, target, cut), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def _accept(listener: socket.socket, target: tuple[str, int], cut: Callable[[int, bytes], int | None]) -> None:
    number = 0
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        number += 1
        with client, socket.create_connection(target) as server, suppress(ConnectionError):
            # Whoever leaves with something unread resets the connection: it is over, as at any other end.
            _forward(client, server, lambda answered, number=number: cut(number, answered))


def _forward(client: socket.socket, server: socket.socket, cut: Callable[[bytes], int | None]) -> None:
    answered, passed = b"", 0
    while True:
        readable, _, _ = select.select([client, server], [], [], PATIENCE)
        if client in readable:
            part = client.recv(65536)
            if not part:
                return
            server.sendall(part)
        if server in readable:
            part = server.recv(65536)
            answered += part
            until = cut(answered)
            client.sendall(answered[passed : len(answered) if until is None else until])
            passed = len(answered)
            if not part or until is not None:
                return


# A terminal ------------------------------------------------------------------------------------------------------


class OnTerminal:
    """A command whose standard streams are a terminal."""

    def __init__(self, line: CommandLine, *arguments: str, **env: str | None) -> None:
        self._mine, theirs = pty.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        size = {"COLUMNS": "120", "LINES": "40"}
        self.process = line.start(*arguments, env={**size, **env}, **streams, start_new_session=True)
        os.close(theirs)
        self.raw = ""

    @property
    def shown(self) -> str:
        """All that was ever written, without colours and moves."""
        return ESCAPES.sub("", self.raw)

    def until(self, *words: str) -> None:
        """Read until all of these have been shown."""
        deadline = monotonic() + PATIENCE
        while not all(word in self.shown for word in words):
            assert monotonic() < deadline, (words, self.shown)
            assert self._read(), (words, self.shown)

    def finish(self) -> int:
        while self._read():
            pass
        os.close(self._mine)
        code: int = self.process.wait(PATIENCE)
        assert TOKEN not in self.raw
        return code

    def _read(self) -> bool:
        try:
            part = os.read(self._mine, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.raw += part.decode(errors="replace")
        return bool(part)

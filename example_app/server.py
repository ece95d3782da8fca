"""The service in a real gunicorn, from ready to reaped, as a context manager.

The listening socket is made here and handed to gunicorn, so a port is never guessed: connections queue in it
until a worker is up, and are refused as soon as gunicorn is gone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event
from time import monotonic
from typing import IO, NoReturn

from gunicorn.config import KNOWN_SETTINGS  # type: ignore[import-untyped]  # gunicorn ships no types

SERVICE = ("__init__.py", "app.py", "rates.py", "ledger.py", "rates.csv")
PACKAGE = Path(__file__).parent


class ServerError(RuntimeError):
    """gunicorn did not start, or did not answer; the message ends with the last lines of its log."""


def copy_service(folder: Path) -> Path:
    """Copy the service's own files to ``folder/example_app`` and return that path."""
    package = folder / PACKAGE.name
    package.mkdir(parents=True)
    for name in SERVICE:
        shutil.copy(PACKAGE / name, package / name)
    return package


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process by an exception, so that the context managers reap what they started."""

    def leave(signum: int, frame: object) -> NoReturn:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)


class GunicornServer:
    """``gunicorn APPLICATION``, run in ``folder``, which holds its module. Leaving the context ends it.

    ``port``
        0: any free one. Raises ``OSError`` if it is taken.
    ``token``
        For ``POST /_reload``; a random one by default.
    ``log``
        Where gunicorn's output goes; ``None``: to this process's stderr.
    ``temporary``
        Where the workers meet; ``None``: where they do by themselves, and leave it to the next gunicorn to clean up.
    ``env``
        What else the environment of gunicorn has.
    ``start_timeout``, ``stop_timeout``
        Seconds until the first answer, and for a graceful end before it is killed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        application: str = "example_app.app:app",
        port: int = 0,
        workers: int = 1,
        threads: int = 16,
        worker_class: str = "gthread",
        token: str | None = None,
        log: Path | None = None,
        temporary: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout: float = 20.0,
        stop_timeout: float = 15.0,
    ) -> None:
        self.folder = folder
        self.token = token or secrets.token_urlsafe()
        self.log = log
        self._temporary = temporary
        self._env = dict(env or {})
        self._application = application
        self._options = ["--workers", str(workers), "--worker-class", worker_class, "--threads", str(threads)]
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.url = f"http://{self.address[0]}:{self.address[1]}"

    def __enter__(self) -> GunicornServer:
        with self._listener:
            self.process = self._spawn(self._listener.fileno())
        try:
            self._await_first_answer()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        """Wait until gunicorn ends by itself; its exit status."""
        return self.process.wait()

    def stop(self) -> None:
        """End gunicorn and all its workers, whatever state they are in. Idempotent."""
        try:
            if self.running:
                self.process.terminate()
                self.process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill_group()
            self.process.wait()

    def kill(self) -> None:
        """End all of it at once, as when the machine is lost. Return when its port refuses connections."""
        self._kill_group()
        self.process.wait()
        pause = Event()
        while not self._refuses():  # the workers are gone a moment after the master
            pause.wait(0.005)

    def _refuses(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=self._start_timeout).close()
        except ConnectionError:
            return True
        return False

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that gunicorn wrote, or nothing where it writes to the terminal."""
        if self.log is None:
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _spawn(self, listener: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener}", *self._options]
        command += ["--keep-alive", "75", "--graceful-timeout", str(int(self._stop_timeout * 0.8))]
        if any("--no-control-socket" in (setting.cli or ()) for setting in KNOWN_SETTINGS):
            command.append("--no-control-socket")  # two gunicorns of one user would share its path
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOTRELOAD_", "GUNICORN_", "FLASK_"))}
        kept["HOTRELOAD_TOKEN"] = self.token
        if self._temporary is not None:
            self._temporary.mkdir(mode=0o700, exist_ok=True)
            kept |= {"TMPDIR": str(self._temporary), "XDG_RUNTIME_DIR": ""}
        kept |= self._env
        output: IO[bytes] | None = self.log.open("ab") if self.log else None
        try:
            return subprocess.Popen(
                [*command, self._application],
                cwd=self.folder,
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=output or sys.stderr.fileno(),
                stderr=subprocess.STDOUT,
                pass_fds=[listener],
                start_new_session=True,  # Ctrl-C is for us; we then end gunicorn in its own order
            )
        finally:
            if output is not None:
                output.close()

    def _await_first_answer(self) -> None:
        """One request is enough: it queues in the listening socket until a worker answers it."""
        deadline = monotonic() + self._start_timeout
        connection = HTTPConnection(*self.address, timeout=self._start_timeout)
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException) as failure:
            raise ServerError(self._explain(f"gunicorn did not answer: {failure!r}", deadline)) from failure
        finally:
            connection.close()
        if response.status >= 500:
            raise ServerError(self._explain(f"GET /health was answered {response.status}", deadline))

    def _explain(self, what: str, deadline: float) -> str:
        if (
            monotonic() < deadline
        ):  # a connection that broke: gunicorn is ending, and its last words are worth reading
            try:
                self.process.wait(max(0.0, min(5.0, deadline - monotonic())))
            except subprocess.TimeoutExpired:
                pass
        return f"{what}\n{self.log_tail()}".strip()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nobody of the group is left

"""Real servers for tests: started, waited for, reaped, their log shown when the test fails.

::

    with serve("gunicorn", app="module:app", cwd=folder, worker_class="gthread", threads=8) as server:
        requests.get(server.url + "/")
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import IO


class Server:
    """``url`` without a trailing slash; ``process`` is what was started (gunicorn's master)."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
        self.process = process
        self.host = "127.0.0.1"
        self.port = port
        self.url = f"http://{self.host}:{port}"
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        """The processes that it has started: gunicorn's workers."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def log(self) -> str:
        """What it has written to standard output and standard error so far."""
        return Path(self._log.name).read_text(errors="replace")

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=10)

    def answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


@contextmanager
def serve(
    kind: str = "gunicorn",
    *,
    app: str,
    cwd: str | os.PathLike[str],
    workers: int = 1,
    worker_class: str = "gthread",
    threads: int = 8,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    ready: str = "/",
    patience: float = 30.0,
    control_socket: bool = False,
    own_socket: bool = False,
) -> Iterator[Server]:
    """Start ``kind`` ("gunicorn", "flask" for ``flask run``, "waitress", or "python") and wait until it answers.

    ``app`` is ``module:name``, found from the folder ``cwd``; for ``flask run`` it may be empty, for "python" it is a
    script that serves at the port of the environment variable ``PORT``. ``options`` are more arguments of the
    command; ``env`` is added to the environment; ``ready`` is the path asked until there is an answer, of whichever
    status, for at most ``patience`` seconds. ``workers`` and ``worker_class`` are for gunicorn.
    """
    with _listening() as listener, tempfile.NamedTemporaryFile(prefix="server-", suffix=".log") as log:
        port = listener.getsockname()[1]
        if kind == "gunicorn":
            command = _gunicorn(app, f"fd://{listener.fileno()}", workers, worker_class, threads)
            if own_socket:
                # And by its script: started as a module, the second one would find gunicorn.http for http.
                command = [shutil.which("gunicorn", path=os.path.dirname(sys.executable)) or "gunicorn", *command[2:]]
                command[command.index("--bind") + 1] = f"127.0.0.1:{port}"
                listener.close()
            if not control_socket:
                command.append("--no-control-socket")
        elif kind == "waitress":
            command = _waitress(app, listener, threads)
        elif kind == "flask":
            command = ["-m", "flask", *(["--app", app] if app else []), "run", "--no-reload", "--port", str(port)]
            listener.close()  # it takes none that is given to it
        elif kind == "python":
            command = [app]
            listener.close()
        else:
            raise ValueError(f"no server of kind {kind!r}")
        process = subprocess.Popen(
            [sys.executable, "-u", *command, *options],
            cwd=cwd,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PORT": str(port), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()] if listener.fileno() >= 0 else [],
            start_new_session=True,
        )
        listener.close()
        server = Server(process, port, log)
        try:
            _wait_until_ready(server, ready, patience)
            yield server
        except BaseException:
            print(f"--- log of {kind} {app} ---\n{server.log()}--- end of log ---", file=sys.stderr)
            raise
        finally:
            _reap(process)


def _listening() -> socket.socket:
    """A socket that the server inherits: nobody else can take its port meanwhile."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


def _gunicorn(app: str, address: str, workers: int, worker_class: str, threads: int) -> list[str]:
    command = ["-m", "gunicorn", app, "--bind", address]
    command += ["--workers", str(workers), "--worker-class", worker_class, "--graceful-timeout", "5"]
    return [*command, "--threads", str(threads)] if worker_class == "gthread" else command


def _waitress(app: str, listener: socket.socket, threads: int) -> list[str]:
    module, _, name = app.partition(":")
    code = (
        "import importlib, socket, sys, waitress; sys.path.insert(0, ''); "
        f"app = getattr(importlib.import_module({module!r}), {name!r}); "
        f"waitress.serve(app, sockets=[socket.socket(fileno={listener.fileno()})], threads={threads})"
    )
    return ["-c", code]


def _wait_until_ready(server: Server, path: str, patience: float) -> None:
    deadline = monotonic() + patience
    pause = threading.Event()
    while not server.answers(path):
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.process.returncode}")
        if monotonic() > deadline:
            raise TimeoutError(f"the server did not answer within {patience:g} s")
        pause.wait(0.05)


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop; after ten seconds end it, and in any case whatever it left in its session."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

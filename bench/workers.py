"""A service on several workers of a real gunicorn: what it answers tells by which edition, generation and process."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.servers import Server, serve

APP = """
import time
from flask import Flask
from flask_hotreload import HotRPC
import calls, state

time.sleep({import_seconds})  # what a real application spends on importing its libraries and reading its models
memory = bytearray(b"x") * {megabytes} * 1_000_000  # and what it keeps of them

app = Flask(__name__)
rpc = HotRPC(app)
rpc.register_function(calls.where, "/api")

@app.get("/health")
def health():
    return ""
"""

CALLS = """
import os
import state
from flask import current_app

EDITION = {edition}

def where() -> dict:
    state.served += 1
    generation = current_app.extensions["hotreload"].generation
    return {{"edition": EDITION, "generation": generation, "pid": os.getpid(), "served": state.served}}
"""

STATE = """
served = 0
"""

#: The document that reloads the file of ``where``.
DOCUMENT = {"data": [{"dispatcher": "where", "scriptPath": "calls.py", "path": "/api"}]}


class Workers:
    """The service while it runs. ``master`` is gunicorn's process id."""

    def __init__(self, folder: Path, server: Server, token: str) -> None:
        self.address = (server.host, server.port)
        self.master = server.pid
        self._folder = folder
        self._server = server
        self._token = token
        self._edition = 0

    @property
    def running(self) -> bool:
        """Whether the master that was started first still is."""
        return self._server.process.poll() is None

    def edit(self, *, edition: int | None = None, broken: bool = False) -> int:
        """Write the dispatcher's file anew, as somebody who changes it; return its edition, else the next."""
        self._edition = self._edition + 1 if edition is None else edition
        mistake = "\nraise RuntimeError('a mistake')\n" if broken else ""
        (self._folder / "calls.py").write_text(CALLS.format(edition=self._edition) + mistake)
        return self._edition

    def reload(self, document: Mapping[str, object] = DOCUMENT) -> dict[str, Any]:
        """The report. Raise ``RuntimeError`` if the change was refused."""
        return self._change("/_reload", document)

    def rollback(self) -> float:
        """To the generation before; the milliseconds from sending that, on an open connection, to its answer."""
        connection = HTTPConnection(*self.address, timeout=60)
        connection.connect()
        asked = monotonic()
        self._change("/_reload/rollback", {}, connection)
        return (monotonic() - asked) * 1000

    def _change(
        self, path: str, document: Mapping[str, object], connection: HTTPConnection | None = None
    ) -> dict[str, Any]:
        status, answer = self._request("POST", path, json.dumps(document).encode(), connection)
        if status != 200:
            raise RuntimeError(f"POST {path} was answered {status}: {answer}")
        report: dict[str, Any] = answer
        return report

    def ask(self, name: str = "where") -> dict[str, Any]:
        """What the dispatcher ``name`` answers in one of the workers, on a connection of its own."""
        status, answer = self._request("POST", f"/api/{name}", b"")
        if status != 200:
            raise RuntimeError(f"{name} was answered {status}: {answer}")
        told: dict[str, Any] = answer
        return told

    def ask_each(self, workers: set[int]) -> list[dict[str, Any]]:
        """What ``where`` answers in each of these processes."""
        answers: dict[int, dict[str, Any]] = {}
        deadline = monotonic() + 60
        while not workers <= answers.keys():
            if monotonic() > deadline:
                raise RuntimeError(f"{workers - answers.keys()} answer nothing\n" + self._server.log())
            told = self.ask()
            answers[told["pid"]] = told
        return [answers[pid] for pid in workers]

    def pids(self) -> set[int]:
        """The workers' process ids."""
        return children(self.master)

    def await_members(self, number: int) -> None:
        """Wait until that many workers, all of gunicorn's, take part in reloads."""
        deadline = monotonic() + 120
        while len(self.pids()) != number or self.members() != self.pids():
            if monotonic() > deadline:
                raise RuntimeError(f"there are not {number} members: {self.members()}\n" + self._server.log())
            sleep(0.05)

    def members(self) -> set[int]:
        """The process ids of all that take part in reloads, also those of other hosts."""
        _, status = self._request("GET", "/_reload")
        return {worker["pid"] for worker in status["workers"]}

    def _request(
        self, method: str, path: str, body: bytes | None = None, connection: HTTPConnection | None = None
    ) -> tuple[int, Any]:
        """``connection``: one that is open, and closed then; else a new one is made."""
        headers = {"Authorization": f"Bearer {self._token}", "Connection": "close"}
        connection = connection or HTTPConnection(*self.address, timeout=60)
        try:
            connection.request(method, path, body, headers | ({"Content-Type": "application/json"} if body else {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


def children(pid: int) -> set[int]:
    """The process ids of the living children of ``pid``."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return {int(child) for child in listed if not _is_dead(int(child))}


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def running(
    workers: int,
    *,
    import_seconds: float = 0.0,
    megabytes: int = 0,
    app: str = APP,
    files: Mapping[str, str] | None = None,
    coordinated: bool = True,
    own_socket: bool = False,
    keep_alive: int = 75,
    env: Mapping[str, str] | None = None,
) -> Iterator[Workers]:
    """The service on that many gthread workers. ``megabytes``: what each keeps in memory.

    ``files``: further ones, by their path in its folder. ``coordinated``: else its workers do not know each other.
    ``own_socket``: as a second master needs it. ``keep_alive``: seconds for which a connection may be idle; 0: one
    request on each. ``env``: added to its environment, say where several hosts meet.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(
            app.replace("{import_seconds}", str(import_seconds)).replace("{megabytes}", str(megabytes))
        )
        (folder / "state.py").write_text(STATE)
        (folder / "calls.py").write_text(CALLS.format(edition=0))
        for path, text in (files or {}).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        token = secrets.token_urlsafe()
        whole = {"HOTRELOAD_TOKEN": token, "HOTRELOAD_COORDINATOR": "auto" if coordinated else "local", **(env or {})}
        with serve(
            app="app:app",
            cwd=folder,
            workers=workers,
            options=("--keep-alive", str(keep_alive)),
            env=whole,
            ready="/health",
            patience=120,
            own_socket=own_socket,
        ) as server:
            service = Workers(folder, server, token)
            if coordinated and env is None:
                service.await_members(workers)
            yield service

"""The service that is measured in a real gunicorn: small, with state in memory, and an import that takes a while."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from example_app.server import GunicornServer

APP = """
import time
from flask import Flask
from flask_hotreload import HotRPC
import calls, state

time.sleep({import_seconds})  # what a real application spends on importing its libraries and reading its models

app = Flask(__name__)
rpc = HotRPC(app)
rpc.register_function(calls.echo, "/api")
rpc.register_function(state.count, "/api")
"""

CALLS = """
import state

EDITION = {edition}

def echo(data: str) -> str:
    state.served += 1
    return data
"""

STATE = """
served = 0

def count() -> int:
    return served
"""

ECHO = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": ["hello"]}).encode()

#: The document that reloads the file of ``echo``.
DOCUMENT = {"data": [{"dispatcher": "echo", "scriptPath": "calls.py", "path": "/api"}]}


class Service:
    """The service while it runs."""

    def __init__(self, folder: Path, server: GunicornServer) -> None:
        self.folder = folder
        self.server = server
        self.address = server.address
        self._edition = 0

    def edit(self) -> None:
        """Write the dispatchers' file anew, as somebody would who changes it."""
        self._edition += 1
        (self.folder / "calls.py").write_text(CALLS.format(edition=self._edition))

    def reload(self, document: Mapping[str, object] = DOCUMENT) -> dict[str, Any]:
        """The report of ``POST /_reload``. Raise ``RuntimeError`` for any other answer than 200."""
        headers = {"Authorization": f"Bearer {self.server.token}", "Content-Type": "application/json"}
        report: dict[str, Any] = self._post("/_reload", json.dumps(document).encode(), headers)
        return report

    def served(self) -> int:
        """How many calls of ``echo`` the service remembers."""
        return int(self.call("count"))

    def call(self, name: str) -> float:
        """What the dispatcher ``name`` answers."""
        return float(self._post(f"/api/{name}", b"", {}))

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        connection = HTTPConnection(*self.address, timeout=60)
        try:
            connection.request("POST", path, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"POST {path} was answered {response.status}: {answer.decode(errors='replace')}")
        return json.loads(answer)


@contextmanager
def running(
    *, import_seconds: float = 0.0, threads: int = 16, files: Mapping[str, str] | None = None, app: str = APP
) -> Iterator[Service]:
    """The service under gunicorn: one gthread worker. ``files``: further ones, by their path in its folder."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(app.replace("{import_seconds}", str(import_seconds)))
        (folder / "state.py").write_text(STATE)
        for path, text in (files or {}).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        (folder / "calls.py").write_text(CALLS.format(edition=0))
        log = folder / "gunicorn.log"
        with GunicornServer(folder, application="app:app", threads=threads, log=log, start_timeout=60) as server:
            yield Service(folder, server)

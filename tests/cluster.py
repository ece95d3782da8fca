"""A service on several workers of a real gunicorn, which a test edits, reloads, signals and looks into."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, TypeVar

from servers import Server, serve

APPS = Path(__file__).parent / "apps" / "cluster"
TOKEN = "0123456789abcdef-cluster"
DOCUMENT = {"data": [{"dispatcher": "where", "scriptPath": "where.py", "path": "/api"}]}
PATIENCE = 30.0  # seconds after which what must happen has not

Found = TypeVar("Found")


def until(look: Callable[[], Found], otherwise: str, *, seconds: float = PATIENCE) -> Found:
    """The first truth that ``look()`` returns: for what another process does without telling anybody."""
    deadline = monotonic() + seconds
    pause = Event()
    while not (found := look()):
        assert monotonic() < deadline, otherwise
        pause.wait(0.005)
    return found


def children(pid: int) -> set[int]:
    """The process ids of those that ``pid`` has started, and that have not ended."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return {child for child in map(int, listed) if state(child) not in ("Z", "X", None)}


def state(pid: int) -> str | None:
    """The letter of the kernel for the state of a process: ``T`` stopped, ``Z`` dead; ``None``: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def cluster(
    folder: Path, *, app: str = "app:app", workers: int = 4, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[Cluster]:
    """The service in ``folder`` on ``workers`` workers. ``options``: further ones of ``serve``."""
    temporary = folder.parent / "temporary"  # where the workers meet
    temporary.mkdir(exist_ok=True)
    env = {"HOTRELOAD_TOKEN": TOKEN, "TMPDIR": str(temporary), "XDG_RUNTIME_DIR": "", **(env or {})}
    with serve("gunicorn", app=app, cwd=folder, workers=workers, env=env, ready="/health", **options) as server:
        running = Cluster(server, folder, workers)
        try:
            yield running
        finally:
            for worker in running.workers():
                running.resume(worker)  # a stopped one would not end


class Cluster:
    """What :func:`cluster` has started. ``master`` and workers are process ids."""

    def __init__(self, server: Server, folder: Path, workers: int) -> None:
        self.folder = folder
        self.address = (server.host, server.port)
        self.master = server.pid
        self.logged = server.log
        self._workers = workers

    # Processes -------------------------------------------------------------------------------------------------

    def workers(self) -> set[int]:
        """The process ids of the workers, also of those that do not serve yet."""
        return children(self.master)

    def signal(self, number: int, pid: int | None = None) -> None:
        """Send a signal to the master, or to the process ``pid`` if it is there."""
        try:
            os.kill(self.master if pid is None else pid, number)
        except ProcessLookupError:
            pass

    def kill(self, pid: int) -> None:
        """Kill a worker, and wait until it is gone."""
        self.signal(signal.SIGKILL, pid)
        until(lambda: state(pid) in ("Z", None), f"{pid} does not die")

    def stop(self, pid: int) -> None:
        self.signal(signal.SIGSTOP, pid)
        until(lambda: state(pid) == "T", f"{pid} does not stop")

    def resume(self, pid: int) -> None:
        self.signal(signal.SIGCONT, pid)

    def hup(self) -> set[int]:
        """Send HUP, wait until only new workers are left, and return their process ids."""
        before = self.workers()
        self.signal(signal.SIGHUP)
        until(lambda: not self.workers() & before, "the old workers do not end")
        return self.await_members()

    def store(self) -> Path:
        """The folder in which the workers meet."""
        (folder,) = (self.folder.parent / "temporary").glob("flask-hotreload-*")
        return folder

    # Asking ----------------------------------------------------------------------------------------------------

    def connection(self, *, timeout: float = 60.0) -> HTTPConnection:
        return HTTPConnection(*self.address, timeout=timeout)

    @contextmanager
    def connected_to(self, pid: int) -> Iterator[HTTPConnection]:
        """A kept-alive connection to the worker ``pid``, whom the kernel gives new ones only now and then."""
        others: list[HTTPConnection] = []
        deadline = monotonic() + PATIENCE
        try:
            while True:
                assert monotonic() < deadline, f"the kernel gives {pid} no connection"
                connection = self.connection()
                others.append(connection)
                if ask(connection, "GET", "/health")[1]["pid"] == pid:
                    break
            for other in others[:-1]:
                other.close()
            yield connection
        finally:
            for other in others:
                other.close()

    def request(
        self, method: str, path: str, body: object = None, *, connection: HTTPConnection | None = None
    ) -> tuple[int, Any]:
        """Status and decoded body; on a connection of its own, unless one is given."""
        own = connection is None
        connection = connection or self.connection()
        try:
            return ask(connection, method, path, body)
        finally:
            if own:
                connection.close()

    def get(self, path: str) -> Any:
        status, answer = self.request("GET", path)
        assert status == 200, (status, answer)
        return answer

    def call(self, method: str, *params: object, connection: HTTPConnection | None = None) -> Any:
        """The result of a JSON-RPC call at ``/api``."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        status, answer = self.request("POST", "/api", body, connection=connection)
        assert status == 200, (status, answer)
        assert "result" in answer, answer
        return answer["result"]

    def edit(self, edition: int, *, file: str = "where.py", extra: str = "") -> None:
        """Write the dispatcher's file anew; ``extra`` stands at its end."""
        write_edition(self.folder, edition, file=file, extra=extra)

    def post_reload(
        self, document: Mapping[str, object] = DOCUMENT, *, connection: HTTPConnection | None = None
    ) -> tuple[int, Any]:
        return self.request("POST", "/_reload", document, connection=connection)

    def reload(
        self, document: Mapping[str, object] = DOCUMENT, *, connection: HTTPConnection | None = None
    ) -> dict[str, Any]:
        """The report of a reload that must be committed."""
        status, answer = self.post_reload(document, connection=connection)
        assert status == 200, (status, answer)
        assert answer["status"] == "committed", answer
        return dict(answer)

    def status(self, *, connection: HTTPConnection | None = None) -> dict[str, Any]:
        code, answer = self.request("GET", "/_reload", connection=connection)
        assert code == 200, (code, answer)
        return dict(answer)

    def members(self) -> dict[int, dict[str, Any]]:
        """What the service tells of its workers, by process id."""
        return {worker["pid"]: worker for worker in self.status()["workers"]}

    def await_members(self, number: int | None = None) -> set[int]:
        """Wait until ``number`` workers, all of gunicorn's, take part in reloads; return their process ids."""
        number = self._workers if number is None else number

        def complete() -> set[int] | None:
            workers = self.workers()
            return workers if len(workers) == number and set(self.members()) == workers else None

        return until(complete, f"there are not {number} members: {self.members()}")

    def everywhere(self, path: str = "/api", *, pids: set[int] | None = None) -> dict[int, dict[str, Any]]:
        """What ``where`` answers in each worker, by process id."""
        wanted = self.workers() if pids is None else pids
        answers: dict[int, dict[str, Any]] = {}
        held: list[HTTPConnection] = []
        deadline = monotonic() + PATIENCE
        try:
            while set(answers) < wanted:
                assert monotonic() < deadline, f"{wanted - set(answers)} answer nothing"
                held.append(self.connection())
                answer = self.call("where", connection=held[-1])
                answers[answer["pid"]] = answer
        finally:
            for connection in held:
                connection.close()
        return answers


def ask(connection: HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if path.startswith("/_reload"):
        headers["Authorization"] = f"Bearer {TOKEN}"
    connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
    response = connection.getresponse()
    answer = response.read()
    try:
        return response.status, json.loads(answer)
    except ValueError:
        return response.status, answer.decode(errors="replace")


def write_edition(folder: Path, edition: int, *, file: str = "where.py", extra: str = "") -> None:
    """Write the dispatcher's file at once: no reader sees half of it."""
    text = (APPS / "where.py").read_text().replace("EDITION = 0", f"EDITION = {edition}")
    fresh = folder / f".{file}"
    fresh.write_text(text + extra)
    fresh.replace(folder / file)


def service(folder: Path) -> Path:
    """The service's files in a new folder."""
    shutil.copytree(APPS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder

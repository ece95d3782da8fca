"""Reloads under the servers that people run: held and not rejected, drained, refused when broken, state kept."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
import requests
from servers import Server, serve

SERVICE = Path(__file__).parent / "apps" / "served"
TOKEN = "0123456789abcdef-test"
PATIENCE = 30.0
HEALTH = "/_reload/health"

#: How each is started. ``sync`` answers one request at a time, so nobody can look at its status meanwhile.
SERVERS = {
    "gunicorn sync": {"kind": "gunicorn", "worker_class": "sync"},
    "gunicorn gthread": {"kind": "gunicorn", "worker_class": "gthread"},
    "gunicorn gevent": {"kind": "gunicorn", "worker_class": "gevent"},
    "gunicorn gthread --preload": {"kind": "gunicorn", "worker_class": "gthread", "options": ["--preload"]},
    "flask run": {"kind": "flask"},
    "waitress": {"kind": "waitress"},
}
CONCURRENT = [name for name in SERVERS if "sync" not in name]

every_server = pytest.mark.parametrize("kind", SERVERS)
every_concurrent_server = pytest.mark.parametrize("kind", CONCURRENT)


class Site:
    """The service in a server, with a client for it. Its files may be edited, its gates closed and opened."""

    def __init__(self, folder: Path, server: Server, pool: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.server = server
        self._pool = pool

    # Requests

    def get(self, path: str) -> requests.Response:
        return requests.get(self.server.url + path, headers=self._authorized, timeout=PATIENCE)

    def call(self, name: str = "edition") -> int:
        response = requests.post(
            f"{self.server.url}/api",
            json={"jsonrpc": "2.0", "id": 1, "method": name},
            timeout=PATIENCE,
        )
        assert response.status_code == 200, response.text
        return response.json()["result"]

    def reload(self, **document: object) -> requests.Response:
        """Reload the file of ``edition``; ``overload`` and the like as keywords, for the entry or the document."""
        entry = {"dispatcher": "edition", "scriptPath": "calls.py", "path": "/api"}
        if "overload" in document:
            entry["overload"] = document.pop("overload")
        return requests.post(
            f"{self.server.url}/_reload",
            json={"data": [entry], **document},
            headers=self._authorized,
            timeout=PATIENCE,
        )

    def later(self, ask: Callable[..., object], *arguments: object, **named: object) -> Future:
        """``ask(…)`` on a thread of its own."""
        return self._pool.submit(ask, *arguments, **named)

    def status(self) -> dict:
        return self.get("/_reload").json()

    @property
    def _authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    # Files and gates

    def edit(self, body: str) -> None:
        """A new ``calls.py`` whose ``edition`` has that body."""
        original = (SERVICE / "calls.py").read_text()
        assert "return 1" in original
        (self.folder / "calls.py").write_text(original.replace("return 1", body))

    def close(self, gate: str) -> None:
        (self.folder / "gates" / f"{gate}.closed").touch()

    def open(self, gate: str) -> None:
        (self.folder / "gates" / f"{gate}.closed").unlink(missing_ok=True)

    def wait_for_somebody_at(self, gate: str) -> None:
        wait_until((self.folder / "gates" / f"{gate}.reached").exists)

    def hold_a_request(self) -> Future:
        """A call that is held by a closed lock: of those sent before it closes, the answers are thrown away."""

        def one_is_held() -> bool:
            nonlocal call
            if call.done():
                call = self.later(self.call)
            return self.status()["held"] == 1

        call = self.later(self.call)
        wait_until(one_is_held)
        return call


def wait_until(predicate: Callable[[], object]) -> None:
    deadline = monotonic() + PATIENCE
    pause = Event()
    while not predicate():
        assert monotonic() < deadline, "it never happened"
        pause.wait(0.01)


@contextmanager
def site(kind: str, tmp_path: Path, *, workers: int = 1) -> Iterator[Site]:
    folder = tmp_path / "served"
    shutil.copytree(SERVICE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gates").mkdir()
    env = {"HOTRELOAD_TOKEN": TOKEN, "HOTRELOAD_TIMEOUT": "12", "HOTRELOAD_APPLY_TIMEOUT": "12"}
    if workers > 1:
        env["HOTRELOAD_COORDINATOR"] = "local"
    with (
        ThreadPoolExecutor(8) as pool,
        serve(app="app:app", cwd=folder, workers=workers, env=env, ready=HEALTH, **SERVERS[kind]) as started,
    ):
        one = Site(folder, started, pool)
        try:
            yield one
        finally:
            for gate in ("slow", "apply", "import", "endless"):
                one.open(gate)  # whoever waits there, so that the server can end


@every_server
def test_a_request_during_a_reload_is_held_and_answered_by_the_new_code(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        assert one.call() == 1
        one.edit("return 2")
        one.close("apply")
        reload = one.later(one.reload, overload="hold")
        one.wait_for_somebody_at("apply")
        # Under sync it stands in the listening socket's queue; anywhere else it is inside, and held by the lock.
        held = one.hold_a_request() if kind in CONCURRENT else connected(one.server)
        one.open("apply")
        report = reload.result().json()
        assert (report["status"], report["generation"]) == ("committed", 1)
        if kind in CONCURRENT:
            assert held.result() == 2
            assert report["drain"]["held"] == 1
        else:
            assert answer_of(held).endswith(b'"result":2,"id":1}')
        assert one.call() == 2


@every_concurrent_server
def test_a_slow_request_is_drained_and_ends_on_the_code_that_it_began_with(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        one.close("slow")
        slow = one.later(one.get, "/slow")
        one.wait_for_somebody_at("slow")
        one.edit("return 2")
        reload = one.later(one.reload)
        held = one.hold_a_request()
        assert not slow.done()
        assert not reload.done()
        one.open("slow")
        assert slow.result().json() == {"edition": 1, "generation": 0}
        report = reload.result().json()
        assert report["status"] == "committed"
        assert report["drain"]["in_flight"] >= 1
        assert report["drain"]["stragglers"] == []
        assert held.result() == 2


@pytest.mark.parametrize("kind", [name for name in SERVERS if "sync" in name])
def test_a_reload_waits_for_the_one_request_of_a_sync_worker(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        one.close("slow")
        slow = one.later(one.get, "/slow")
        one.wait_for_somebody_at("slow")
        one.edit("return 2")
        reload = one.later(one.reload)
        one.open("slow")
        assert slow.result().json() == {"edition": 1, "generation": 0}
        assert reload.result().json()["status"] == "committed"
        assert one.call() == 2


@every_concurrent_server
def test_a_request_that_outlasts_the_drain_ends_on_its_own_generation(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        one.close("slow")
        slow = one.later(one.get, "/slow")
        one.wait_for_somebody_at("slow")
        one.edit("return 2")
        report = one.reload(timeout=0).json()
        assert report["status"] == "committed"
        assert [(each["method"], each["path"]) for each in report["drain"]["stragglers"]] == [("GET", "/slow")]
        assert one.call() == 2
        one.open("slow")
        assert slow.result().json() == {"edition": 1, "generation": 0}


@every_server
def test_a_broken_reload_changes_nothing_and_names_file_and_line(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        one.edit("return 2 +")
        response = one.reload()
        assert response.status_code == 422
        assert response.headers["Content-Type"] == "application/problem+json"
        error = response.json()["report"]["error"]
        line = (one.folder / "calls.py").read_text().splitlines().index("    return 2 +") + 1
        assert (error["type"], error["file"], error["line"]) == ("LoadError", str(one.folder / "calls.py"), line)
        assert one.call() == 1
        one.edit("return 3")
        assert one.reload().json()["generation"] == 1
        assert one.call() == 3


@every_server
def test_a_reload_that_fails_while_requests_are_held_lets_them_go_on_with_the_old_code(
    kind: str, tmp_path: Path
) -> None:
    with site(kind, tmp_path) as one:
        one.edit("return 2\n\n\ndef fail(server, module, dispatcher):\n    passed('apply')\n    raise OSError('no')")
        one.close("apply")
        reload = one.later(one.reload, overload="fail")
        one.wait_for_somebody_at("apply")
        held = one.hold_a_request() if kind in CONCURRENT else connected(one.server)
        one.open("apply")
        response = reload.result()
        assert response.status_code == 422
        assert response.json()["report"]["error"]["type"] == "ApplyError"
        if kind in CONCURRENT:
            assert held.result() == 1
        else:
            assert answer_of(held).endswith(b'"result":1,"id":1}')


@every_server
def test_what_the_process_holds_in_memory_survives(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        assert [one.call("count"), one.call("count")] == [1, 2]
        one.edit("return 2")
        assert one.reload().status_code == 200
        assert (one.call(), one.call("count")) == (2, 3)


@every_concurrent_server
def test_requests_are_answered_while_new_code_is_being_imported(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        one.edit("return 2\n\n\npassed('import')")
        one.close("import")
        reload = one.later(one.reload)
        one.wait_for_somebody_at("import")
        assert one.call() == 1
        assert not reload.done()
        one.open("import")
        assert reload.result().json()["status"] == "committed"
        assert one.call() == 2


@every_server
def test_a_client_that_hangs_up_gives_its_slot_back(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        client = one.server.connect()
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
        assert b"200 OK" in client.recv(1000)
        hang_up(client)
        wait_until(lambda: one.status()["in_flight"] == 0)
        report = one.reload(onTimeout="abort").json()
        assert report["status"] == "committed"


@every_concurrent_server
def test_a_client_that_hangs_up_while_it_is_held_gives_its_slot_back(kind: str, tmp_path: Path) -> None:
    with site(kind, tmp_path) as one:
        one.edit("return 2")
        one.close("apply")
        reload = one.later(one.reload, overload="hold")
        one.wait_for_somebody_at("apply")
        client = connected(one.server)
        wait_until(lambda: one.status()["held"] == 1)
        hang_up(client)
        one.open("apply")
        assert reload.result().json()["drain"]["held"] == 1
        wait_until(lambda: one.status()["in_flight"] == 0)
        assert one.reload(onTimeout="abort").json()["drain"]["in_flight"] == 0


def test_several_workers_with_a_local_coordinator_take_no_reload(tmp_path: Path) -> None:
    with site("gunicorn sync", tmp_path, workers=2) as one:
        one.edit("return 2")
        response = one.reload()
        assert response.status_code == 503
        assert "HOTRELOAD_COORDINATOR" in response.json()["detail"]
        assert one.call() == 1


def test_a_preloaded_service_is_reloaded_in_its_worker(tmp_path: Path) -> None:
    with site("gunicorn gthread --preload", tmp_path) as one:
        one.edit("return 2")
        report = one.reload().json()
        assert [worker["pid"] for worker in report["workers"]] == one.server.children()
        assert one.server.pid != report["workers"][0]["pid"] != os.getpid()


def connected(server: Server) -> socket.socket:
    """A connection on which a call of ``edition`` has been sent."""
    client = server.connect()
    body = b'{"jsonrpc":"2.0","id":1,"method":"edition"}'
    head = f"POST /api HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    client.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
    return client


def answer_of(client: socket.socket) -> bytes:
    client.settimeout(PATIENCE)
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def hang_up(client: socket.socket) -> None:
    """Close so that the server's next write fails: with a reset instead of a goodbye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()

"""From a save to its first answer: ``HOTRELOAD_WATCH`` beside the reloaders that restart the process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep

from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile

#: What the application needs to start: its model, which lives in memory.
START_SECONDS = 2.0
FACTOR = 10
PATIENCE = 60.0

APP = f"""
import time
from flask import Flask
from flask_hotreload import HotRPC
import views

app = Flask(__name__)
rpc = HotRPC(app)

def load():
    time.sleep({START_SECONDS})
    return object()

model = rpc.keep("model", load)
app.add_url_rule("/", view_func=views.home)
"""
VIEWS = 'def home():\n    return "edition {}"\n'

FLASK = ("-m", "flask", "--app", "app", "run", "--port", "{port}")
GUNICORN = ("-m", "gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8")
OURS = {
    "flask run --no-reload": (*FLASK, "--no-reload"),
    "gunicorn": (*GUNICORN, "--no-control-socket"),
}
THEIRS = {
    "flask run --debug": (*FLASK, "--debug"),
    "gunicorn --reload": (*GUNICORN, "--no-control-socket", "--reload"),
}


def measure() -> list[Figure]:
    ours = {name: _median(command, watch=True) for name, command in OURS.items()}
    theirs = {name: _median(command, watch=False) for name, command in THEIRS.items()}
    ratio = min(theirs.values()) / max(ours.values())
    return [
        Figure(
            f"from a save to its first answer with HOTRELOAD_WATCH, application that starts for {START_SECONDS:g} s",
            f"p50 {_told(ours)}; {ratio:.0f} × faster",
            f"≥ {FACTOR} × faster",
            ratio >= FACTOR,
        ),
        Figure("the same by reloaders that restart it", f"p50 {_told(theirs)}", "", None),
    ]


def _told(seconds: dict[str, float]) -> str:
    return ", ".join(f"{value * 1000:,.0f} ms ({name})" for name, value in seconds.items())


def _median(command: Sequence[str], *, watch: bool) -> float:
    saves = amount(9, quick_run=1)
    with _running(command, watch=watch) as (folder, port):
        return percentile([_save(folder, port, number, rest=number / saves) for number in range(1, saves + 1)], 0.5)


def _save(folder: Path, port: int, number: int, *, rest: float) -> float:
    """Seconds from writing the file to the first answer of it. ``rest``: before that, in which phase of a second."""
    sleep(1.0 + rest)
    (folder / "views.py").write_text(VIEWS.format(number))
    saved = monotonic()
    _await(port, VIEWS.format(number).split('"')[1])
    return monotonic() - saved


def _await(port: int, answer: str) -> None:
    deadline = monotonic() + PATIENCE
    while _ask(port) != answer:
        if monotonic() > deadline:
            raise RuntimeError(f"{answer!r} is not answered after {PATIENCE:g} s")
        sleep(0.005)


def _ask(port: int) -> str | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, HTTPException):
        return None  # it is just being restarted
    finally:
        connection.close()


@contextmanager
def _running(command: Sequence[str], *, watch: bool) -> Iterator[tuple[Path, int]]:
    """The application's folder and port, once it answers."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, socket.create_server(("127.0.0.1", 0)) as free:
        folder, port = Path(name), free.getsockname()[1]
        free.close()
        (folder / "app.py").write_text(APP)
        (folder / "views.py").write_text(VIEWS.format(0))
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HOTRELOAD_", "FLASK_"))}
        env |= {"HOTRELOAD_WATCH": "1"} if watch else {}
        env |= {"HOTRELOAD_TOKEN": "only-for-this-bench", "HOTRELOAD_COORDINATOR": "local"}
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *(part.format(port=port) for part in command)],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _await(port, "edition 0")
            yield folder, port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

"""The demos as a user runs them: processes, and the tables that they print."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from example_app.server import PACKAGE

ROOT = PACKAGE.parent


@contextmanager
def running(module: str, *arguments: str, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """``python -m module arguments`` in a process of its own, with its own folder for temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process prints, up to the line that holds ``text``."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"{text!r} was never printed:\n{seen}")


def refuses_connections(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def table_of(output: str) -> dict[str, list[str]]:
    """The cells of each row by its title; what does not fit into the last one goes on in the lines below."""
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line[:1] == "│"]
    rows: dict[str, list[str]] = {}
    for title, *cells in lines:
        if title:
            rows[title] = cells
        else:
            rows[next(reversed(rows))][-1] += f" {cells[-1]}"
    return rows

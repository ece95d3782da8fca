"""Whether reloads of the whole source leave anything in memory, and what a kept generation takes."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import tempfile
from pathlib import Path

from bench.big_project import package
from bench.effort import amount
from bench.figure import Figure

MODULES = 50
MEBIBYTE = 1024 * 1024

APP = """
from flask import Flask
from flask_hotreload import HotRPC
import whole

EDITION = {edition}
app = Flask(__name__)
rpc = HotRPC(app, keep_generations={kept})
"""


def measure() -> list[Figure]:
    early, late = amount(50, quick_run=5), amount(500, quick_run=15)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name).resolve()
        for path, text in package("whole", MODULES).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        sys.path.insert(0, str(folder))
        kept = 3
        _write(folder, 0, kept)
        rpc = importlib.import_module("app").rpc
        before = after = 0
        for edition in range(1, late + 1):
            _write(folder, edition, kept)
            rpc.reload()
            if edition == early:
                before = _resident()
        after = _resident()
        reloader = rpc._served.reloader
        reloader.kept.clear()
        without = _resident()
    grown = (after - before) / before
    return [
        Figure(
            f"memory after {late} reloads of the whole source of {MODULES} modules, against after {early}",
            f"{grown:+.1%} ({after / MEBIBYTE:.1f} MiB in all)",
            "≤ 5 % more",
            grown <= 0.05,
        ),
        Figure(
            f"memory of one kept generation of {MODULES} modules",
            f"{(after - without) / kept / MEBIBYTE:.2f} MiB",
            "",
            None,
        ),
    ]


def _write(folder: Path, edition: int, kept: int) -> None:
    (folder / "app.py").write_text(APP.format(edition=edition, kept=kept))


def _resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

"""Whether reloads of the whole source leave anything in memory, and what a kept generation takes."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.big_project import package
from bench.effort import amount
from bench.figure import Figure

MODULES = 50
MEBIBYTE = 1024 * 1024

#: The default of HOTRELOAD_KEEP_GENERATIONS.
KEPT = 3

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
    before, after = _apart(KEPT, early, late)
    (_, kept), (_, without) = (_apart(number, early, early, collecting=True) for number in (KEPT, 0))
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
            f"{(kept - without) / KEPT / MEBIBYTE:.2f} MiB",
            "",
            None,
        ),
    ]


def _apart(kept: int, early: int, late: int, *, collecting: bool = False) -> tuple[int, int]:
    """:func:`_resident_after`, in a fresh process: memory that was freed does not go back to the system."""
    command = [sys.executable, "-m", "bench.whole_memory", *map(str, (kept, early, late, int(collecting)))]
    before, after = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(before), int(after)


def _resident_after(kept: int, early: int, late: int, collecting: int) -> tuple[int, int]:
    """Bytes in memory after that many reloads, with so many generations kept.

    ``collecting``: garbage goes at once; else it leaves memory behind that what is kept may lie in.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name).resolve()
        for path, text in package("whole", MODULES).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        sys.path.insert(0, str(folder))
        _write(folder, 0, kept)
        rpc = importlib.import_module("app").rpc
        before = 0
        for edition in range(1, late + 1):
            _write(folder, edition, kept)
            rpc.reload()
            if collecting:
                gc.collect()
            if edition == early:
                before = _resident()
        return before, _resident()


def _write(folder: Path, edition: int, kept: int) -> None:
    (folder / "app.py").write_text(APP.format(edition=edition, kept=kept))


def _resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(*_resident_after(*map(int, sys.argv[1:])))

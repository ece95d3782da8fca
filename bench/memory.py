"""Whether reloads leave anything in memory."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from types import ModuleType

from bench.effort import amount
from bench.figure import Figure
from bench.inside import Inside, service

MEBIBYTE = 1024 * 1024

#: The default of HOTRELOAD_KEEP_GENERATIONS.
KEPT = 3


def measure() -> list[Figure]:
    early, late = amount(200, quick_run=20), amount(2000, quick_run=60)
    editions: list[weakref.ref[ModuleType]] = []
    with service(dispatchers=10) as inside:
        _reload(inside, early, editions)
        before = _resident()
        _reload(inside, late - early, editions)
        after = _resident()
        alive = sum(edition() is not None for edition in editions)
    grown = (after - before) / MEBIBYTE
    return [
        Figure(
            f"memory after {late:,} reloads, against after {early}",
            f"{grown:+.2f} MiB ({after / MEBIBYTE:.1f} MiB in all)",
            "≤ 2 MiB more",
            grown <= 2,
        ),
        Figure(
            f"modules alive of {len(editions):,} reloads",
            str(alive),
            f"{1 + KEPT}: the current one, and those of the generations kept for a rollback",
            alive == 1 + KEPT,
        ),
    ]


def _reload(inside: Inside, number: int, editions: list[weakref.ref[ModuleType]]) -> None:
    for _ in range(number):
        inside.reload()
        editions.append(weakref.ref(sys.modules["edited"]))
    gc.collect()


def _resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

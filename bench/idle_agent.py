"""What a worker's waiting agent costs while nothing happens: the same service with and without, side by side."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, sleep

from bench.effort import amount
from bench.figure import Figure
from bench.workers import Workers, running

WORKERS = 4
TARGET = 0.002


def measure() -> list[Figure]:
    seconds = amount(30.0, quick_run=2.0)
    with running(WORKERS) as ours, running(WORKERS, coordinated=False) as bare:
        sleep(amount(3.0, quick_run=0.5))  # what the start has left to do
        before = monotonic(), _busy(ours), _busy(bare)
        sleep(seconds)
        after = monotonic(), _busy(ours), _busy(bare)
    elapsed, with_agent, without = (late - early for late, early in zip(after, before, strict=True))
    cost = (with_agent - without) / WORKERS / elapsed
    return [
        Figure(
            f"the waiting agent of an idle worker, over {elapsed:.0f} s and {WORKERS} workers",
            f"{cost:.3%} of a core ({with_agent / WORKERS / elapsed:.3%} against {without / WORKERS / elapsed:.3%})",
            f"≤ {TARGET:.1%} of a core",
            cost <= TARGET,
        )
    ]


def _busy(service: Workers) -> float:
    """Seconds for which all threads of all workers have run."""
    return sum(
        int((thread / "schedstat").read_text().split()[0]) / 1e9
        for pid in service.pids()
        for thread in Path(f"/proc/{pid}/task").iterdir()
    )

"""For how long an idle service is closed by a reload: that of one dispatcher's file."""

from __future__ import annotations

from bench.effort import amount
from bench.figure import Figure
from bench.inside import service
from bench.spread import percentile


def measure() -> list[Figure]:
    with service(dispatchers=10) as inside:
        for _ in range(20):
            inside.reload()  # the first ones fill caches
        pauses = [inside.reload().timings.pause_ms for _ in range(amount(1000, quick_run=30))]
    median, rare = percentile(pauses, 0.5), percentile(pauses, 0.99)
    return [
        Figure(
            f"pause of a reload, idle ({len(pauses)} reloads)",
            f"p50 {median:.3f} ms, p99 {rare:.3f} ms, longest {max(pauses):.3f} ms",
            "p50 ≤ 0.3 ms, p99 ≤ 1 ms",
            median <= 0.3 and rare <= 1,
        )
    ]

"""Whether a service with many dispatchers is closed for longer than one with few."""

from __future__ import annotations

from bench.effort import amount
from bench.figure import Figure
from bench.inside import service
from bench.spread import percentile
from flask_hotreload.report import ReloadReport

FEW, MANY = 10, 10_000


def measure() -> list[Figure]:
    rounds = amount(3, quick_run=1)
    few: list[ReloadReport] = []
    many: list[ReloadReport] = []
    for _ in range(rounds):
        few += _reloads(FEW, amount(100, quick_run=3))
        many += _reloads(MANY, amount(20, quick_run=3))
    short, long = _median(few, "pause_ms"), _median(many, "pause_ms")
    return [
        Figure(
            f"pause with {MANY:,} dispatchers against {FEW}",
            f"{long / short:.2f} × (p50 {long:.3f} ms against {short:.3f} ms)",
            "≤ 1.5 ×",
            long <= 1.5 * short,
        ),
        Figure(
            f"preparing with {MANY:,} dispatchers against {FEW}, while requests flow",
            f"p50 {_median(many, 'prepare_ms'):.1f} ms against {_median(few, 'prepare_ms'):.1f} ms",
            "",
            None,
        ),
    ]


def _reloads(dispatchers: int, number: int) -> list[ReloadReport]:
    with service(dispatchers) as inside:
        inside.reload()
        return [inside.reload() for _ in range(number)]


def _median(reports: list[ReloadReport], timing: str) -> float:
    return percentile([getattr(report.timings, timing) for report in reports], 0.5)

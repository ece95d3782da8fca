"""Reloads over several idle workers: for how long they are closed, and how long the answer takes."""

from __future__ import annotations

from time import monotonic

from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile
from bench.workers import Workers, running

#: Numbers of workers → the target for the pause, p50 and p99 in milliseconds.
PAUSES: dict[int, tuple[float, float] | None] = {
    1: None,
    2: None,
    4: (1.5, 4.0),
    8: None,
    16: None,
    32: (6.0, 15.0),
}


def measure() -> list[Figure]:
    figures = []
    for workers, target in PAUSES.items():
        with running(workers) as service:
            _reload(service, 20)  # the first ones fill caches
            pauses, answers = _reload(service, amount(300 if workers <= 8 else 100, quick_run=5))
        figures.append(_pause(workers, pauses, target))
        if workers == 4:
            figures.append(_answer(workers, answers))
    return figures


def _reload(service: Workers, number: int) -> tuple[list[float], list[float]]:
    """The pause of each reload, and the time from sending the request to having the answer; in milliseconds."""
    pauses, answers = [], []
    for _ in range(number):
        service.edit()
        asked = monotonic()
        report = service.reload()
        answers.append((monotonic() - asked) * 1000)
        pauses.append(report["timings"]["pause_ms"])
    return pauses, answers


def _pause(workers: int, pauses: list[float], target: tuple[float, float] | None) -> Figure:
    median, rare = percentile(pauses, 0.5), percentile(pauses, 0.99)
    return Figure(
        f"pause of a reload, {workers} idle worker{'s' if workers > 1 else ''} ({len(pauses)} reloads)",
        f"p50 {median:.2f} ms, p99 {rare:.2f} ms, longest {max(pauses):.2f} ms",
        "" if target is None else f"p50 ≤ {target[0]:g} ms, p99 ≤ {target[1]:g} ms",
        None if target is None else median <= target[0] and rare <= target[1],
    )


def _answer(workers: int, answers: list[float]) -> Figure:
    median = percentile(answers, 0.5)
    return Figure(
        f"from POST to the answer, small file, {workers} workers",
        f"p50 {median:.1f} ms, p99 {percentile(answers, 0.99):.1f} ms",
        "p50 ≤ 40 ms",
        median <= 40,
    )

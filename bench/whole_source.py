"""Reloads of the whole source of a large project: for how long workers are closed, and how long the answer takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

from bench.big_project import package
from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile
from bench.workers import APP, Workers, running

MODULES = 200
WHOLE = APP.replace("import calls, state", "import calls, state, whole")


def measure() -> list[Figure]:
    pauses, answers = _reloads(4, MODULES, amount(60, quick_run=3))
    _, alone = _reloads(1, MODULES, amount(40, quick_run=3))
    small, large = _in_turns(10, 1000, rounds=amount(8, quick_run=1))
    plain = _plain_import()
    return [
        Figure(
            f"pause of a reload of the whole source, {MODULES} modules, 4 idle workers ({len(pauses)} reloads)",
            f"p50 {percentile(pauses, 0.5):.2f} ms, p99 {percentile(pauses, 0.99):.2f} ms",
            "p99 ≤ 10 ms",
            percentile(pauses, 0.99) <= 10,
        ),
        _answer(1, alone, plain, 1.5),
        _answer(4, answers, plain, 3.0),
        Figure(
            "pause with 1,000 modules against 10, 4 workers",
            f"{percentile(large, 0.5) / percentile(small, 0.5):.2f} × "
            f"({percentile(large, 0.5):.2f} against {percentile(small, 0.5):.2f} ms)",
            "≤ 2 ×",
            percentile(large, 0.5) <= 2 * percentile(small, 0.5),
        ),
        _rollback(),
    ]


def _reloads(workers: int, modules: int, number: int) -> tuple[list[float], list[float]]:
    """The pause of each reload, and the time from sending the request to having the answer; in milliseconds."""
    pauses, answers = [], []
    with running(workers, app=WHOLE, files=package("whole", modules)) as service:
        _whole(service)  # the first one compiles what the interpreter had from its bytecode files
        for _ in range(number):
            report, took = _whole(service)
            answers.append(took)
            pauses.append(report["timings"]["pause_ms"])
    return pauses, answers


def _in_turns(few: int, many: int, rounds: int) -> tuple[list[float], list[float]]:
    """The pauses of two projects of so many modules, 4 workers each; five reloads of the one, then of the other."""
    pauses: tuple[list[float], list[float]] = ([], [])
    with (
        running(4, app=WHOLE, files=package("whole", few)) as small,
        running(4, app=WHOLE, files=package("whole", many)) as large,
    ):
        for service in (small, large):
            _whole(service)
        for _ in range(rounds):
            for service, of_it in zip((small, large), pauses, strict=True):
                of_it += [_whole(service)[0]["timings"]["pause_ms"] for _ in range(amount(5, quick_run=1))]
    return pauses


def _whole(service: Workers) -> tuple[dict[str, dict[str, float]], float]:
    service.edit()
    asked = monotonic()
    report = service.reload({})
    return report, (monotonic() - asked) * 1000


def _answer(workers: int, answers: list[float], plain: float, target: float) -> Figure:
    median = percentile(answers, 0.5)
    return Figure(
        f"from POST to the answer, {MODULES} modules, {workers} worker{'s' if workers > 1 else ''}",
        f"p50 {median:.0f} ms, {median / plain:.2f} × a plain import without bytecode ({plain:.0f} ms)",
        f"≤ {target:g} ×",
        median <= target * plain,
    )


def _plain_import() -> float:
    """Milliseconds that an interpreter takes to import the same modules from their sources; the median."""
    timed = "import time; began = time.perf_counter(); import whole; print(time.perf_counter() - began)"
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for path, text in package("whole", MODULES).items():
            (Path(name) / path).parent.mkdir(exist_ok=True)
            (Path(name) / path).write_text(text)
        command = [sys.executable, "-B", "-c", f"import dataclasses, enum, re; {timed}"]
        times = [
            float(subprocess.run(command, cwd=name, check=True, capture_output=True, text=True).stdout) * 1000
            for _ in range(amount(9, quick_run=1))
        ]
    return percentile(times, 0.5)


def _rollback() -> Figure:
    """There and back: each rollback is from a generation of its own to the one before, a second later.

    By then nothing goes on that the reload has left, or the rollback before: somebody has noticed and asks.
    """
    took = []
    with running(4, app=WHOLE, files=package("whole", MODULES)) as service:
        for _ in range(amount(40, quick_run=3)):
            _whole(service)
            sleep(1.0)
            took.append(service.rollback())
    median = percentile(took, 0.5)
    return Figure(
        f"rollback of {MODULES} modules to a generation in memory, 4 workers, from POST to the answer",
        f"p50 {median:.1f} ms, p99 {percentile(took, 0.99):.1f} ms",
        "≤ 10 ms",
        median <= 10,
    )

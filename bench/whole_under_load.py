"""What clients of two workers notice while the whole source of a large project is prepared: dry runs."""

from __future__ import annotations

from time import monotonic, sleep

from bench.big_project import package
from bench.checked import Checked, CheckedLoad
from bench.effort import amount
from bench.figure import Figure
from bench.spread import milliseconds, percentile
from bench.whole_source import MODULES, WHOLE
from bench.workers import Workers, running

RATE = 300.0


def measure() -> list[Figure]:
    calm: list[float] = []
    preparing: list[float] = []
    took: list[float] = []
    failed = 0
    with running(2, app=WHOLE, files=package("whole", MODULES)) as service:
        for _ in range(amount(9, quick_run=1)):
            calm.append(percentile(_load(service, 2.0).waits, 0.99))
            checked = _load(service, 2.0, took)
            preparing.append(percentile(checked.waits, 0.99))
            failed += len(checked.verdict.failed)
    usual, then = percentile(calm, 0.5), percentile(preparing, 0.5)
    return [
        Figure(
            f"p99 of requests at {RATE:g}/s while the whole source of {MODULES} modules is prepared, 2 workers",
            f"{milliseconds(then)}, {then / usual:.1f} × calm ({milliseconds(usual)}), {failed} failed "
            f"(the median of {len(preparing)} rounds of dry runs, {percentile(took, 0.5):,.0f} ms each)",
            "≤ 3 × calm",
            then <= 3 * usual and not failed,
        )
    ]


def _load(service: Workers, seconds: float, took: list[float] | None = None) -> Checked:
    """Requests for that long; with ``took``, which gets their milliseconds, dry runs all the while."""
    with CheckedLoad(service.address, clients=16, rate=RATE) as load:
        until = monotonic() + seconds
        while took is not None and monotonic() < until:
            service.edit()
            took.append(service.reload({"dryRun": True})["timings"]["prepare_ms"])
        sleep(max(0.0, until - monotonic()))
        return load.stop()

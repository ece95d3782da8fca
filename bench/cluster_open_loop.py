"""What clients of four workers notice of reloads: requests at a fixed rate, with one reload a second and without."""

from __future__ import annotations

from time import sleep

from bench.checked import Checked, CheckedLoad
from bench.effort import amount
from bench.figure import Figure
from bench.open_loop import Repeated
from bench.spread import milliseconds, percentile
from bench.workers import Workers, running

WORKERS = 4
CLIENTS = 16
RATE = 300.0


def measure() -> list[Figure]:
    seconds = amount(6.0, quick_run=2.0)
    calm: list[Checked] = []
    reloading: list[Checked] = []
    reloads = 0
    with running(WORKERS) as service:
        for _ in range(amount(5, quick_run=1)):
            calm.append(_round(service, seconds))
            with Repeated(lambda: _reload(service), every=1.0) as repeated:
                reloading.append(_round(service, seconds))
            reloads += repeated.times
    failed = sum(len(each.verdict.failed) for each in reloading)
    old = sum(each.verdict.old_after_new for each in reloading)
    more = _usual(reloading, 1.0) - _usual(calm, 1.0)
    return [
        Figure(
            f"open loop at {RATE:g} requests/s, {WORKERS} workers, with one reload a second ({reloads} reloads)",
            f"{failed} of {sum(each.verdict.requests for each in reloading):,} failed, {old} old after new; "
            f"{_told(reloading)}",
            "0 failed, 0 old after new; longest wait ≤ 20 ms more than without",
            failed == old == 0 and more <= 0.020,
        ),
        Figure("the same without reloads, in turns with it", _told(calm), "", None),
    ]


def _round(service: Workers, seconds: float) -> Checked:
    with CheckedLoad(service.address, clients=CLIENTS, rate=RATE) as load:
        sleep(seconds)
        return load.stop()


def _reload(service: Workers) -> None:
    service.edit()
    service.reload()


def _told(rounds: list[Checked]) -> str:
    """The median of the rounds, since a round may be spoilt by what else the machine does; and the very worst."""
    worst = max(max(each.waits) for each in rounds)
    return (
        f"longest wait {milliseconds(_usual(rounds, 1.0))}, p99.9 {milliseconds(_usual(rounds, 0.999))} "
        f"(median of {len(rounds)} rounds; of all {milliseconds(worst)})"
    )


def _usual(rounds: list[Checked], share: float) -> float:
    return percentile([percentile(each.waits, share) for each in rounds], 0.5)

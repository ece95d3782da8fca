"""``kill -HUP`` of gunicorn, which deploys by starting new workers, beside a reload: the same service and change."""

from __future__ import annotations

import signal
from collections.abc import Callable
from time import monotonic, sleep

from bench.client import Sample
from bench.effort import amount
from bench.figure import Figure
from bench.open_loop import load, longest, throughput
from bench.service import Service, running
from bench.spread import milliseconds

#: What importing the application takes; its libraries and models, not the changed file.
IMPORT_SECONDS = 0.5
TARGET = "0 failed, state kept"


def measure() -> list[Figure]:
    times = amount(5, quick_run=1)
    with running(import_seconds=IMPORT_SECONDS) as service:
        rate = throughput(service) / 4
        ours = [_deploy(service, rate, service.reload) for _ in range(times)]
        theirs = [_deploy(service, rate, lambda: _hang_up(service)) for _ in range(times)]
    what = f"an import of {IMPORT_SECONDS:g} s, {rate:,.0f} requests/s, {times} times"
    kept = all(deploy.kept for deploy in ours)
    return [
        Figure(f"the change by a reload ({what})", _told(ours), TARGET, kept and not _failed(ours)),
        Figure("the same change by gunicorn's HUP", _told(theirs), "", None),
    ]


class _Deploy:
    """What one change did to clients and to the state in memory."""

    def __init__(self, samples: list[Sample], remembered: int, before: int) -> None:
        self.samples = samples
        self.lost = max(0, before - remembered)
        self.kept = not self.lost


def _deploy(service: Service, rate: float, change: Callable[[], object]) -> _Deploy:
    before = service.served()

    def meanwhile() -> None:
        sleep(0.5)
        service.edit()
        change()
        sleep(0.5)

    samples = load(service, rate, meanwhile)
    return _Deploy(samples, service.served(), before)


def _hang_up(service: Service) -> None:
    """HUP, and wait until the new worker serves: it knows of fewer calls than the old one."""
    before = service.served()
    service.server.process.send_signal(signal.SIGHUP)
    patient_until = monotonic() + 20
    while service.served() >= before:
        if monotonic() > patient_until:
            raise RuntimeError("no new worker after HUP\n" + service.server.log_tail())
        sleep(0.05)


def _failed(deploys: list[_Deploy]) -> int:
    return sum(sample.failed for deploy in deploys for sample in deploy.samples)


def _told(deploys: list[_Deploy]) -> str:
    samples = [sample for deploy in deploys for sample in deploy.samples]
    lost = sum(deploy.lost for deploy in deploys)
    state = f"{lost:,} calls forgotten" if lost else "state kept"
    return f"{_failed(deploys)} of {len(samples):,} failed, longest wait {milliseconds(longest(samples))}, {state}"

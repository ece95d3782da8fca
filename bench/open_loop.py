"""What clients notice of reloads: requests at a fixed rate, with one reload a second and without, in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep

from bench.client import Load, Sample
from bench.effort import amount
from bench.figure import Figure
from bench.service import ECHO, Service, running
from bench.spread import milliseconds, percentile

ROUNDS = 4


def measure() -> list[Figure]:
    seconds = amount(6.0, quick_run=2.0)
    calm: list[Sample] = []
    reloading: list[Sample] = []
    reloads = 0
    with running() as service:
        capacity = throughput(service)
        for _ in range(amount(ROUNDS, quick_run=1)):
            calm += load(service, capacity / 2, lambda: sleep(seconds))
            with Repeated(lambda: reload(service), every=1.0) as repeated:
                reloading += load(service, capacity / 2, lambda: sleep(seconds))
            reloads += repeated.times
    failed = sum(sample.failed for sample in reloading)
    more = longest(reloading) - longest(calm)
    return [
        Figure(
            f"open loop at {capacity / 2:,.0f} requests/s, half of what the server can do: one reload a second",
            f"{failed} of {len(reloading):,} failed, longest wait {milliseconds(longest(reloading))}, "
            f"p99.9 {milliseconds(rare(reloading))} ({reloads} reloads)",
            "0 failed; longest wait ≤ 10 ms more than without",
            failed == 0 and more <= 0.010,
        ),
        Figure(
            "the same without reloads, in turns with it",
            f"{sum(sample.failed for sample in calm)} of {len(calm):,} failed, "
            f"longest wait {milliseconds(longest(calm))}, p99.9 {milliseconds(rare(calm))}",
            "",
            None,
        ),
    ]


def reload(service: Service) -> None:
    service.edit()
    service.reload()


def throughput(service: Service) -> float:
    """Requests a second that the service answers when clients send the next one as soon as they have an answer."""
    seconds = amount(3.0, quick_run=1.0)
    load(service, None, lambda: sleep(0.5), connections=8)  # warms up
    samples = load(service, None, lambda: sleep(seconds), connections=8)
    return sum(not sample.failed for sample in samples) / seconds


def load(
    service: Service, rate: float | None, meanwhile: Callable[[], object], *, connections: int = 32
) -> list[Sample]:
    """The requests that were sent while ``meanwhile`` ran."""
    with Load(service.address, body=ECHO, connections=connections, rate=rate) as running_load:
        meanwhile()
        return running_load.stop()


def longest(samples: list[Sample]) -> float:
    return max(sample.wait for sample in samples)


def rare(samples: list[Sample]) -> float:
    return percentile([sample.wait for sample in samples], 0.999)


class Repeated:
    """A context manager: ``action`` once each ``every`` seconds, on a thread. What it raises is raised on leaving."""

    def __init__(self, action: Callable[[], object], *, every: float) -> None:
        self._action = action
        self._every = every
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.times = 0

    def __enter__(self) -> Repeated:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        due = monotonic() + self._every / 2
        try:
            while not self._stopping.wait(max(0.0, due - monotonic())):
                due += self._every
                self._action()
                self.times += 1
        except BaseException as error:  # noqa: BLE001  # whatever it is belongs to who leaves the block
            self._error = error

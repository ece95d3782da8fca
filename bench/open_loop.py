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


def measure() -> list[Figure]:
    seconds = amount(6.0, quick_run=2.0)
    calm: list[list[Sample]] = []
    reloading: list[list[Sample]] = []
    reloads = 0
    with running() as service:
        rate = throughput(service) / 2
        for _ in range(amount(5, quick_run=1)):
            calm.append(load(service, rate, lambda: sleep(seconds)))
            with Repeated(lambda: reload(service), every=1.0) as repeated:
                reloading.append(load(service, rate, lambda: sleep(seconds)))
            reloads += repeated.times
    more = _usual(longest, reloading) - _usual(longest, calm)
    return [
        Figure(
            f"open loop at {rate:,.0f} requests/s, half of what the server can do, with one reload a second",
            f"{_told(reloading)} ({reloads} reloads)",
            "0 failed; longest wait ≤ 10 ms more than without",
            not _failed(reloading) and more <= 0.010,
        ),
        Figure("the same without reloads, in turns with it", _told(calm), "", None),
    ]


def _told(rounds: list[list[Sample]]) -> str:
    """The median of the rounds, since a round may be spoilt by what else the machine does; and the very worst."""
    usual, worst = _usual(longest, rounds), max(longest(samples) for samples in rounds)
    return (
        f"{_failed(rounds)} of {sum(map(len, rounds)):,} failed; longest wait {milliseconds(usual)}, "
        f"p99.9 {milliseconds(_usual(rare, rounds))} (median of {len(rounds)} rounds; of all {milliseconds(worst)})"
    )


def _usual(figure: Callable[[list[Sample]], float], rounds: list[list[Sample]]) -> float:
    return percentile([figure(samples) for samples in rounds], 0.5)


def _failed(rounds: list[list[Sample]]) -> int:
    return sum(sample.failed for samples in rounds for sample in samples)


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

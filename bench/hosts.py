"""Reloads over several idle hosts, each a gunicorn with a folder of its own, that meet in one real Redis server."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from time import monotonic, sleep

from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile
from bench.workers import Workers, running
from tests.redis_server import RedisServer

WORKERS = 2  # of each host
#: Numbers of hosts → the target for the pause, p50 and p99 in milliseconds; infinite: none.
PAUSES: dict[int, tuple[float, float] | None] = {
    2: None,
    4: (3.0, 8.0),
    8: None,
    16: (15.0, float("inf")),
}
PATIENCE = 180.0  # seconds

_editions = count(1)


def measure() -> list[Figure]:
    figures = []
    for number, target in PAUSES.items():
        with hosts(number) as services:
            _reload(services, 20)  # the first ones fill caches
            pauses, answers = _reload(services, amount(300 if number <= 4 else 100, quick_run=5))
        figures.append(_figure(number, pauses, answers, target))
    return figures


@contextmanager
def hosts(number: int) -> Iterator[list[Workers]]:
    """That many, complete: each worker of each knows all others."""
    with ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        server = undo.enter_context(RedisServer(Path(folder, "redis")))
        env = {
            "HOTRELOAD_COORDINATOR": server.url,
            "HOTRELOAD_DEPLOYMENT": "bench",
            "HOTRELOAD_RELEASE": "1",
            "HOTRELOAD_SIGNING_KEY": secrets.token_urlsafe(),
        }
        services = [undo.enter_context(running(WORKERS, own_socket=True, env=env)) for _ in range(number)]
        _await_all(services)
        yield services


def _await_all(services: list[Workers]) -> None:
    deadline = monotonic() + PATIENCE
    while True:
        pids = [service.pids() for service in services]
        if all(len(each) == WORKERS for each in pids) and services[0].members() == set().union(*pids):
            return
        if monotonic() > deadline:
            raise RuntimeError(f"not all of {pids} take part in reloads: {services[0].members()}")
        sleep(0.1)


def _reload(services: list[Workers], number: int) -> tuple[list[float], list[float]]:
    """The pause of each reload, and the time from sending the request to having the answer; in milliseconds.

    Each is asked of the next host, which is the only one that has the edited file.
    """
    pauses, answers = [], []
    for turn in range(number):
        service = services[turn % len(services)]
        service.edit(edition=next(_editions))
        asked = monotonic()
        report = service.reload()
        answers.append((monotonic() - asked) * 1000)
        pauses.append(report["timings"]["pause_ms"])
    return pauses, answers


def _figure(number: int, pauses: list[float], answers: list[float], target: tuple[float, float] | None) -> Figure:
    median, rare = percentile(pauses, 0.5), percentile(pauses, 0.99)
    total = f"POST to the answer p50 {percentile(answers, 0.5):.1f} ms, p99 {percentile(answers, 0.99):.1f} ms"
    wanted = ""
    if target is not None:
        wanted = f"p50 ≤ {target[0]:g} ms" + (f", p99 ≤ {target[1]:g} ms" if target[1] < float("inf") else "")
    return Figure(
        f"pause of a reload, {number} hosts × {WORKERS} idle workers over Redis ({len(pauses)} reloads)",
        f"p50 {median:.2f} ms, p99 {rare:.2f} ms, longest {max(pauses):.2f} ms; {total}",
        wanted,
        None if target is None else median <= target[0] and rare <= target[1],
    )

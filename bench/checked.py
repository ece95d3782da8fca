"""The checker of the tests in a process of its own, so that it measures the server and not whoever drives it."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection

from example_app.load import Sample
from tests.checker import Checker, Verdict


@dataclass(frozen=True)
class Checked:
    """What the clients met, from their side."""

    verdict: Verdict
    samples: list[Sample]

    @property
    def waits(self) -> list[float]:
        """Seconds, counted from when each request was due."""
        return [sample.wait for sample in self.samples]


class CheckedLoad:
    """A context manager: ``rate`` requests a second, on ``clients`` connections, until :meth:`stop`.

    ``one_code`` and ``by``: see the checker.
    """

    def __init__(
        self, address: tuple[str, int], *, clients: int, rate: float, one_code: bool = True, by: str = "generation"
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_drive, args=(there, address, clients, rate, one_code, by))
        self._checked: Checked | None = None

    def __enter__(self) -> CheckedLoad:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> Checked:
        if self._checked is None:
            self._here.send("stop")
            self._checked = self._here.recv()
            self._process.join()
        return self._checked


def _drive(orders: Connection, address: tuple[str, int], clients: int, rate: float, one_code: bool, by: str) -> None:
    with Checker(address, clients=clients, rate=rate, timeout=30.0, one_code=one_code, by=by) as checker:
        orders.send("started")
        orders.recv()
    samples = [sample for sample in checker.samples() if sample.error is None]
    orders.send(Checked(checker.verdict(), samples))

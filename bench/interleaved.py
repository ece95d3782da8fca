"""Timing several sides of a comparison in turn, so that what disturbs the machine disturbs them all alike."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from time import perf_counter


def interleaved(
    sides: Mapping[str, Callable[[], object]], *, rounds: int, calls: int
) -> tuple[dict[str, float], Callable[[str, str], float]]:
    """Time each side ``calls`` times in a row, in random order, ``rounds`` times over.

    Return the median of each side in µs per call, and a function of two names: the median, over the rounds, of what
    the first took more than the second, in µs per call.
    """
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        _time(sides[name], calls * 10)  # the interpreter specialises what it has run a few times
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            times[name].append(_time(sides[name], calls))

    def added(name: str, base: str) -> float:
        return statistics.median(a - b for a, b in zip(times[name], times[base], strict=True))

    return {name: statistics.median(measured) for name, measured in times.items()}, added


def _time(function: Callable[[], object], calls: int) -> float:
    repeated = range(calls)
    start = perf_counter()
    for _ in repeated:
        function()
    return (perf_counter() - start) / calls * 1e6

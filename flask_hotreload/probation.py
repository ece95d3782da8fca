"""A probation: for how long after its commit a generation is watched, and how many errors are too many. Plain values.

What counts is said in :mod:`flask_hotreload.error_count`, who looks in :mod:`flask_hotreload.probation_watch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

#: Who asks for the rollback of a generation that is over its limit.
ACTOR = "probation"
#: How many kinds of errors a worker tells apart, and how many a report names.
KINDS = 20
NAMED = 10

_OTHERS = ("of other kinds", "")


@dataclass(frozen=True)
class Probation:
    """``seconds`` after the commit, over all workers. At least one of the limits is given.

    ``max_errors``
        As many are allowed: one more is over the limit.
    ``error_ratio``, ``min_requests``
        Errors for each request that are allowed, once so many requests have begun.
    """

    seconds: float
    max_errors: int | None = None
    error_ratio: float | None = None
    min_requests: int | None = None

    def has_too_many(self, errors: int) -> bool:
        return self.max_errors is not None and errors > self.max_errors

    def has_too_large_a_share(self, errors: int, requests: int) -> bool:
        """``requests``: at least those in which the errors were."""
        if self.error_ratio is None or requests < (self.min_requests or 0):
            return False
        return errors > self.error_ratio * requests

    def to_dict(self) -> dict[str, Any]:
        """As the reload document says it."""
        written = {"seconds": self.seconds, "maxErrors": self.max_errors, "errorRatio": self.error_ratio}
        written["minRequests"] = self.min_requests
        return {key: value for key, value in written.items() if value is not None}

    def __str__(self) -> str:
        limits = []
        if self.max_errors is not None:
            limits.append(f"maxErrors {self.max_errors}")
        if self.error_ratio is not None:
            limits.append(f"errorRatio {self.error_ratio:g} from {self.min_requests} requests on")
        return f"{self.seconds:g} s, {', '.join(limits)}"


class ErrorKind(msgspec.Struct, frozen=True):
    """Errors of one type, a class's name or ``HTTP 503``, from one place: ``file:line``, or a route."""

    type: str
    place: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} × {self.type}" + (f" at {self.place}" if self.place else "")


class Tally(msgspec.Struct, frozen=True):
    """What one worker, or all of them, have counted for a generation.

    ``until``: when its probation ends, on the clock that the workers share.
    """

    generation: int
    until: float
    requests: int = 0
    errors: int = 0
    kinds: tuple[ErrorKind, ...] = ()


def together(own: Tally, others: Iterable[Tally]) -> Tally:
    """The sums, the commonest kinds first, and the latest end."""
    tallies = [own, *others]
    return Tally(
        own.generation,
        max(tally.until for tally in tallies),
        sum(tally.requests for tally in tallies),
        sum(tally.errors for tally in tallies),
        kinds_of(Counter({}), *(tally.kinds for tally in tallies)),
    )


def kinds_of(counted: Counter[tuple[str, str]], *more: Iterable[ErrorKind]) -> tuple[ErrorKind, ...]:
    """As kinds, the commonest first; beyond :data:`KINDS` they are not told apart."""
    every = counted.copy()
    for kinds in more:
        for kind in kinds:
            every[kind.type, kind.place] += kind.count
    others = every.pop(_OTHERS, 0)
    common = every.most_common()
    others += sum(count for _, count in common[KINDS:])
    kinds = [ErrorKind(*place, count) for place, count in common[:KINDS]]
    return (*kinds, *([ErrorKind(*_OTHERS, others)] if others else []))


def reason_of(probation: Probation, tally: Tally) -> tuple[str, ...]:
    """Why a generation is rolled back: a line of sums, and one for each kind of error."""
    left = sum(kind.count for kind in tally.kinds[NAMED:])
    return (
        f"generation {tally.generation} was on probation ({probation}) and over its limit: {tally.errors} errors in "
        f"{tally.requests} requests, over all workers",
        *map(str, tally.kinds[:NAMED]),
        *([f"{left} of other kinds"] if left else []),
    )

"""Exchange rates: the functions that clients call at ``/api``.

The type hints are the interface. Parameters arrive converted and checked, so ``amount`` is a ``Decimal`` in
here, and a call with ``"amount": "ten"`` is answered with error -32602 before the function is entered. Money
travels as JSON strings ("12.50"), because a JSON number would lose cents in many clients.

Nothing in this module has a state worth keeping: a reload may simply replace it.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from flask_hotreload import JSONRPCError

CENT = Decimal("0.01")


def _read_rates(path: Path) -> dict[str, Decimal]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["currency"]: Decimal(row["per_euro"]) for row in csv.DictReader(file)}


PER_EURO = _read_rates(Path(__file__).with_name("rates.csv"))


@dataclass(frozen=True)
class Quote:
    """One unit of ``base`` buys ``rate`` units of ``target``."""

    base: str
    target: str
    rate: Decimal


def _cross_rate(base: str, target: str) -> Decimal:
    try:
        return PER_EURO[target] / PER_EURO[base]
    except KeyError as unknown:
        # The client reads this as {"code": 1, "message": …}; any other exception would be a bare -32603.
        raise JSONRPCError(1, "Unknown currency", {"currency": unknown.args[0]}) from None


def currencies() -> list[str]:
    """The codes that the other functions accept."""
    return sorted(PER_EURO)


def quote(base: str, target: str) -> Quote:
    """The rate of today, to six places."""
    return Quote(base, target, _cross_rate(base, target).quantize(Decimal("0.000001")))


def convert(amount: Decimal, base: str, target: str) -> Decimal:
    """What ``amount`` of ``base`` buys in ``target``, to the cent."""
    return (amount * _cross_rate(base, target)).quantize(CENT)


def interbank(amount: Decimal, base: str, target: str, seconds: float = 1.0) -> Decimal:
    """Like ``convert``, from a counterpart that takes its time. A reload waits for it, up to a time-out."""
    time.sleep(min(seconds, 10.0))
    return convert(amount, base, target)

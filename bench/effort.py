"""How much is measured: enough for a figure that can be trusted, or just enough to see that everything runs."""

from __future__ import annotations

import os
from typing import TypeVar

Amount = TypeVar("Amount", int, float)

VARIABLE = "BENCH_QUICK"


def quick() -> bool:
    return bool(os.environ.get(VARIABLE))


def amount(full: Amount, *, quick_run: Amount) -> Amount:
    """How many rounds, seconds or samples this run takes."""
    return quick_run if quick() else full

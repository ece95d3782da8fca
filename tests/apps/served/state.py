from __future__ import annotations

from itertools import count as counting

_numbers = counting(1)


def count() -> int:
    """How often it has been called."""
    return next(_numbers)

from __future__ import annotations

from typing import TypeVar

F = TypeVar("F")


def propagate(function: F) -> F:
    return function

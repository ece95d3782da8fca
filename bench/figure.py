"""What a benchmark reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``met`` is ``None`` where there is no target and the figure is only shown."""

    name: str
    value: str
    target: str
    met: bool | None

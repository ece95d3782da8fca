"""What runs in the fresh process that each module of figures is measured in."""

from __future__ import annotations

import importlib

from bench.figure import Figure


def measured(name: str) -> list[Figure]:
    """What ``bench.name`` measures."""
    figures: list[Figure] = importlib.import_module(f"bench.{name}").measure()
    return figures

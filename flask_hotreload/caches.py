"""Caches of the standard library that would go on holding what belongs to generations that are gone."""

from __future__ import annotations

import linecache
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_hotreload.sources import Snapshot


def forget_lines(gone: Snapshot, staying: Iterable[Snapshot]) -> None:
    """Let go of the lines of files that only ``gone`` has: those of a release in a folder of its own."""
    lines = {source.path for source in gone.sources.values()}
    for snapshot in staying:
        lines.difference_update(source.path for source in snapshot.sources.values())
    for file in lines:
        linecache.cache.pop(file, None)


def forget_types() -> None:
    """Let go of the classes in hints such as ``Optional[Item]``, each of which holds all of its generation.

    What is cleared are memories of what such an expression gave; it gives an equal object the next time.
    """
    for clear in getattr(typing, "_cleanups", ()):  # as CPython's own tests do when they look for leaks
        clear()

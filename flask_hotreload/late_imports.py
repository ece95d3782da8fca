"""What the live code is the first to import, after a reload of the whole source, comes from the same sources.

The disk may be ahead of what runs, or half-way through a deployment; a module that a function imports at its first
call must belong to the generation that calls it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from flask_hotreload.finder import OwnFinder, ProjectFinder
from flask_hotreload.interpreter import current
from flask_hotreload.sources import Snapshot


class LateImports(OwnFinder):
    """A finder for project modules, first on ``sys.meta_path`` while it serves a snapshot."""

    def __init__(self, keep: Collection[str]) -> None:
        self._keep = keep
        self._finder: ProjectFinder | None = None

    def serve(self, snapshot: Snapshot | None) -> None:
        """From now on find project modules in ``snapshot``; ``None``: on disk, as always."""
        self._finder = None if snapshot is None else ProjectFinder(snapshot, self._keep)
        if snapshot is not None and self not in sys.meta_path:
            sys.meta_path = [self, *sys.meta_path]
        elif snapshot is None:
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As a finder on ``sys.meta_path``. Raise ``ModuleNotFoundError`` for what is on disk only."""
        finder = self._finder
        if finder is None or current() is not None:  # a world asks for itself
            return None
        spec = finder.find_spec(name, path)
        if spec is None:
            finder.refuse_unread(name, path)
        return spec

"""Whose the live modules are, found out once while they stay the same: there are many, and most are others'."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from itertools import repeat
from operator import is_
from types import ModuleType
from typing import TYPE_CHECKING

from flask_hotreload.interpreter import interpreter

if TYPE_CHECKING:
    from flask_hotreload.overlay import Finder


class Inventory:
    """Of ``live``, modules by name, as ``finder`` tells them apart.

    ``names``
        All of them, in the order of ``live``.
    ``owned``
        The names of the project's modules.
    ``unsure``
        Those of which only their packages can tell.
    """

    def __init__(self, live: Mapping[str, ModuleType], finder: Finder) -> None:
        self._edition = finder.edition  # before anything is asked: what changes meanwhile makes this one obsolete
        foreign = finder.foreign
        verdicts = {name: _verdict(module, finder) for name, module in live.items() if id(module) not in foreign}
        self.names = list(live)
        self.owned = {name for name, verdict in verdicts.items() if verdict}
        self.unsure = {name for name, verdict in verdicts.items() if verdict is None}
        self._modules = [_referred(module) for module in live.values()]
        self._blocked = sum(module is None for module in live.values())  # imports that somebody has blocked

    def is_of(self, live: Mapping[str, ModuleType], finder: Finder) -> bool:
        """Whether it would be the same if it was made anew."""
        if finder.edition != self._edition or list(live) != self.names:
            return False
        modules = [module() for module in self._modules]
        nothing_has_gone = sum(map(is_, modules, repeat(None))) == self._blocked
        return nothing_has_gone and all(map(is_, live.values(), modules))


def inventory(finder: Finder) -> Inventory:
    """Of what is live now."""
    global _known  # noqa: PLW0603  # one interpreter has one sys.modules
    live = interpreter.live.copy()
    known = _known
    if known is None or not known.is_of(live, finder):
        known = _known = Inventory(live, finder)
    return known


_known: Inventory | None = None


def _referred(module: object) -> Callable[[], object]:
    """Nobody is to hold a module that goes. What some put in a module's place may have to be held, and is not."""
    try:
        return weakref.ref(module)
    except TypeError:
        return object if module is not None else _nothing


def _nothing() -> None:
    pass


def _verdict(module: ModuleType | None, finder: Finder) -> bool | None:
    return None if module is None else finder.owns(module)

"""The generations that stay in memory for rollbacks, and that the others go.

A module and what it defines refer to each other, so the modules of a generation that nobody needs any more go when
the garbage is collected. In a service that has little to do besides, that may take long, and each reload of a large
project leaves megabytes. So when several applications are only waiting for it, it is collected, in a while.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from flask_hotreload.caches import forget_lines, forget_types
from flask_hotreload.collecting import collect_later
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.generation import Generation, Kept, worth_keeping
from flask_hotreload.host import Given

#: How many applications may wait for the garbage collector before it is called, and before it is called at once.
WAITING, TOO_MANY = 3, 6


class Keeping:
    """``last``: how many; ``first`` is the generation that is served now."""

    def __init__(self, first: Generation, last: int) -> None:
        self._last = last
        self._kept: dict[int, Kept] = {}
        self._parents: dict[int, int | None] = {first.number: first.parent}
        self._waiting: list[weakref.ref[object]] = []  # applications of generations that are not kept
        self._gone: list[Kept] | None = None  # what goes, as soon as there is time for it

    @property
    def generations(self) -> Mapping[int, Kept]:
        return MappingProxyType(self._kept)

    def followed(self, old: Kept, new: Generation) -> None:
        """``new`` is served instead of ``old``: what is not worth keeping any more goes with :meth:`collect`."""
        self._parents[new.number] = new.parent
        self._kept[old.number] = old
        kept = worth_keeping(new.number, self._parents, self._last)
        gone = [each for number, each in self._kept.items() if number not in kept]
        self._kept = {number: each for number, each in self._kept.items() if number in kept}
        self._gone = [*(self._gone or ()), *gone]
        self._parents = {number: parent for number, parent in self._parents.items() if number in {*kept, new.number}}

    def collect(self, current: Generation) -> None:
        """Let go of what goes, while nobody is held. If too much of it waits for that, have the garbage collected."""
        if self._gone is not None:
            self._let_go(self._gone, current)
            self._gone = None
        needed = {id(current.mount), *(id(each.mount) for each in self._kept.values())}
        left = {id(mount): mount for each in self._waiting if (mount := each()) is not None}
        waiting = [mount for identity, mount in left.items() if identity not in needed]
        self._waiting = [weakref.ref(mount) for mount in waiting]
        if len(waiting) > WAITING:
            collect_later(urgent=len(waiting) > TOO_MANY)

    def _let_go(self, gone: Sequence[Kept], current: Generation) -> None:
        staying = [current.recipe.snapshot, *(each.recipe.snapshot for each in self._kept.values())]
        for each in gone:
            forget_lines(each.recipe.snapshot, staying)
        if gone:
            forget_types()
        self._waiting += [weakref.ref(each.mount) for each in gone if each.made_by_reload]

    def begin_anew(self, current: Generation) -> None:
        """Others have made ``current``: what led here were not the generations that have those numbers elsewhere."""
        self._kept = {}
        self._parents = {current.number: current.parent}

    def given(self, number: int, current: Generation) -> Given:
        """What a rollback to ``number`` starts from. Raise :class:`ReloadInvalid` if it is not kept."""
        kept = self._kept.get(number)
        if kept is None:
            there = ", ".join(map(str, sorted(self._kept))) or "none"
            what = "is the one that is served" if number == current.number else "is not kept"
            raise ReloadInvalid(
                f"generation {number} {what}; kept are: {there} (HOTRELOAD_KEEP_GENERATIONS says how many)"
            )
        return Given(recipe=kept.recipe, kept=kept, parent=kept.parent, label=kept.label)

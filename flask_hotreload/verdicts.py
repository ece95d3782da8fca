"""Whose a loaded module is, remembered while it is loaded: to find out asks the disk about each of its folders."""

from __future__ import annotations

import weakref
from types import ModuleType


class Verdicts:
    """By module, not by name: what another world has under the same name may be another's. Any thread may ask."""

    def __init__(self) -> None:
        # By identity, since what stands in sys.modules may compare and hash as it likes. A module's entry goes with
        # the module, before its identity can become another's.
        self._known: dict[int, tuple[weakref.ref[ModuleType], bool]] = {}
        #: The identities of those that are not the project's.
        self.foreign: set[int] = set()
        #: Another one as soon as verdicts may be others.
        self.edition = object()

    def get(self, module: ModuleType) -> bool | None:
        """``None``: nobody has found out yet."""
        known = self._known.get(id(module))
        return known[1] if known is not None and known[0]() is module else None

    def remember(self, module: ModuleType, verdict: bool) -> None:
        identity, known, foreign = id(module), self._known, self.foreign

        def forget(gone: weakref.ref[ModuleType]) -> None:
            if known.get(identity, (None,))[0] is gone:
                foreign.discard(identity)
                del known[identity]

        # In this order, and the other way in clear(), so that nothing is foreign that is not known.
        (foreign.discard if verdict else foreign.add)(identity)
        known[identity] = weakref.ref(module, forget), verdict

    def clear(self) -> None:
        self._known.clear()
        self.foreign.clear()
        self.edition = object()  # last: what is found out under it is not from before

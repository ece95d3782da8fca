"""What was registered on an extension object, as far as it has to be registered again.

An extension object may live in a module that no reload imports anew (``HOTRELOAD_KEEP``, or a third-party one) and be
given to each generation's application. Then what that module has registered while it was imported is registered by
nobody a second time, and is served by every generation; what new code registers belongs to its own transaction.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

Register = Callable[[], object]
#: Whether no reload executes the module of that name again.
Lasts = Callable[[str], bool]


class Registrations:
    """Those of one extension object, in their order, each with the module that was being imported."""

    def __init__(self) -> None:
        self._made: list[tuple[str | None, Register]] = []

    def add(self, register: Register) -> None:
        """Remember it until :meth:`forget`."""
        self._made.append((importing(), register))

    def all(self) -> list[Register]:
        return [register for _, register in self._made]

    def lasting(self, lasts: Lasts) -> list[Register]:
        """Those that every generation serves."""
        return [register for module, register in self._made if module is not None and lasts(module)]

    def forget(self, lasts: Lasts) -> None:
        """Let go of all that is not lasting: who made them will do so again."""
        self._made = [(module, register) for module, register in self._made if module is not None and lasts(module)]


def importing() -> str | None:
    """The name of the module whose body the calling thread runs just now; ``None``: there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return frame.f_globals.get("__name__")
        frame = frame.f_back
    return None

"""What an import statement in a circle is given in place of a module.

A submodule is bound on its package when its body has ended, not before. A statement that asks for it earlier, ``from
pkg import b`` or ``import pkg.b as x`` in something that ``pkg.b`` imports, misses it on the package, and the
interpreter falls back to the modules that are loaded: in C, so to the live ones, whatever world the statement is in.
It is therefore given an object that falls back in the same way to the modules of its world. The package itself is
as it is in any other process: its ``__dict__``, ``hasattr`` and ``from pkg import *`` show nothing too early.
"""

from __future__ import annotations

import opcode
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, ModuleType
from typing import Any, cast

_IMPORT_NAME, _IMPORT_FROM, _EXTENDED_ARG = (
    opcode.opmap[name] for name in ("IMPORT_NAME", "IMPORT_FROM", "EXTENDED_ARG")
)


def takes_names(namespace: Mapping[str, Any] | None) -> bool:
    """Whether the import that is being executed is a statement that takes names from what ``__import__`` returns.

    Not so for ``import a.b`` and ``from a import *``, which need the module itself, as a call of ``__import__`` does.
    ``namespace`` is the globals of the statement.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals is not namespace:
        frame = frame.f_back  # import hooks of others may lie between
    if frame is None:
        return False
    code, at = frame.f_code.co_code, _skipped(frame.f_code.co_code, frame.f_lasti)
    return code[at] == _IMPORT_NAME and code[_skipped(code, at + 2)] == _IMPORT_FROM


def _skipped(code: bytes, at: int) -> int:
    while code[at] == _EXTENDED_ARG:
        at += 2
    return at


def stand_in(module: ModuleType, modules: Mapping[str, ModuleType], further: Sequence[str] = ()) -> ModuleType:
    """What shows the attributes of ``module``, and what is missing there as far as ``modules`` has it as a submodule.

    ``further``
        The names that will be looked up one below the other in what the first look-up finds: ``("c",)`` for the ``a``
        of ``import a.b.c as x``.
    """

    def find(name: str) -> object:
        try:
            found = getattr(module, name)
        except AttributeError:
            full = f"{getattr(module, '__name__', '')}.{name}"
            if full not in modules:
                raise
            found = modules[full]
        return stand_in(found, modules, further[1:]) if further else found

    return cast("ModuleType", _StandIn(find))


class _StandIn:
    __slots__ = ("_find",)

    def __init__(self, find: Callable[[str], object]) -> None:
        self._find = find

    def __getattribute__(self, name: str) -> object:
        return object.__getattribute__(self, "_find")(name)

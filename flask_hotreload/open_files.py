"""The files and sockets that modules hold open.

What a request opens at the same time is not counted: only what can be reached from the modules' own globals is,
through their objects, containers, classes and closures. So a descriptor that nothing in Python refers to is not
found, and of what lies very deep not all may be.
"""

from __future__ import annotations

import gc
import io
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, GeneratorType, ModuleType
from typing import Any, NamedTuple

#: How many objects are looked at: some ten milliseconds' worth, while requests flow.
MOST = 10_000

_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper, socket.socket)
_NOTHING_IN_THEM = (str, bytes, int, float, complex, type(None), BuiltinFunctionType)
_LEAD_ELSEWHERE = (ModuleType, CodeType, FrameType, GeneratorType)
_SKIPPED = (*_NOTHING_IN_THEM, *_LEAD_ELSEWHERE)


class Descriptor(NamedTuple):
    """``target``: what the kernel says it leads to: a path, or the number of a socket."""

    number: int
    target: str

    def __str__(self) -> str:
        kind, _, _ = self.target.partition(":[")
        return f"a {kind}" if kind != self.target else self.target


def open_now() -> set[Descriptor]:
    """Every descriptor of this process; empty where the kernel does not tell."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return set()
    return {found for number in numbers if (found := _descriptor(int(number))) is not None}


def held_open(modules: Mapping[str, ModuleType]) -> Iterator[tuple[str, Descriptor]]:
    """Each once, with the name of the module in which it was found first."""
    found: set[Descriptor] = set()
    for name, file in _files_of(modules):
        try:
            descriptor = _descriptor(file.fileno())
        except (OSError, ValueError):  # it is closed, or has none
            continue
        if descriptor is not None and descriptor not in found:
            found.add(descriptor)
            yield name, descriptor


def _files_of(modules: Mapping[str, ModuleType]) -> Iterator[tuple[str, Any]]:
    """What lies near the globals first, so that a module with much in it leaves enough for the others."""
    ahead = deque((name, value) for name, module in modules.items() for value in list(vars(module).values()))
    seen: set[int] = set()
    while ahead and len(seen) < MOST:
        name, value = ahead.popleft()
        if isinstance(value, _SKIPPED) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _FILES):
            yield name, value
        else:
            room = max(0, MOST - len(ahead))
            ahead.extend((name, part) for part in islice(_parts_of(value, modules), room))


def _parts_of(value: object, modules: Mapping[str, ModuleType]) -> list[Any]:
    """What belongs to ``value``; nothing of what other modules define."""
    if isinstance(value, FunctionType):
        return [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
    if isinstance(value, type):
        return list(vars(value).values()) if value.__module__ in modules else []
    if type(value).__module__.partition(".")[0] == "flask_hotreload":
        return []  # a handle on the service leads everywhere
    return gc.get_referents(value)


def _descriptor(number: int) -> Descriptor | None:
    try:
        return Descriptor(number, os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        return None

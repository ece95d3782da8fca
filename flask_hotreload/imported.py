"""Which project modules this process has imported, and the bytes that each of them was made from.

The interpreter does not keep what it has read. But a file that was not changed since before its import began holds
the same bytes now, and the kernel notes each change of a file, also that it has got another name (``st_ctime``).
Nothing but the interpreter's own import from a source file counts: what another loader has made of a file is not told
by the file.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from flask_hotreload.errors import LoadError
from flask_hotreload.interpreter import interpreter
from flask_hotreload.sources import Snapshot

if TYPE_CHECKING:
    from flask_hotreload.sources import Place, ResolvedRoots, Source

#: A change within this time before an import may be noted as earlier than the import, or as later. Nanoseconds.
GRANULARITY = 10_000_000


@dataclass(frozen=True)
class Module:
    """``shown``: the file as the module shows it, absolute. ``place``: where that lies below the roots."""

    shown: str
    place: Place
    source: Source


@dataclass(frozen=True)
class Imported:
    """By name: ``modules``; ``namespaces``, packages without a file, with their folders.

    ``unsure``
        Names of modules whose files have been changed or removed since their import began.
    """

    modules: dict[str, Module]
    namespaces: dict[str, tuple[str, ...]]
    unsure: tuple[str, ...]


def imported(roots: ResolvedRoots, since: Callable[[str], int], *, without: Collection[str] = ()) -> Imported:
    """What is live now, ``without`` some names.

    ``since(name)``: a moment before the import of ``name`` began, in ns since 1970.
    """
    snapshot, links = Snapshot(roots), _Links()
    found = Imported({}, {}, ())
    unsure = []
    for name, module in sorted(interpreter.live.copy().items()):
        spec = _spec(module)
        if spec is None or getattr(spec, "name", None) != name or name in without:
            continue
        folders = _namespace(spec)
        if folders and all(roots.place(folder) is not None for folder in folders):
            found.namespaces[name] = folders
        shown = file_of(module)
        place = None if shown is None else roots.place(shown)
        if shown is None or place is None:
            continue
        source = _read(snapshot, shown, links, since(name) - GRANULARITY)
        if source is None:
            unsure.append(name)
        else:
            found.modules[name] = Module(shown, place, source)
    return Imported(found.modules, found.namespaces, tuple(unsure))


def file_of(module: object) -> str | None:
    """The absolute path of the source that the interpreter has imported a module from by itself."""
    spec = _spec(module)
    if type(getattr(spec, "loader", None)) is not SourceFileLoader:
        return None
    origin = getattr(spec, "origin", None)
    return os.path.abspath(origin) if isinstance(origin, str) and origin.endswith(".py") else None


def process_began() -> int:
    """When this process was forked, in ns since 1970; 0 where that cannot be known, so that nothing is sure."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): field 22
        booted = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return 0
    return booted + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _spec(module: object) -> object:
    """The spec, without waking a module that is loaded lazily."""
    if not isinstance(module, ModuleType):
        return None
    namespace = ModuleType.__getattribute__(module, "__dict__")
    return namespace.get("__spec__")


def _namespace(spec: object) -> tuple[str, ...]:
    if getattr(spec, "origin", None) is not None:
        return ()
    folders = getattr(spec, "submodule_search_locations", None)
    return () if folders is None else tuple(str(folder) for folder in folders)


def _read(snapshot: Snapshot, shown: str, links: _Links, before: int) -> Source | None:
    """The source, if neither the file nor a link on the way to it was changed after ``before``."""
    real = snapshot.roots.real_path(shown)
    try:
        source = snapshot.read(real, shown=shown)
        changed = max(os.stat(real).st_ctime_ns, links.newest(shown))  # after it was read
    except (LoadError, OSError):
        return None
    return source if changed < before else None


class _Links:
    """When the links on the way to a file were made."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def newest(self, path: str) -> int:
        """Of all links on the way, also those that links lead to; 0: there is none."""
        known = self._newest.get(path)
        if known is None:
            self._newest[path] = 0  # links may form a circle
            parent = os.path.dirname(path)
            known = 0 if parent == path else self.newest(parent)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                target = os.path.normpath(os.path.join(parent, os.readlink(path)))
                known = max(known, status.st_ctime_ns, self.newest(target))
            self._newest[path] = known
        return known

"""Finds the project's modules: which names and files are the project's, under which name a file is imported, and its
source in the snapshot.
"""

from __future__ import annotations

import hashlib
import keyword
import os
import re
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING

from flask_hotreload.errors import LoadError
from flask_hotreload.interpreter import Interpreter, interpreter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence, Set
    from types import CodeType

    from flask_hotreload.sources import Place, Snapshot, Source

_EXCLUSIVE = "__only_"

# Compiled modules have no source: all worlds share them. In the order of the interpreter's own finder.
_SHARED_SUFFIXES = (*EXTENSION_SUFFIXES, *BYTECODE_SUFFIXES)
_SUFFIXES = (*EXTENSION_SUFFIXES, ".py", *BYTECODE_SUFFIXES)


class SnapshotLoader(SourceFileLoader):
    """Executes one source of a snapshot. Data files beside it come from the disk; bytecode files are not touched."""

    def __init__(self, name: str, path: str, real: str, snapshot: Snapshot) -> None:
        super().__init__(name, path)
        self._real = real
        self._snapshot: Snapshot | None = snapshot
        self._source: Source | None = None

    def source(self) -> Source:
        """What the module is made from.

        :raises LoadError: missing, or it can't be read.
        """
        snapshot = self._snapshot
        if snapshot is not None:
            self._source = snapshot.read(self._real, shown=self.path)
            self._snapshot = None  # a module keeps its own source alive, not those of all others
        assert self._source is not None
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        """Raises what importing the file would raise: ``SyntaxError``, ``OSError``."""
        try:
            return self.source().code()
        except LoadError as error:
            raise error.original or error from None

    def get_data(self, path: str) -> bytes:
        return self.source().data if path == self.path else super().get_data(path)


class OwnFinder:
    """A finder of this package on ``sys.meta_path``: not to be asked by another one."""


class ProjectFinder:
    """The project's modules, in one snapshot.

    ``keep``
        Names of project modules that are shared by all worlds as third-party ones are, with all below them.
    """

    def __init__(self, snapshot: Snapshot, keep: Collection[str] = ()) -> None:
        self.targets: dict[str, str] = {}
        self._snapshot = snapshot
        self._roots = snapshot.roots
        self._keep = tuple(keep)
        self._loaded: dict[str, list[tuple[str, str]]] | None = None
        self._listings: dict[str, frozenset[str]] = {}

    # -- whose a module is

    def owns(self, module: ModuleType) -> bool | None:
        """As :class:`~flask_hotreload.overlay.Finder` says."""
        spec = _attribute(module, "__spec__")
        name = getattr(spec, "name", None) or _attribute(module, "__name__")
        if name == "__main__" or _attribute(module, "__name__") == "__main__" or self.is_kept(name):
            return False
        known = self._roots.verdicts.get(module)
        if known is None:
            known = self._lies_here(module, spec)
            if known is not None and isinstance(module, ModuleType):
                self._roots.verdicts.remember(module, known)
        return known

    @property
    def foreign(self) -> Set[int]:
        """As :class:`~flask_hotreload.overlay.Finder` says."""
        return self._roots.verdicts.foreign

    @property
    def edition(self) -> object:
        """As :class:`~flask_hotreload.overlay.Finder` says."""
        return self._roots.verdicts.edition, self._keep

    def _lies_here(self, module: ModuleType, spec: object) -> bool | None:
        file = _file(module)
        if file is not None:
            return not file.endswith(_SHARED_SUFFIXES) and self._roots.place(file) is not None
        folders = _texts(_attribute(module, "__path__"))
        if folders:
            return all(self._roots.place(folder) is not None for folder in folders)
        return False if getattr(spec, "origin", None) in ("built-in", "frozen") else None

    def is_project(self, file: str) -> bool:
        """Whether a file is Python source of the project."""
        return file.endswith(".py") and self._roots.place(file) is not None

    def is_kept(self, name: object) -> bool:
        return isinstance(name, str) and is_kept(name, self._keep)

    # -- where a module is

    def find_spec(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """As :class:`~flask_hotreload.overlay.Finder` says. ``path`` is the package's ``__path__``."""
        target = self.targets.get(name)
        if target is not None:
            return self.spec(name, target, self.shown(target))
        if self.is_kept(name):
            return None
        if path is not None:
            return self._find_along(name, _texts(path))[1]
        for finder in sys.meta_path:
            if finder is PathFinder:
                found, spec = self._find_along(name, sys.path.copy())
                if found:
                    return spec
            elif not isinstance(finder, (Interpreter, OwnFinder)) and hasattr(finder, "find_spec"):
                other = finder.find_spec(name, None)
                if other is not None:  # an editable install, or no module of the project
                    return self._ours(name, other)
        return None

    def refuse_unread(self, name: str, path: Sequence[str] | None) -> None:
        """As :class:`~flask_hotreload.overlay.Finder` says."""
        on_disk = None if self.is_kept(name) else PathFinder.find_spec(name, path)
        if on_disk is None:
            return
        if on_disk.origin is not None:
            places, is_read = [on_disk.origin], self._snapshot.has
            ours = self.is_project(on_disk.origin)
        else:
            places, is_read = _texts(on_disk.submodule_search_locations), self._snapshot.has_folder
            ours = all(self._roots.place(folder) is not None for folder in places)
        if places and ours and not any(is_read(self._roots.real_path(place)) for place in places):
            text = f"No module named {name!r}: {places[0]} is not part of what runs; reload the whole source"
            raise ModuleNotFoundError(text, name=name)

    def _ours(self, name: str, spec: ModuleSpec) -> ModuleSpec | None:
        if not spec.has_location or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        shown = self._roots.now(spec.origin)
        real = self._roots.real_path(shown)
        return self.spec(name, real, shown) if self._roots.contains(real) else None

    def _find_along(self, name: str, folders: Sequence[str]) -> tuple[bool, ModuleSpec | None]:
        """Whether a name is found in these folders, and the spec if what is found first is the project's."""
        tail = name.rpartition(".")[2]
        portions = []
        for entry in folders:
            folder = self._roots.now(os.path.abspath(entry or os.curdir))
            if not self._roots.concerns(folder):
                foreign = PathFinder.find_spec(name, [folder])
                if foreign is not None and foreign.loader is not None and foreign.origin is not None:
                    return True, None
                portions += [] if foreign is None else _texts(foreign.submodule_search_locations)
                continue
            base = os.path.join(folder, tail)
            found = self._first_file(folder, tail)
            if found is not None:
                candidate, real = found
                ours = candidate.endswith(".py") and self._roots.contains(real)
                return True, self.spec(name, real, candidate) if ours else None
            if self._snapshot.has_folder(self._roots.real_path(base)):
                portions.append(base)
        return bool(portions), self._namespace(name, portions)

    def _first_file(self, folder: str, tail: str) -> tuple[str, str] | None:
        """The file for a name in one folder, with its real path, in the order of the interpreter's own finder."""
        base = os.path.join(folder, tail)
        package = os.path.join(base, "__init__")
        listed = [*((package + suffix, tail) for suffix in _SUFFIXES), *((base + s, tail + s) for s in _SUFFIXES)]
        names = self._listed(folder)
        for candidates in ([file for file, name in listed if name in names], [file for file, _ in listed]):
            # The second round finds what was made since the folder was listed; nothing is missing that is there.
            for candidate in candidates:
                real = self._roots.real_path(candidate)
                if self._snapshot.has(real) if candidate.endswith(".py") else os.path.isfile(real):
                    return candidate, real
        return None

    def _listed(self, folder: str) -> frozenset[str]:
        names = self._listings.get(folder)
        if names is None:
            try:
                names = frozenset(os.listdir(folder))
            except OSError:
                names = frozenset()
            self._listings[folder] = names
        return names

    def _namespace(self, name: str, portions: list[str]) -> ModuleSpec | None:
        """A package without ``__init__.py``; the project's if every portion is."""
        if not portions or not all(self._roots.contains(self._roots.real_path(portion)) for portion in portions):
            return None
        parents = [os.path.dirname(portion) for portion in portions]
        for parent in parents:
            # A folder made a moment ago may have left its parent's time stamp as it was.
            finder = sys.path_importer_cache.get(parent)
            if isinstance(finder, FileFinder):
                finder.invalidate_caches()
        spec = PathFinder.find_spec(name, parents)
        if spec is None or spec.origin is not None:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = portions
        return spec

    def spec(self, name: str, real: str, shown: str) -> ModuleSpec:
        """The spec of a file under the roots, shown as ``shown``."""
        is_package = os.path.basename(shown) == "__init__.py"
        spec = spec_from_file_location(
            name,
            shown,
            loader=SnapshotLoader(name, shown, real, self._snapshot),
            submodule_search_locations=[os.path.dirname(shown)] if is_package else None,
        )
        assert spec is not None  # where a loader is given there always is one
        return spec

    # -- what a file is called

    def name_of(self, real: str, *, exclusive: str | None = None) -> str:
        """The name under which a file of the roots is staged.

        That of the live module made from it; else the name by which it can be imported; else, where it has none of
        its own, a private one: ``_hotreload_<stem>_<12 hexadecimal digits of the SHA-256 of its place under the
        roots>``, the same at each reload, and on every host as far as no other file of the process has it.

        ``exclusive``
            For a module of its own beside the one that others share: a text that tells who it is for. The name gets
            ``__only_`` and 12 digits of this text's SHA-256 added, and stays in its package.
        """
        place = self._roots.place(real)
        if place is None:
            raise ValueError(f"{real} lies outside the roots")
        name = self._live_name(place) or self._importable_name(real, place) or self._private_name(place)
        return name if exclusive is None else f"{name}{_EXCLUSIVE}{_digits(exclusive)}"

    def _private_name(self, place: Place) -> str:
        name = _private_name(place, self._roots.told(place))
        if name not in interpreter.live:
            return name
        # Another application of this process has it, whose roots are other folders.
        return _private_name(place, f"{place.root}:{place.relative}")

    def _loaded_at(self, place: Place) -> Iterator[tuple[str, str]]:
        """Names and files, as shown, of the live modules made from a file."""
        if self._loaded is None:
            self._loaded = {}
            for name, module in interpreter.live.copy().items():
                file = _file(module)
                if file is not None and name != "__main__" and _attribute(module, "__name__") in (name, "__main__"):
                    self._loaded.setdefault(os.path.basename(file), []).append((name, file))
        for name, file in self._loaded.get(os.path.basename(place.relative), ()):
            if self._roots.place(file) == place:
                yield name, file

    def _live_name(self, place: Place) -> str | None:
        names = [name for name, _ in self._loaded_at(place) if _EXCLUSIVE not in name]
        if names:
            return min(names, key=lambda name: (name.startswith("_hotreload_"), len(name), name))
        main = _attribute(interpreter.live.get("__main__"), "__spec__")  # python -m package.module
        name = getattr(main, "name", None)
        file = getattr(main, "origin", None)
        if isinstance(name, str) and isinstance(file, str) and self._roots.place(file) == place:
            return name
        return None

    def _importable_name(self, real: str, place: Place) -> str | None:
        for name in self._candidates(real):
            head = name.partition(".")[0]
            if head in sys.stdlib_module_names or not all(map(_is_name, name.split("."))):
                continue
            taken = interpreter.live.get(name)
            if taken is None and self._leads_to(name, place):
                return name
        return None

    def _candidates(self, real: str) -> list[str]:
        """Names that the file may have: by its packages, then by the folders of ``sys.path`` above it."""
        folder, base = os.path.split(real)
        last = [] if base == "__init__.py" else [os.path.splitext(base)[0]]
        parts = last.copy()
        top = folder
        while self._snapshot.has(os.path.join(top, "__init__.py")):
            parts.insert(0, os.path.basename(top))
            top = os.path.dirname(top)
        names = [".".join(parts)]
        for entry in sys.path:
            above = os.path.realpath(self._roots.now(os.path.abspath(entry or os.curdir)))
            if folder == above or folder.startswith(above.rstrip(os.sep) + os.sep):
                below = os.path.relpath(folder, above)
                names.append(".".join([*([] if below == os.curdir else below.split(os.sep)), *last]))
        return [name for name in dict.fromkeys(names) if name]

    def _leads_to(self, name: str, place: Place) -> bool:
        """Whether importing the name would load the file; nothing is imported to find out."""
        path: list[str] | None = None
        known = ""
        for part in name.split("."):
            known = f"{known}.{part}" if known else part
            live = interpreter.live.get(known)
            if live is not None and known != name:
                path = _texts(_attribute(live, "__path__"))
                continue
            spec = self.find_spec(known, path)
            if spec is None:
                return False
            if known == name:
                return spec.origin is not None and self._roots.place(spec.origin) == place
            path = _texts(spec.submodule_search_locations)
        return False

    def shown(self, real: str) -> str:
        """The file as the live module made from it shows it, for tracebacks as before; else the real path."""
        place = self._roots.place(real)
        if place is not None:
            for _, file in self._loaded_at(place):
                if os.path.isabs(file) and self._roots.real_path(file) == real:
                    return file
        return real


def is_kept(name: str, keep: Collection[str]) -> bool:
    """Whether ``keep`` names the module, or a package above it."""
    return any(name == kept or name.startswith(f"{kept}.") for kept in keep)


def _attribute(module: object, name: str) -> object:
    """An attribute of a module, without waking one that is loaded lazily."""
    if isinstance(module, ModuleType):
        namespace = ModuleType.__getattribute__(module, "__dict__")
        return namespace.get(name)
    return None


def _file(module: ModuleType) -> str | None:
    spec = _attribute(module, "__spec__")
    file = getattr(spec, "origin", None) if getattr(spec, "has_location", False) else _attribute(module, "__file__")
    return file if isinstance(file, str) else None


def _texts(path: object) -> list[str]:
    # That of a namespace package looks at its parent in sys.modules, which is another one in each world; what it has
    # found when the package was loaded it knows by itself.
    path = getattr(path, "_path", path)
    try:
        return [entry for entry in path if isinstance(entry, str)]  # type: ignore[attr-defined]  # refused just below
    except TypeError:
        return []


def _is_name(part: str) -> bool:
    return part.isidentifier() and not keyword.iskeyword(part)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _private_name(place: Place, told: str) -> str:
    stem = os.path.splitext(os.path.basename(place.relative))[0]
    return f"_hotreload_{re.sub(r'[^0-9A-Za-z]+', '_', stem)}_{_digits(told)}"

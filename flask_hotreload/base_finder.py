"""Imports modules from given sources instead of what lies on the disk by now."""

from __future__ import annotations

import linecache
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

from flask_hotreload.errors import LoadError
from flask_hotreload.sources import Source


class BaseLoader(SourceFileLoader):
    """Executes one source. A bytecode file is used only if the file on disk holds the same bytes."""

    def __init__(self, name: str, source: Source) -> None:
        super().__init__(name, source.path)
        self._source: Source | None = source
        self._stats: Mapping[str, float] | None = None

    def get_code(self, fullname: str) -> CodeType | None:
        """Raises what importing the file would raise: ``SyntaxError``."""
        source = self._source
        if source is None:
            return super().get_code(fullname)
        self._stats = _stats_of_same(source)
        if self._stats is not None:
            code = super().get_code(fullname)  # as always: the bytes, and their time stamp, are these
            self._source = None  # the disk has it
            return code
        try:
            code = source.code()
        except LoadError as error:
            raise error.original or error from None
        # Tracebacks show what runs. Without a time stamp an entry counts as not being from the disk, and stays.
        linecache.cache[source.path] = len(source.data), None, source.lines, source.path
        return code

    def path_stats(self, path: str) -> Mapping[str, float]:
        return super().path_stats(path) if self._stats is None else self._stats

    def get_data(self, path: str) -> bytes:
        return self._source.data if self._source is not None and path == self.path else super().get_data(path)


class BaseFinder:
    """First on ``sys.meta_path`` between :meth:`install` and :meth:`remove`.

    ``asked``
        Name → when it was first looked for, in ns since 1970; for every name, whoever finds it.
    """

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self._sources: Mapping[str, Source] = {}
        self._namespaces: Mapping[str, Sequence[str]] = {}

    def install(self, sources: Mapping[str, Source], namespaces: Mapping[str, Sequence[str]]) -> None:
        """Serve ``sources`` by the modules' names, and packages without a file by their folders."""
        self._sources, self._namespaces = sources, namespaces
        if self not in sys.meta_path:
            # The list is exchanged and not changed: another thread may be half through it.
            sys.meta_path = [self, *sys.meta_path]

    def remove(self) -> None:
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        self._sources, self._namespaces = {}, {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self.asked.setdefault(name, time.time_ns())
        source = self._sources.get(name)
        if source is not None:
            is_package = os.path.basename(source.path) == "__init__.py"
            return spec_from_file_location(
                name,
                source.path,
                loader=BaseLoader(name, source),
                submodule_search_locations=[os.path.dirname(source.path)] if is_package else None,
            )
        folders = self._namespaces.get(name)
        if folders is None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = list(folders)
        return spec


def _stats_of_same(source: Source) -> dict[str, float] | None:
    """The time stamp and size of the file if it holds these bytes, both of one moment."""
    try:
        with open(source.path, "rb") as file:
            before = os.fstat(file.fileno())
            if before.st_size != len(source.data) or file.read() != source.data:
                return None
            after = os.fstat(file.fileno())
    except OSError:
        return None
    return {"mtime": before.st_mtime, "size": before.st_size} if before.st_ctime_ns == after.st_ctime_ns else None

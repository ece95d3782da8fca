"""Imports new code beside the running code: one :class:`ModuleLoader` per transaction."""

from __future__ import annotations

import functools
import linecache
import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from operator import is_
from types import ModuleType
from typing import Any

from flask_hotreload.errors import LoadError
from flask_hotreload.failure import load_error
from flask_hotreload.finder import ProjectFinder, SnapshotLoader
from flask_hotreload.inventory import inventory
from flask_hotreload.modules_view import AbsentType
from flask_hotreload.overlay import Displaced, present
from flask_hotreload.sources import ResolvedRoots, Snapshot, Source
from flask_hotreload.worlds import World

Lines = Callable[[Mapping[str, ModuleType]], dict[str, Any]]  #: of modules by name: file → an entry of ``linecache``


def give_way() -> None:
    """Let other threads run now."""
    time.sleep(0)


class Exchange:
    """What a commit took away, and what follows from it.

    ``displaced``
        The modules and packages' attributes that were live before.
    """

    def __init__(self, displaced: Displaced, fresh: Lines, roots: ResolvedRoots, keep: Collection[str]) -> None:
        """``fresh(modules)``: what ``linecache`` is to hold with the new modules, by name."""
        self.displaced = displaced
        self._fresh = fresh
        self._roots = roots
        self._keep = keep

    def past(self, snapshot: Snapshot | None = None) -> World:
        """A world that goes on seeing what was live before the commit, for the requests of the generation before.

        At each later commit it needs to be told: ``world.preserve(exchange.displaced)``.

        ``snapshot``
            The sources of that generation, for what it is the first to import; ``None``: the disk.
        """
        finder = ProjectFinder(snapshot or Snapshot(self._roots), self._keep)
        world = World(finder, fallback=not self.displaced.whole, give_way=give_way)
        world.preserve(self.displaced)
        return world

    def quote(self) -> None:
        """From now on tracebacks quote the source that runs, whatever happens to the file."""
        linecache.cache.update(self._fresh(present(self.displaced.by)))


class ModuleLoader:
    """The new modules of one transaction, in a world of their own.

    Nothing live sees them before :meth:`commit`; :meth:`abort` forgets them. Both may be called on any thread; the
    other methods run new code, in the calling thread and context, and do not return before it does.

    ``snapshot``
        Where all source comes from.
    ``scripts``
        Paths of all scripts that the transaction will load, as for :meth:`load`. Each is staged at the first import
        by whichever of the others, so that none sees the live module of one that is going to be exchanged.
    ``whole``
        False: only the scripts, and project modules that are not loaded yet, are imported anew.
        True: every project module is.
    ``keep``
        Names of project modules that are never imported anew, with all below them.
    ``give_way``
        Called before each module is compiled and before its body runs, so that running requests get their turn.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        scripts: Iterable[str | os.PathLike[str]] = (),
        whole: bool = False,
        keep: Collection[str] = (),
        give_way: Callable[[], None] = give_way,
    ) -> None:
        """Raise :class:`ReloadInvalid` for a script that may not be loaded, :class:`LoadError` for a missing one."""
        self._snapshot = snapshot
        self._keep = tuple(keep)
        self._finder = ProjectFinder(snapshot, keep)
        self.world = World(self._finder, fallback=not whole, give_way=give_way)
        self._modules: dict[tuple[str, str | None], ModuleType] = {}
        self._exclusive = 0
        self._instances: dict[tuple[int, str], object] = {}
        self._made: Mapping[str, ModuleType | AbsentType] | None = None  # as soon as it has ended
        self._quotes = _Quotes()
        for script in scripts:
            self._target(script, None)

    def import_all(self, names: Iterable[str]) -> list[ModuleType]:
        """The new modules of absolute names, in their order.

        :raises LoadError: as :meth:`load`.
        """
        modules = [self.run(lambda: self.world.load(name), blame=name) for name in names]  # noqa: B023  # run at once
        self._quotes.of(self.staged)
        return modules

    def has(self, name: str) -> bool:
        """Whether there is a source for a module of this name; its packages are imported to find out.

        :raises LoadError: one of these packages cannot be imported.
        """
        parent, _, _ = name.rpartition(".")
        path: list[str] | None = None
        if parent:
            if not self.has(parent):
                return False
            [package] = self.import_all([parent])
            path = self.run(lambda: list(getattr(package, "__path__", ())), blame=parent)
        return self._finder.find_spec(name, path) is not None

    def survey(self) -> None:
        """Find out now what the commit of a whole generation takes away."""
        self.world.survey()

    def load(self, script_path: str | os.PathLike[str], *, exclusive: bool | str = False) -> ModuleType:
        """The new module of a script, an absolute path: imported once, however often it is asked for.

        ``exclusive``
            Import the file once more, under a name of its own. A text says who for: each text gets its own module,
            under the same name at each reload. ``True``: a module for this call alone.

        :raises ReloadInvalid: the script may not be loaded: :meth:`~flask_hotreload.sources.ResolvedRoots.resolve`.
        :raises LoadError: it can't be read or imported, for any reason, ``SystemExit`` among them.
        """
        if exclusive is True:
            self._exclusive += 1
            exclusive = str(self._exclusive)
        real, key, name = self._target(script_path, exclusive or None)
        module = self._modules.get((real, key))
        if module is None:
            module = self._modules[real, key] = self.run(
                lambda: self.world.load(name), blame=self._finder.shown(real)
            )
            self.world.survey()
            self._quotes.of(self.staged)
        return module

    def instance(self, module: ModuleType, name: str) -> object:
        """The one instance that this transaction makes of a class in a new module, without arguments.

        :raises LoadError: there is no such class, or making the instance fails.
        """
        file = getattr(module, "__file__", None)
        cls = vars(module).get(name)
        if not isinstance(cls, type):
            problem = "is no class" if name in vars(module) else "is not there"
            raise LoadError(f"{file}: the class {name!r} {problem}", file=file)
        key = id(module), name
        if key not in self._instances:
            self._instances[key] = self.run(cls, blame=file or module.__name__)
        return self._instances[key]

    def run(self, function: Callable[[], Any], *, blame: str) -> Any:
        """What ``function()`` returns, called in the staged context.

        ``blame``
            The file to name when an exception names no line of the project's.

        :raises LoadError: it raised, no matter what.
        """
        try:
            with self.world.staging():
                return function()
        except BaseException as error:  # noqa: BLE001  # whatever new code raises, SystemExit too, is its failure
            sources = {source.path: source for source in self._snapshot.sources.values()}
            failure = load_error(error, blame, sources.get)
        try:
            raise failure from failure.original
        finally:
            del failure  # a circle through this frame would keep the new modules until the next collection

    @property
    def staged(self) -> dict[str, ModuleType]:
        """Name → new module, in the order of import; after the commit too."""
        return self.world.staged() if self._made is None else present(self._made)

    def commit(self, before: Callable[[Exchange], object] = lambda exchange: None) -> Exchange:
        """Make the new modules the live ones, on their packages as well. Cannot fail; runs no foreign code.

        ``before`` is called with what will be taken away, while it is still there. :meth:`Exchange.quote` may wait.
        """
        exchange = _commit(self.world, self._quotes.of, self._snapshot.roots, self._keep, before)
        self._made = exchange.displaced.by
        self._forget()
        return exchange

    def abort(self) -> None:
        """Forget the new modules. New code that still runs in the staged context can import nothing more."""
        self.world.close()
        self._made = {}
        self._forget()

    def _forget(self) -> None:
        self._quotes = _Quotes()
        self._modules.clear()
        self._instances.clear()

    def _target(self, script_path: str | os.PathLike[str], exclusive: str | None) -> tuple[str, str | None, str]:
        real = self._snapshot.roots.resolve(script_path)
        self._snapshot.read(real, shown=self._finder.shown(real))
        name = self._finder.name_of(real, exclusive=exclusive)
        self._finder.targets[name] = real
        return real, exclusive, name


class _Quotes:
    """What ``linecache`` is to hold for the files of new modules, and does not yet."""

    def __init__(self) -> None:
        self._seen: dict[str, ModuleType] = {}
        self._lines: dict[str, Any] = {}  # typeshed names no type for its entries

    def of(self, modules: Mapping[str, ModuleType]) -> dict[str, Any]:
        """For all that were named so far; each is looked at once."""
        if all(map(is_, modules.values(), map(self._seen.get, modules))):
            return self._lines
        for name, module in modules.items():
            if self._seen.get(name) is not module:
                self._seen[name] = module
                loader = getattr(getattr(module, "__spec__", None), "loader", None)
                if isinstance(loader, SnapshotLoader):
                    self._add(loader.source())
        return self._lines

    def _add(self, source: Source) -> None:
        entry = _entry(source)
        if entry is not None and linecache.cache.get(source.path) != entry:
            self._lines[source.path] = entry


def take_stock(roots: ResolvedRoots, keep: Collection[str]) -> None:
    """Find out whose the live modules are: while they stay the same, a reload of the whole source need not."""
    inventory(ProjectFinder(Snapshot(roots), keep))


class KeptModules:
    """The modules of a generation that is served once more, as they are: nothing is executed.

    It stands for the :class:`ModuleLoader` of the transaction. ``past``: the generation's world so far. ``quoted``:
    the sources of the generation that is served so far.
    """

    def __init__(self, past: World, snapshot: Snapshot, keep: Collection[str], *, quoted: Snapshot) -> None:
        self.world = past.again()
        self.staged = self.world.staged()
        self._snapshot = snapshot
        self._keep = keep
        self._quoted = quoted
        self.world.survey()

    def commit(self, before: Callable[[Exchange], object] = lambda exchange: None) -> Exchange:
        """As :meth:`ModuleLoader.commit`."""
        lines = functools.partial(_lines_of, self._snapshot, self._quoted)
        return _commit(self.world, lines, self._snapshot.roots, self._keep, before)

    def abort(self) -> None:
        """As :meth:`ModuleLoader.abort`; what it is made of stays where it was."""
        self.world.close()


def _commit(
    world: World,
    fresh: Lines,
    roots: ResolvedRoots,
    keep: Collection[str],
    before: Callable[[Exchange], object],
) -> Exchange:
    displaced = world.commit(lambda displaced: before(Exchange(displaced, fresh, roots, keep)))
    return Exchange(displaced, fresh, roots, keep)


def _lines_of(snapshot: Snapshot, quoted: Snapshot, modules: Mapping[str, ModuleType]) -> dict[str, Any]:
    """What ``linecache`` is to hold where it holds the lines of ``quoted``: those that differ."""
    sources, before = snapshot.sources, quoted.sources
    changed = {
        real: source
        for real, source in sources.items()
        if source is not (other := before.get(real)) and not _is_same(source, other)
    }
    undecided = {real for real in changed if not snapshot.is_shown(real)}
    if undecided:
        _let_modules_show(snapshot, undecided, modules.values())
    # What nobody has shown, nobody has imported.
    shown = [snapshot.read(real) for real in changed if snapshot.is_shown(real)]
    return {source.path: entry for source in shown if (entry := _entry(source)) is not None}


def _let_modules_show(snapshot: Snapshot, undecided: Container[str], modules: Iterable[ModuleType]) -> None:
    """Let those modules whose files, maybe behind links, these real paths are say how their sources are shown."""
    known = {source.path for real, source in snapshot.sources.items() if real not in undecided}
    files = {file for module in modules if isinstance(file := getattr(module, "__file__", None), str)}
    for file in files - known:
        real = snapshot.roots.real_path(file)
        if real in undecided:
            snapshot.read(real, shown=file)


def _is_same(source: Source, other: Source | None) -> bool:
    return other is not None and source.path == other.path and source.digest == other.digest


def _entry(source: Source) -> tuple[int, None, list[str], str] | None:
    """Without a time stamp it counts as not being from the disk, and stays. ``None``: it is no text, so nothing runs
    that was made from it.
    """
    try:
        return len(source.data), None, source.lines, source.path
    except LoadError:
        return None

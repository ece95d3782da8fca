"""Dispatchers and the immutable table that finds them: path → name → dispatcher."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from flask_hotreload.jsonrpc import Method
    from flask_hotreload.mutex import Mutex

Function = Callable[..., Any]


@dataclass(frozen=True)
class Settings:
    """How a dispatcher is called.

    ``validate``
        Convert and check parameters by the function's type hints.
    ``lock``
        One call at a time in this process.
    ``authorize``
        Called without arguments in the request's context before each call; false refuses it.
    """

    validate: bool = True
    lock: bool = False
    authorize: Callable[[], object] | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """The methods that one instance serves at a path, so that its replacement can take all of them away.

    ``prefix`` stands before each method's name. Names that begin with an underscore are served only if they are in
    ``include_private``; ``filter(name, method)`` may refuse any.
    """

    instance: object
    prefix: str = ""
    include_private: tuple[str, ...] = ()
    filter: Callable[[str, Function], object] | None = None

    @property
    def name(self) -> str:
        return type(self.instance).__name__

    def with_instance(self, instance: object) -> Group:
        return replace(self, instance=instance)

    def methods(self) -> Iterator[tuple[str, Function]]:
        """``(name to be served under, bound method)``, in the order of their names."""
        for name in dir(self.instance):
            if name.startswith("_") and name not in self.include_private:
                continue
            if isinstance(inspect.getattr_static(self.instance, name), property):
                continue  # reading it would run code of the instance
            method = getattr(self.instance, name)
            if callable(method) and not isinstance(method, type) and (not self.filter or self.filter(name, method)):
                yield self.prefix + name, method


@dataclass(frozen=True, eq=False)
class Dispatcher:
    """One callable at one API path under a name and its aliases."""

    path: str
    name: str
    function: Function
    aliases: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    group: Group | None = None
    mutex: Mutex | None = field(default=None, repr=False)  # of settings.lock; the next generation takes it over
    method: Method = field(kw_only=True, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


class Taken(NamedTuple):
    """A name that two dispatchers want."""

    path: str
    name: str


class NameTaken(ValueError):
    """A name is served already. ``taken`` says which."""

    def __init__(self, taken: Taken) -> None:
        super().__init__(f"{taken.name!r} is taken at path {taken.path!r}; choose another name or pass replace=True")
        self.taken = taken


class DispatchTable:
    """Immutable map path → name → dispatcher; aliases are names. A change makes a new table."""

    __slots__ = ("_methods", "_paths")

    def __init__(self) -> None:
        # The maps of names are shared with other tables as long as they are equal, so none is ever changed.
        self._paths: dict[str, dict[str, Dispatcher]] = {}
        self._methods: dict[str, dict[str, Method]] = {}

    def methods(self, path: str) -> Mapping[str, Method]:
        """What can be called at ``path``; empty for an unknown path."""
        return self._methods.get(path, _NOTHING)

    def get(self, path: str, name: str) -> Dispatcher | None:
        return self._paths.get(path, {}).get(name)

    def group(self, path: str, class_name: str) -> Group | None:
        """The instance of a class of that name whose methods are served at ``path``."""
        for dispatcher in self._paths.get(path, {}).values():
            if dispatcher.group is not None and dispatcher.group.name == class_name:
                return dispatcher.group
        return None

    def members(self, path: str, group: Group) -> list[Dispatcher]:
        """The dispatchers of ``group`` at ``path``, each once."""
        return [dispatcher for dispatcher in self.at(path) if dispatcher.group is group]

    def at(self, path: str) -> list[Dispatcher]:
        """The dispatchers at ``path``, each once."""
        return list(dict.fromkeys(self._paths.get(path, {}).values()))

    def named(self, path: str) -> Mapping[str, Dispatcher]:
        """Name → dispatcher at ``path``, aliases too; empty for an unknown path."""
        return self._paths.get(path, _NOBODY)

    def __iter__(self) -> Iterator[Dispatcher]:
        """Every dispatcher, each once."""
        for path in self._paths:
            yield from self.at(path)

    def rules(self) -> Iterator[tuple[str, str | None]]:
        """``(path, None)`` for each path, ``(path, name)`` for each name at it."""
        for path, names in self._paths.items():
            yield path, None
            for name in names:
                yield path, name

    def with_changes(
        self, added: Iterable[Dispatcher] = (), removed: Iterable[Dispatcher] = (), *, overwrite: bool = False
    ) -> DispatchTable:
        """A new table: ``removed`` gone with all their names, then ``added`` in.

        Raise :class:`NameTaken` if a name is taken, unless ``overwrite``: then whoever has it loses that name.
        """
        table = DispatchTable()
        table._paths = paths = self._paths.copy()
        table._methods = methods = self._methods.copy()
        touched: set[str] = set()

        def at(path: str) -> tuple[dict[str, Dispatcher], dict[str, Method]]:
            if path not in touched:
                touched.add(path)
                paths[path] = paths.get(path, {}).copy()
                methods[path] = methods.get(path, {}).copy()
            return paths[path], methods[path]

        for dispatcher in removed:
            served, called = at(dispatcher.path)
            for name in dispatcher.names:
                if served.get(name) is dispatcher:
                    del served[name], called[name]
        for dispatcher in added:
            served, called = at(dispatcher.path)
            for name in dispatcher.names:
                if name in served and not overwrite:
                    raise NameTaken(Taken(dispatcher.path, name))
                served[name], called[name] = dispatcher, dispatcher.method
        for path in touched:
            if not paths[path]:
                del paths[path], methods[path]
        return table

    def has_names_of(self, other: DispatchTable) -> bool:
        """Whether the same names are served at the same paths, by whichever dispatchers."""
        return self._paths.keys() == other._paths.keys() and all(
            names.keys() == other._paths[path].keys() for path, names in self._paths.items()
        )

    def changes_to(self, after: DispatchTable) -> Iterator[tuple[str, str, Dispatcher | None, Dispatcher | None]]:
        """``(path, name, before, after)`` for each name whose dispatcher differs, in the order of paths and names."""
        for path in sorted(self._paths.keys() | after._paths.keys()):
            old, new = self._paths.get(path, _NOBODY), after._paths.get(path, _NOBODY)
            differing = [name for name, dispatcher in old.items() if new.get(name) is not dispatcher]
            for name in sorted(differing + [name for name in new if name not in old]):
                yield path, name, old.get(name), new.get(name)

    def __len__(self) -> int:
        return sum(len(names) for names in self._paths.values())

    def __repr__(self) -> str:
        return f"<DispatchTable {len(self)} names at {len(self._paths)} paths>"


_NOTHING: Mapping[str, Method] = MappingProxyType({})
_NOBODY: Mapping[str, Dispatcher] = MappingProxyType({})


def normal_path(path: str) -> str:
    """``path`` with one leading and no trailing slash. Raise ``ValueError`` for what is not a plain path."""
    if not isinstance(path, str) or any(character in path for character in "<>?#"):
        raise ValueError(f"an API path is a plain string such as '/api', not {path!r}")
    return "/" + path.strip("/")

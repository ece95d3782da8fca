"""The modules of one world, laid over the live ones: which names are its own, and what it sees under each name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence, Set
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from itertools import repeat
from types import FrameType, ModuleType
from typing import Any, Protocol, cast

from flask_hotreload.interpreter import interpreter
from flask_hotreload.inventory import inventory
from flask_hotreload.modules_view import ABSENT, AbsentType, ModulesView

_UNKNOWN = object()

_MAPPING_CODE = frozenset({__name__, ModulesView.__module__, MutableMapping.__module__, "_collections_abc"})


class Finder(Protocol):
    """Tells the project's modules from others, and where new ones come from."""

    @property
    def targets(self) -> Mapping[str, str]:
        """Name → file of the modules that a world must have of its own, even when it falls back to live ones."""

    def owns(self, module: ModuleType) -> bool | None:
        """Whether a loaded module is the project's: executed anew in a world, not shared by all worlds.

        ``None``: it comes from no file, so that only its package can tell.
        """

    @property
    def foreign(self) -> Set[int]:
        """The identities of modules of which is known already that :meth:`owns` says no: of most, after a while."""

    @property
    def edition(self) -> object:
        """Equal to another finder's, or to its own at another time, if :meth:`owns` would say the same."""

    def find_spec(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """The spec of a project module that is not loaded; ``None``: there is none, or it is not the project's."""

    def refuse_unread(self, name: str, path: Sequence[str] | None) -> None:
        """Raise ``ModuleNotFoundError`` if only the disk has a project module of a name that has no spec here.

        The interpreter's own finders would execute it: newer code, in the middle of what runs.
        """


@dataclass(frozen=True)
class Displaced:
    """What a commit took away: what the generation before is to go on seeing.

    ``modules``
        Name → what ``sys.modules`` held, or ``ABSENT``.
    ``by``
        The same names → what ``sys.modules`` holds since then, or ``ABSENT``.
    ``attributes``
        Full name of a submodule → the live package and what it held under the last part of the name, or ``ABSENT``.
    ``whole``
        Whether the commit exchanged every project module.
    """

    modules: dict[str, ModuleType | AbsentType]
    by: Mapping[str, ModuleType | AbsentType]
    attributes: dict[str, tuple[ModuleType, object]]
    whole: bool


def _assign(
    modules: Mapping[str, ModuleType | AbsentType], attributes: Mapping[str, tuple[ModuleType, object]]
) -> None:
    """Make these the live modules, and these the attributes of live packages; ``ABSENT`` removes."""
    there = present(modules)
    interpreter.live.update(there)
    for name in modules.keys() - there.keys() if len(there) < len(modules) else ():
        interpreter.live.pop(name, None)
    for name, (package, value) in attributes.items():
        put(package, name, value)


def present(modules: Mapping[str, ModuleType | AbsentType]) -> dict[str, ModuleType]:
    """Those that are there."""
    return {name: module for name, module in modules.items() if module is not ABSENT}


def put(package: ModuleType, name: str, value: object) -> None:
    """Bind the submodule of a full name on its package, for every context that sees this package."""
    child = name.rpartition(".")[2]
    if value is ABSENT:
        vars(package).pop(child, None)
    else:
        vars(package)[child] = value


class Overlay(MutableMapping[str, ModuleType]):
    """What ``sys.modules`` is for a context in one world.

    ``fallback``
        True: project names that the overlay does not have, and that are loaded live, are the live modules.
        False: every project name is the overlay's own.

    Names that are not the project's are read from, and written to, the live modules. So are all names once it is
    committed: its modules are the live ones then.
    """

    def __init__(self, finder: Finder, *, fallback: bool) -> None:
        self.fallback = fallback
        self.committed = False
        self.closed = False
        self._finder = finder
        self._own: dict[str, ModuleType | AbsentType] = {}
        # Full name of a submodule → what a package that is shared with other worlds shows here under its last part.
        self._attributes: dict[str, object] = {}
        self._owned: dict[str, bool] = {}
        self._surveyed: list[str] = []
        self._leaving: set[str] = set()

    @property
    def modules(self) -> MutableMapping[str, ModuleType]:
        return self

    # -- the mapping

    def __getitem__(self, name: str) -> ModuleType:
        own = self._own.get(name, _UNKNOWN)
        if own is _UNKNOWN:
            if self._hides(name):
                raise KeyError(name)
            return interpreter.live[name]
        if own is ABSENT:
            raise KeyError(name)
        return cast("ModuleType", own)

    def __setitem__(self, name: str, module: ModuleType) -> None:
        if self.owns(name) or (name not in interpreter.live and self._is_writing()):
            if not self.closed:
                self._own[name] = module
        else:
            interpreter.live[name] = module

    def __delitem__(self, name: str) -> None:
        self[name]
        if self.owns(name):
            self._own[name] = ABSENT
        else:
            del interpreter.live[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def clear(self) -> None:
        for name in self._flat():
            self.pop(name, None)

    def _flat(self) -> dict[str, ModuleType]:
        """The visible modules at one moment: what is iterated over does not change meanwhile."""
        live = interpreter.live.copy()
        flat = {name: module for name, module in live.items() if not self._hides(name)}
        for name, module in self._own.copy().items():
            if module is ABSENT:
                flat.pop(name, None)
            else:
                flat[name] = module
        return flat

    def _is_writing(self) -> bool:
        """Whether it is code of this world that writes to ``sys.modules``: an alias, or a module that it made up."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") in _MAPPING_CODE:
            frame = frame.f_back
        module = None if frame is None else self._own.get(frame.f_globals.get("__name__", ""))
        return isinstance(module, ModuleType) and frame is not None and vars(module) is frame.f_globals

    # -- whose a name is

    def owns(self, name: str) -> bool:
        """Whether this world keeps the name to itself; other names are shared by all worlds."""
        if self.committed:
            return False
        if name in self._own or name in self._finder.targets:
            return True
        known = self._owned.get(name)
        if known is None:
            module = interpreter.live.get(name)
            verdict = self._finds(name) if module is None else self._finder.owns(module)
            if verdict is None:
                parent = name.rpartition(".")[0]
                verdict = bool(parent) and self.owns(parent)
            known = verdict
            if known or module is not None:
                self._owned[name] = known  # a name that nobody has yet may still become anybody's
        return known

    def stages(self, name: str) -> bool:
        """Whether importing the name here gives the world's own module, not one that all worlds share."""
        if self.committed:
            return False
        if name in self._own or name in self._finder.targets:
            return True
        if self.fallback and name in interpreter.live:
            return False
        return self.owns(name)

    def _hides(self, name: str) -> bool:
        """Whether the live module of a name is not to be seen from here."""
        if self.committed:
            return False
        return name in self._finder.targets or (not self.fallback and self.owns(name))

    def _finds(self, name: str) -> bool | None:
        """Whether there is a project file for a name that is not loaded; ``None``: its package can't be asked."""
        parent = name.rpartition(".")[0]
        if not parent:
            return self._finder.find_spec(name, None) is not None
        package: Any = self.get(parent)
        if package is None:
            return None
        path = getattr(package, "__path__", None)
        return path is not None and self._finder.find_spec(name, path) is not None

    # -- submodules of packages that are shared with other worlds

    def bound(self, name: str) -> object:
        return self._attributes.get(name, NotImplemented)

    def bind(self, name: str, value: object) -> None:
        self._attributes[name] = value

    def share(self, names: Sequence[str]) -> None:
        """Let the context decide about these submodules, as far as their packages are shared by worlds."""
        for name in names:
            parent = name.rpartition(".")[0]
            package = interpreter.live.get(parent)
            if isinstance(package, ModuleType) and parent not in self._own:
                interpreter.share(package, name)

    # -- generations

    def staged(self) -> dict[str, ModuleType]:
        """Name → module of the overlay's own, in the order of import; a copy."""
        return present(self.own())

    def own(self) -> dict[str, ModuleType | AbsentType]:
        """Name → what the overlay has of its own, ``ABSENT`` where it hides what is live; a copy."""
        return self._own.copy()

    def survey(self) -> None:
        """Find out now whose the live modules are, so that the commit of a whole generation has little to ask."""
        if not self.fallback:
            live = inventory(self._finder)
            unsure = live.unsure.union(self._finder.targets).difference(self._own)
            self._leaving = live.owned.difference(self._own)
            self._leaving.update(name for name in unsure if name in interpreter.live and self.owns(name))
            self._surveyed = live.names

    def commit(self, before: Callable[[Displaced], object] = lambda displaced: None) -> Displaced:
        """Make these modules the live ones, and let go of them here. Cannot fail.

        ``before`` is called with what this will take away: contexts that are to go on seeing that never see anything
        else. Without :attr:`fallback` these modules take the place of every project module: those missing here go.
        """
        live = interpreter.live
        own = self.own()
        if not self.fallback:
            late = () if list(live) == self._surveyed else live.keys() - self._surveyed
            leaving = self._leaving | {name for name in late if self.owns(name)}
            own.update(dict.fromkeys(leaving - own.keys(), ABSENT))
        before_that = dict(zip(own, map(live.get, own, repeat(ABSENT)), strict=True))
        displaced = Displaced(before_that, own, {}, whole=not self.fallback)
        attributes: dict[str, tuple[ModuleType, object]] = {}
        for name, value in self._attributes.items():
            parent, _, child = name.rpartition(".")
            package = live.get(parent)
            if package is not None and parent not in own:
                attributes[name] = package, value
                displaced.attributes[name] = package, vars(package).get(child, ABSENT)
        before(displaced)
        _assign(own, attributes)
        self.committed = True
        self._let_go()
        return displaced

    def preserve(self, displaced: Displaced) -> None:
        """Go on seeing what a later commit took away; called for each commit that this world outlives, in order."""
        if not self._own:
            self._own = displaced.modules.copy()
        elif self.fallback:  # else it has all of its modules, and what came later is not its own
            for name, module in displaced.modules.items():
                self._own.setdefault(name, module)
        for name, (_, value) in displaced.attributes.items():
            self._attributes.setdefault(name, value)
        if displaced.whole:
            self.fallback = False
        self.share(tuple(displaced.attributes))

    def _let_go(self) -> None:
        self._own.clear()
        self._attributes.clear()
        self._owned.clear()

"""``sys.modules`` and the submodules of a package, as the asking context is to see them.

:class:`ModulesView` stands in for the attribute ``sys.modules`` while there is more than one world of project modules
(:mod:`flask_hotreload.worlds`). A live context sees exactly the interpreter's own dictionary through it. It is a
``dict`` (``isinstance(sys.modules, dict)`` stays true), but an empty one beneath: C code that reads a dictionary's
storage without asking its methods finds nothing in it. CPython itself does not read the attribute from C; it keeps
the real dictionary, which is also the reason why C code (the C pickler) sees live modules only.

:class:`SharedPackages` makes the attribute of a package under which a submodule is bound depend on the context in
the same way: ``pkg.api`` is the staged module for a staging context, the live one for everybody else, while ``pkg``
is one and the same object for both.
"""

from __future__ import annotations

import enum
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterator, KeysView, MutableMapping, ValuesView


class _Absent(enum.Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent.ABSENT
"""Stands for a module or attribute that is not there, where ``None`` could be meant."""

AbsentType = Literal[_Absent.ABSENT]


class ModulesView(dict[str, ModuleType]):
    """The modules as the calling context sees them: ``live``, or the mapping that ``chosen`` returns."""

    __slots__ = ("_chosen", "_live")

    def __init__(
        self, live: dict[str, ModuleType], chosen: Callable[[], MutableMapping[str, ModuleType] | None]
    ) -> None:
        super().__init__()
        self._live = live
        self._chosen = chosen

    def _now(self) -> MutableMapping[str, ModuleType]:
        chosen = self._chosen()
        return self._live if chosen is None else chosen

    def __getitem__(self, name: str) -> ModuleType:
        return self._now()[name]

    def __setitem__(self, name: str, module: ModuleType) -> None:
        self._now()[name] = module

    def __delitem__(self, name: str) -> None:
        del self._now()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._now()

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.copy())

    def keys(self) -> KeysView[str]:  # type: ignore[override]  # dict's own views can't be made for a mapping
        return self._now().keys()

    def values(self) -> ValuesView[ModuleType]:  # type: ignore[override]  # as for keys
        return self._now().values()

    def items(self) -> ItemsView[str, ModuleType]:  # type: ignore[override]  # as for keys
        return self._now().items()

    # Any below: a default may be of any type, and dict's overloads of these say nothing that a caller sees here.
    def get(self, name: str, default: Any = None) -> Any:
        return self._now().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        return self._now().pop(name, *default)

    def popitem(self) -> tuple[str, ModuleType]:
        return self._now().popitem()

    def setdefault(self, name: str, default: Any = None) -> Any:
        return self._now().setdefault(name, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._now().update(*args, **kwargs)

    def clear(self) -> None:
        self._now().clear()

    def copy(self) -> dict[str, ModuleType]:
        now = self._now()
        # dict.copy is one step for other threads, dict(mapping) is not.
        return now.copy() if isinstance(now, dict) else dict(now)

    __copy__ = copy

    @classmethod
    def fromkeys(cls, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)

    def __eq__(self, other: object) -> bool:
        return self is other or self.copy() == (other.copy() if isinstance(other, ModulesView) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as a dict

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __ior__(self, other: Any) -> ModulesView:  # type: ignore[override]  # dict's overloads, as for get
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(self.copy())


class Bindings(Protocol):
    """What a world knows of the attributes of packages that it shares with other worlds."""

    def bound(self, name: str) -> object:
        """What is bound for the submodule of this full name; ``NotImplemented``: what the package says."""

    def bind(self, name: str, value: object) -> None:
        """Bind it here, in no other world; ``ABSENT`` unbinds."""


class _Submodule:
    """The attribute of a shared package under which a submodule is found: by context, a data descriptor."""

    __slots__ = ("_child", "_chosen", "_name")

    def __init__(self, name: str, chosen: Callable[[], Bindings | None]) -> None:
        self._name = name
        self._child = name.rpartition(".")[2]
        self._chosen = chosen

    def __get__(self, package: ModuleType | None, owner: type | None = None) -> object:
        if package is None:
            return self
        world = self._chosen()
        value = NotImplemented if world is None else world.bound(self._name)
        if value is NotImplemented:
            value = vars(package).get(self._child, ABSENT)
        if value is ABSENT:
            # The interpreter goes on to the module's own __getattr__ (PEP 562) from here.
            raise AttributeError(f"module {package.__name__!r} has no attribute {self._child!r}")
        return value

    def __set__(self, package: ModuleType, value: object) -> None:
        world = self._chosen()
        if world is None:
            vars(package)[self._child] = value
        else:
            world.bind(self._name, value)

    def __delete__(self, package: ModuleType) -> None:
        self.__get__(package)
        world = self._chosen()
        if world is not None:
            world.bind(self._name, ABSENT)
        elif vars(package).pop(self._child, ABSENT) is ABSENT:
            raise AttributeError(self._child)


class SharedPackages:
    """The packages whose submodules are now found by context.

    Each has got a class of its own in place of its type, with a descriptor per submodule; all else that one does with
    the package, also its identity, is as before. The caller serialises :meth:`share` and :meth:`restore`.
    """

    def __init__(self, chosen: Callable[[], Bindings | None]) -> None:
        self._chosen = chosen
        self._shared: dict[int, tuple[ModuleType, type[ModuleType], type[ModuleType]]] = {}

    def share(self, package: ModuleType, name: str) -> None:
        """Let the context decide what ``package`` shows as the submodule of the full name ``name``."""
        vars(package)  # a lazily loaded module takes its final type now
        if id(package) not in self._shared:
            kind = type(package)
            own = type(kind.__name__, (kind,), {"__slots__": (), "__module__": kind.__module__})
            try:
                package.__class__ = own
            except TypeError:
                return  # a module type made in C: its submodules stay those of the live world
            self._shared[id(package)] = package, kind, own
        _, _, own = self._shared[id(package)]
        child = name.rpartition(".")[2]
        if child not in vars(own):
            setattr(own, child, _Submodule(name, self._chosen))

    def restore(self) -> None:
        """Give every package its own type back, unless somebody gave it another since."""
        for package, kind, own in self._shared.values():
            if type(package) is own:
                package.__class__ = kind
        self._shared.clear()

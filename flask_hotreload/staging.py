"""From the entries of a reload document to a new dispatch table, beside the running one.

Everything here runs on the transaction's own thread, in its own world, and touches nothing that is live.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

from flask_hotreload.dispatch import Dispatcher, DispatchTable, Function, Group, NameTaken, Settings
from flask_hotreload.document import Callback, Document, Entry
from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.generation import Ending
from flask_hotreload.report import Change


@dataclass(frozen=True)
class Registration:
    """What new code asked to be served while it was staged."""

    path: str
    function: object  # the function, or the instance whose methods are served
    name: str | None = None
    aliases: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    group: Group | None = None


@dataclass
class Joining:
    """The service that code staged in this context joins, and what it registers there.

    ``mount(app, config)``
        In a reload of the whole source: makes an application the next generation's. Else ``None``; then new code has
        no application of its own.
    """

    service: object
    mount: Callable[[Any, Any], Any] | None = None
    mounts: list[Any] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    #: What new code registers on an older extension object before that has got its application: by ``id`` of it.
    waiting: dict[int, list[Callable[[], object]]] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)  # objects to be kept if this is committed


#: Set while new code is staged: an extension object made or used there belongs to the transaction.
joining: ContextVar[Joining | None] = ContextVar("flask_hotreload.joining", default=None)


class Loads(Protocol):
    """What staging needs of the module loader."""

    def load(self, script_path: str, *, exclusive: bool | str = False) -> ModuleType: ...
    def instance(self, module: ModuleType, name: str) -> object: ...
    @property
    def staged(self) -> Mapping[str, ModuleType]: ...


class MakesDispatchers(Protocol):
    """What staging needs of the service."""

    def make_dispatcher(
        self,
        path: str,
        name: str,
        function: Function,
        *,
        aliases: tuple[str, ...] = (),
        settings: Settings = ...,
        group: Group | None = None,
        replaces: Dispatcher | None = None,
    ) -> Dispatcher: ...
    def make_members(
        self, path: str, group: Group, settings: Mapping[str, Settings], replaces: Mapping[str, Dispatcher]
    ) -> list[Dispatcher]: ...


@dataclass(frozen=True)
class BoundCallback:
    """A callback with what it is called with."""

    callback: Callback
    module: ModuleType | None
    dispatcher: object


@dataclass(frozen=True)
class Staged:
    """What a transaction has prepared: the next table, and what to run under the writer lock."""

    table: DispatchTable
    changes: tuple[Change, ...]
    callbacks: tuple[BoundCallback, ...]
    attributes: tuple[tuple[object, Mapping[str, Any]], ...]  # of live callables
    modules: tuple[str, ...]  # the names of all new modules


class Stager:
    """Stages one document. ``script_path`` is the script of entries that name none.

    ``live`` finds ``"package.module:function"`` in the live modules.
    """

    def __init__(
        self,
        table: DispatchTable,
        loader: Loads,
        service: MakesDispatchers,
        joined: Joining,
        *,
        script_path: Callable[[str | None], str],
        live: Callable[[str], Callable[..., Any]],
    ) -> None:
        self._table = table
        self._loader = loader
        self._service = service
        self._joined = joined
        self._script_path = script_path
        self._live = live
        self._callbacks: list[BoundCallback] = []
        self._attributes: list[tuple[object, Mapping[str, Any]]] = []
        self._added: list[Dispatcher] = []
        self._removed: list[Dispatcher] = []

    def stage(self, document: Document) -> Staged:
        """Raise :class:`LoadError` where the new code is at fault, :class:`ReloadInvalid` where the document is."""
        entries = document.data or ()
        modules = [self._load(entry) for entry in entries]
        for entry, module in zip(entries, modules, strict=True):
            # All of them before anything of any new module is used.
            if module is not None:
                for overload in entry.overload:
                    if isinstance(overload, Mapping):
                        vars(module).update(overload)
        for entry, module in zip(entries, modules, strict=True):
            target = self._stage_instance(entry, module) if entry.is_instance else self._stage_function(entry, module)
            self._stage_overload(entry, module, target)
        if document.clear_old:
            self._removed = list(self._table)
        try:
            table = self._table.with_changes(self._added, self._removed)
        except NameTaken as error:
            raise ReloadInvalid(
                f"two dispatchers want the name {error.taken.name!r} at path {error.taken.path!r}"
            ) from None
        return Staged(
            table=table,
            changes=changes_between(self._table, table),
            callbacks=tuple(self._callbacks),
            attributes=tuple(self._attributes),
            modules=tuple(self._loader.staged),
        )

    def _load(self, entry: Entry) -> ModuleType | None:
        if not entry.has_script:
            return None
        exclusive = f"{entry.path}/{entry.name or entry.dispatcher}" if entry.exclusive_module else False
        return self._loader.load(self._script_path(entry.script_path), exclusive=exclusive)

    # Functions -------------------------------------------------------------------------------------------------

    def _stage_function(self, entry: Entry, module: ModuleType | None) -> Function:
        if module is None:
            given = entry.dispatcher
            function, wanted = self._live(given) if isinstance(given, str) else given, entry.name or entry.own_name
        else:
            function, wanted = self._find(module, entry.dispatcher), entry.own_name
        registered = self._registered(entry.path, function)
        old = self._replaced(entry, wanted, registered)
        name = entry.name or (registered and registered.name) or (old and old.name) or wanted
        self._added.append(
            self._make(
                entry,
                module,
                lambda: self._service.make_dispatcher(
                    entry.path,
                    name,
                    function,
                    aliases=self._aliases(entry, function, registered, old),
                    settings=self._settings(entry, module, registered, old),
                    replaces=old,
                ),
            )
        )
        if old is not None:
            self._removed.append(old)
        return function

    def _find(self, module: ModuleType, name: object) -> Function:
        value = vars(module).get(str(name), _MISSING)
        if value is _MISSING:
            raise LoadError(f"{module.__file__}: there is no {name!r} in it", file=module.__file__)
        if not callable(value):
            raise LoadError(f"{module.__file__}: {name!r} is {value!r}, which is not callable", file=module.__file__)
        if isinstance(value, type):
            raise LoadError(
                f"{module.__file__}: {name!r} is a class; an entry for its instance says isInstance",
                file=module.__file__,
            )
        return value  # type: ignore[no-any-return]  # callable() narrows Any to no more than this

    def _registered(self, path: str, function: object) -> Registration | None:
        for registration in self._joined.registrations:
            if registration.function is function and registration.path == path:
                return registration
        return None

    def _replaced(self, entry: Entry, wanted: str, registered: Registration | None) -> Dispatcher | None:
        """The dispatcher that the entry is for: by the name it is served under, else by its function's name."""
        for name in (entry.name, registered.name if registered is not None else None, wanted):
            if name is not None:
                old = self._table.get(entry.path, name)
                if old is not None or name is entry.name:
                    return old
        for old in self._table.at(entry.path):
            if old.group is None and getattr(old.function, "__name__", None) == wanted:
                return old
        return None

    def _aliases(
        self, entry: Entry, function: Function, registered: Registration | None, old: Dispatcher | None
    ) -> tuple[str, ...]:
        if entry.aliases is not None:
            return entry.aliases
        if registered is not None:
            return registered.aliases
        own = aliases_of(function)
        # An entry may call what it replaces by any of its names; the others stay, too.
        return own if own or old is None else old.names if entry.name is not None else old.aliases

    def _settings(
        self, entry: Entry, module: ModuleType | None, registered: Registration | None, old: Dispatcher | None
    ) -> Settings:
        """The document's, else what the new code registers, else those of the dispatcher that is replaced."""
        kept = registered.settings if registered is not None else old.settings if old is not None else Settings()
        given = dict(entry.settings)
        if isinstance(given.get("authorize"), str):
            given["authorize"] = self._named(given["authorize"], module, "authorize")
        return Settings(**{"validate": kept.validate, "lock": kept.lock, "authorize": kept.authorize, **given})

    # Instances -------------------------------------------------------------------------------------------------

    def _stage_instance(self, entry: Entry, module: ModuleType | None) -> object:
        assert module is not None
        class_name = str(entry.dispatcher)
        value = vars(module).get(class_name, _MISSING)
        if value is _MISSING:
            raise LoadError(f"{module.__file__}: there is no {class_name!r} in it", file=module.__file__)
        instance = self._loader.instance(module, class_name) if isinstance(value, type) else value
        old = self._table.group(entry.path, type(instance).__name__)
        members = self._table.members(entry.path, old) if old is not None else []
        replaces = {member.name: member for member in members}
        group = Group(instance) if old is None else old.with_instance(instance)
        fresh = self._settings(entry, module, None, None)
        settings = {name: self._settings(entry, module, None, member) for name, member in replaces.items()}
        made = self._make(
            entry, module, lambda: self._service.make_members(entry.path, group, {"": fresh, **settings}, replaces)
        )
        if not made:
            raise LoadError(f"{module.__file__}: {class_name!r} has no public method to serve", file=module.__file__)
        self._added.extend(made)
        self._removed.extend(members)
        return instance

    # Overload --------------------------------------------------------------------------------------------------

    def _stage_overload(self, entry: Entry, module: ModuleType | None, target: object) -> None:
        for overload in entry.overload:
            if isinstance(overload, Mapping):
                if module is None:
                    self._attributes.append((target, overload))
            else:
                callback = self._named(overload, module, "overload") if isinstance(overload, str) else overload
                self._callbacks.append(BoundCallback(callback, module or _module_of(target), target))

    def _named(self, name: str, module: ModuleType | None, what: str) -> Callable[..., Any]:
        """``"package.module:function"`` in the live modules, or a bare name in the new one."""
        if ":" in name:
            return self._live(name)
        if module is None:
            raise ReloadInvalid(
                f"{what} {name!r}: an entry without a script has no new module; write 'package.module:function'"
            )
        value = vars(module).get(name, _MISSING)
        if not callable(value):
            problem = "there is no" if value is _MISSING else "not callable:"
            raise LoadError(f"{module.__file__}: {problem} {name!r}, which {what} names", file=module.__file__)
        return value  # type: ignore[no-any-return]  # callable() narrows Any to no more than this

    def _make(self, entry: Entry, module: ModuleType | None, make: Callable[[], Any]) -> Any:
        """What ``make()`` returns; what it finds wrong with a signature, a hint or a name is the new code's fault."""
        try:
            return make()
        except (TypeError, ValueError, NameError) as error:
            file = getattr(module, "__file__", None)
            where = "" if file is None else f"{file}: "
            raise LoadError(
                f"{where}{entry.dispatcher!r} cannot be served: {error}", file=file, original=error
            ) from error


def aliases_of(function: object) -> tuple[str, ...]:
    """Further names that a callable gives itself, by its attribute ``_alias``: one, or several."""
    alias = getattr(function, "_alias", ())
    return (alias,) if isinstance(alias, str) else tuple(alias)


def changes_between(before: DispatchTable, after: DispatchTable) -> tuple[Change, ...]:
    """What became of each name, in the order of paths and names."""
    return tuple(
        Change(path, name, "added" if was is None else "removed" if now is None else "replaced")
        for path, name, was, now in before.changes_to(after)
    )


def _module_of(target: object) -> ModuleType | None:
    return sys.modules.get(getattr(target, "__module__", None) or "")


_MISSING: Any = object()

"""The Flask extension: what applications import."""

from __future__ import annotations

import functools
import os
import secrets
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from flask import Flask, has_request_context, request

from flask_hotreload.config import Config
from flask_hotreload.control import announce_token
from flask_hotreload.dispatch import Function, Group, Settings, normal_path
from flask_hotreload.generation import Ending
from flask_hotreload.preview import Preview
from flask_hotreload.propagate import propagate
from flask_hotreload.registrations import Registrations, importing
from flask_hotreload.remote_control import control_of
from flask_hotreload.service import Service
from flask_hotreload.staging import Registration, aliases_of, joining
from flask_hotreload.status import status_of

if TYPE_CHECKING:
    from flask_hotreload.document import EntryDict
    from flask_hotreload.mount import Mount
    from flask_hotreload.report import ReloadReport

AnyFunction = TypeVar("AnyFunction", bound=Function)
Kept = TypeVar("Kept")

EXTENSION = "hotreload"


class HotRPC:
    """Dispatchers that can be reloaded, for one Flask application::

        app = Flask(__name__)
        rpc = HotRPC(app)

        @rpc.dispatcher("/api")
        def echo(data: str = "Hello world") -> str:
            return data

    or ``rpc = HotRPC()`` and later ``rpc.init_app(app)``. Settings (:mod:`flask_hotreload.config`) may be given as
    keywords: ``HotRPC(app, token="…")``.

    Made while a reload imports new code, it starts nothing: it is a handle on the running service.
    """

    def __init__(self, app: Flask | None = None, **settings: Any) -> None:
        self._settings = settings
        self._service: Service | None = None
        self._mount: Mount | None = None
        self._registrations = Registrations()
        self._token: str | None = None
        joined = _joined()
        # The transaction that it is made in, unless by the import of a module that lives on without the transaction.
        fresh = joined is not None and not joined.service._served.lasts(importing() or "")
        self._made_in = weakref.ref(joined) if fresh else None
        if joined is not None and joined.mount is None:
            self._service = self._served  # a handle, whether or not new code gives it an application
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration, wrap ``app.wsgi_app``, serve what was registered before.

        Raise ``ValueError`` or ``TypeError`` for a setting at fault, ``RuntimeError`` if ``app`` has one already.
        """
        joined = _joined()
        if joined is not None and joined.mount is None:
            self._service = joined.service._served
            app.extensions.setdefault(EXTENSION, self)  # it may be the running application, which has its own
        elif EXTENSION in app.extensions:
            raise RuntimeError(
                "this application has a HotRPC already; make one for each application, and use that of "
                "app.extensions['hotreload']"
            )
        elif joined is not None:
            self._join(app, joined)
        else:
            self._serve(app, Config.load(self._settings, app.config))
            app.extensions[EXTENSION] = self
            for register in self._registrations.all():
                register()
            self._registrations.forget(self._served.lasts)

    def _join(self, app: Flask, joined: _Joined) -> None:
        """Let ``app`` be the next generation's. This object may be an older one, which stays as it is."""
        assert joined.mount is not None
        service = joined.service._served
        # What is wrong with the settings is wrong with the new code.
        mount = joined.mount(app, Config.load(self._settings, app.config))
        joined.mounts.append(mount)
        app.extensions[EXTENSION] = self
        self._service = self._service or service
        if self._outlives(joined):
            waiting = [*self._registrations.lasting(service.lasts), *joined.waiting.pop(id(self), [])]
        else:
            self._mount = mount
            waiting = self._registrations.all()
            self._registrations.forget(lambda module: False)
        for register in waiting:
            register()

    def _outlives(self, joined: _Joined) -> bool:
        """Whether this object is there whatever becomes of the transaction."""
        return self._made_in is None or self._made_in() is not joined

    def _serve(self, app: Flask, config: Config) -> None:
        self._service = service = Service(app, config, self)
        self._mount = service.current
        tokens = functools.partial(self._tokens, service)
        service.install(control_of(service, tokens) if config.http else None)
        if config.http:
            Preview(service.reloader, service.middleware, tokens)
        service.arrange()
        service.metrics.begin()
        service.warn_when_started()
        if config.http and not config.token and app.debug:
            self._token = secrets.token_urlsafe()
            announce_token(self._token, config.url_prefix)

    # Dispatchers -----------------------------------------------------------------------------------------------

    def dispatcher(
        self, path: str = "/", *, name: str | None = None, aliases: Iterable[str] = (), **settings: Any
    ) -> Callable[[AnyFunction], AnyFunction]:
        """Serve the decorated function at ``path``; see :meth:`register_function`."""
        if not isinstance(path, str):
            raise TypeError("write @rpc.dispatcher() or @rpc.dispatcher('/api'), with parentheses")

        def register(function: AnyFunction) -> AnyFunction:
            self.register_function(function, path, name=name, aliases=aliases, **settings)
            return function

        return register

    def register_function(
        self,
        func: Function,
        path: str = "/",
        name: str | None = None,
        aliases: Iterable[str] = (),
        replace: bool = False,
        **settings: Any,
    ) -> None:
        """Serve ``func`` as ``name`` (default: its own) and ``aliases`` at the API ``path``.

        ``settings``: ``validate``, ``lock``, ``authorize`` (:class:`~flask_hotreload.dispatch.Settings`). Raise
        ``ValueError`` for a name or URL that is taken (the name: unless ``replace``), ``TypeError`` for a signature
        whose type hints cannot be resolved, ``RuntimeError`` once the application serves.
        """
        if not callable(func):
            raise TypeError(f"a dispatcher is a callable, not {func!r}")
        own_name = name or str(getattr(func, "__name__", type(func).__name__))
        every_alias = (*_strings(aliases), *aliases_of(func))
        checked = Settings(**settings)
        path = normal_path(path)
        joined = joining.get()
        if joined is not None and joined.mount is None:
            joined.registrations.append(Registration(path, func, own_name, every_alias, checked))
            return

        def register() -> None:
            mount = self._mounted
            dispatcher = mount.make_dispatcher(path, own_name, func, aliases=every_alias, settings=checked)
            mount.serve([dispatcher], overwrite=replace)

        self._register(register)

    def register_instance(
        self,
        obj: object,
        path: str = "/",
        prefix: str = "",
        include_private: Iterable[str] = (),
        filter: Callable[[str, Function], object] | None = None,
        replace: bool = False,
        **settings: Any,
    ) -> None:
        """Serve each public method of ``obj`` at ``path`` under ``prefix`` + its name.

        ``include_private``: names with a leading underscore that are served all the same. ``filter(name, method)``:
        false leaves a method out. The rest as in :meth:`register_function`. Raise ``ValueError`` if nothing is left.
        """
        group = Group(obj, prefix, tuple(_strings(include_private)), filter)
        checked = Settings(**settings)
        path = normal_path(path)
        joined = joining.get()
        if joined is not None and joined.mount is None:
            joined.registrations.append(Registration(path, obj, settings=checked, group=group))
            return

        def register() -> None:
            mount = self._mounted
            members = mount.make_members(path, group, {"": checked}, {})
            if not members:
                raise ValueError(f"{obj!r} has no public method to serve; see include_private and filter")
            mount.serve(members, overwrite=replace)

        self._register(register)

    def unregister(self, name: str, path: str = "/") -> None:
        """Serve ``name`` and its aliases no longer. Raise ``LookupError`` if it is not served."""

        def unregister() -> None:
            mount = self._mounted
            dispatcher = mount.table.get(normal_path(path), name)
            if dispatcher is None:
                raise LookupError(f"{name!r} is not served at {path!r}")
            mount.serve([], [dispatcher])

        self._register(unregister)

    def get(self, name: str, path: str = "/") -> Any:
        """The function served as ``name`` at ``path``, or the instance whose class has that name.

        Inside a callback it is the one that is being replaced. Raise ``LookupError`` if there is none.
        """
        reloader = self._served.reloader
        table = (reloader.current if reloader.applying is not None else reloader.pinned).table
        path = normal_path(path)
        dispatcher = table.get(path, name)
        if dispatcher is not None:
            return dispatcher.function
        group = table.group(path, name)
        if group is None:
            raise LookupError(f"{name!r} is not served at {path!r}")
        return group.instance

    # Reloading -------------------------------------------------------------------------------------------------

    def reload(
        self,
        data: Sequence[EntryDict] | EntryDict | None = None,
        clear_old: bool = False,
        timeout: float | None = None,
        processing_dispatcher_count_max: int = 0,
        on_timeout: Literal["proceed", "abort"] = "proceed",
        checks: Sequence[Mapping[str, Any]] = (),
        dry_run: bool = False,
        stage: bool = False,
        label: str | None = None,
        expect: int | None = None,
        id: str | None = None,
        probation: Mapping[str, Any] | None = None,
        **spelled: Any,
    ) -> ReloadReport:
        """Change what is served; the keywords are those of the reload document, in either spelling.

        Without ``data`` the whole source is reloaded: every module of the project, and the application itself.

        Return the :class:`~flask_hotreload.report.ReloadReport`, or raise a
        :class:`~flask_hotreload.errors.ReloadError` that carries it; then nothing has changed.
        """
        given = {
            "data": data,
            "clear_old": clear_old,
            "timeout": timeout,
            "processing_dispatcher_count_max": processing_dispatcher_count_max,
            "on_timeout": on_timeout,
            "checks": list(checks),
            "dry_run": dry_run,
            "stage": stage,
            "label": label,
            "expect": expect,
            "id": id,
            "probation": probation,
        }
        # What was left at its default gives way to the original's spelling of the same key.
        document = {key: value for key, value in given.items() if value != _DEFAULTS[key]} | spelled
        return self._served.reloader.reload(document, trigger="python", multiprocess=_is_multiprocess())

    def rollback(self, to: int | None = None) -> ReloadReport:
        """Serve the generation before once more, or the one of that number, under a new number.

        A second rollback goes further back. The label is that of the generation that is restored. Return or raise as
        :meth:`reload` does; :class:`~flask_hotreload.errors.ReloadInvalid` for a generation that is not kept.
        """
        return self._served.reloader.rollback(to, multiprocess=_is_multiprocess())

    def commit(self, id: str) -> ReloadReport:
        """Serve what ``rpc.reload(…, stage=True, id=id)`` has staged. Return or raise as :meth:`reload` does.

        :class:`~flask_hotreload.errors.ReloadBusy` if it was staged for another generation than the one that is
        served, :class:`~flask_hotreload.errors.ReloadInvalid` if it is not there any more.
        """
        return self._served.reloader.commit_staged(id, trigger="python", multiprocess=_is_multiprocess())

    def discard(self, id: str) -> bool:
        """Let go of what was staged under this id; return whether it was there, and not committed."""
        return self._served.reloader.discard_staged(id)

    def undo(self, function: Callable[[], object]) -> None:
        """In a callback or migration: run ``function`` if the reload fails after this. Else ``RuntimeError``."""
        transaction = self._served.reloader.applying
        if transaction is None:
            raise RuntimeError("undo() is for callbacks and migrations, while a reload applies them")
        transaction.undo(function)

    @property
    def generation(self) -> int:
        """The number of the generation that this request runs; outside of requests, the process's. 0 at start."""
        return self._served.pinned.number

    @property
    def label(self) -> str | None:
        """The label of that generation."""
        return self._served.pinned.label

    def history(self) -> list[ReloadReport]:
        """The reports of the last 100 attempts, newest first."""
        return self._served.reloader.history

    def status(self) -> dict[str, Any]:
        """What ``GET /_reload`` answers."""
        return status_of(self._served)

    # State -----------------------------------------------------------------------------------------------------

    def keep(self, name: str, factory: Callable[[], Kept]) -> Kept:
        """The object of that ``name``, the same in every generation; ``factory`` runs once per process."""
        kept: Kept = self._served.kept(name, factory)
        return kept

    def on_retire(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` when the last request of the generation that runs this has left; the last one first.

        If that generation's reload fails, or is a dry run, at the end of it.
        """
        module = sys._getframe(1).f_globals.get("__name__", "")
        joined = joining.get()
        target = joined.endings if joined is not None else self._served.pinned.afterlife.endings
        target.append(Ending(callback, module))

    def propagate(self, function: AnyFunction) -> AnyFunction:
        """``function``, carrying this request's slot and generation into a thread, executor or greenlet."""
        return propagate(function)

    @property
    def script_path(self) -> str:
        """Absolute path of the file in which the application was made."""
        return self._served.script_path

    def _getScriptPath(self, full: bool = False) -> str:  # noqa: N802  # the original's spelling
        """The original's: :attr:`script_path` if ``full``, else its folder."""
        return self.script_path if full else os.path.dirname(self.script_path)

    # Inside ----------------------------------------------------------------------------------------------------

    @property
    def _served(self) -> Service:
        if self._service is None:
            joined = _joined()
            if joined is not None:
                return joined.service._served
            raise RuntimeError("this HotRPC has no application yet: call init_app(app) first")
        return self._service

    @property
    def _mounted(self) -> Mount:
        """Where registrations go; for a handle made by a reload of dispatchers, the application that is served."""
        joined = _joined()
        for mount in joined.mounts if joined is not None else ():
            if mount.app.extensions.get(EXTENSION) is self:
                return mount
        return self._mount if self._mount is not None else self._served.current

    def _register(self, register: Callable[[], object]) -> None:
        joined = _joined()
        if joined is not None and joined.mount is not None and self._outlives(joined):
            self._register_in(joined, register)
        elif self._service is None:
            self._registrations.add(register)
        else:
            register()
            self._remember(register, self._service)

    def _register_in(self, joined: _Joined, register: Callable[[], object]) -> None:
        """On an object that outlives the transaction."""
        service = joined.service._served
        if any(mount.app.extensions.get(EXTENSION) is self for mount in joined.mounts):
            register()
            self._remember(register, service)
        elif not self._remember(register, service):
            joined.waiting.setdefault(id(self), []).append(register)

    def _remember(self, register: Callable[[], object], service: Service) -> bool:
        """Keep it for the generations to come if nobody makes it again; return whether."""
        if not service.lasts(importing() or ""):
            return False
        self._registrations.add(register)
        return True

    def _tokens(self, service: Service) -> Sequence[str]:
        if service.config.token:
            return service.config.token
        return () if self._token is None else (self._token,)

    def __repr__(self) -> str:
        if self._service is None:
            return "<HotRPC without an application>"
        return f"<HotRPC of {self._service.app.name!r}, generation {self.generation}>"


_DEFAULTS: dict[str, Any] = {
    "data": None,
    "clear_old": False,
    "timeout": None,
    "processing_dispatcher_count_max": 0,
    "on_timeout": "proceed",
    "checks": [],
    "dry_run": False,
    "stage": False,
    "label": None,
    "expect": None,
    "id": None,
    "probation": None,
}


class _Joined(Protocol):
    """A :class:`Joining` of this extension's."""

    service: HotRPC
    mount: Callable[[Flask, Config], Mount] | None
    mounts: list[Mount]
    waiting: dict[int, list[Callable[[], object]]]


def _joined() -> _Joined | None:
    """The transaction that code staged in this context joins; ``None``: it is not staged."""
    joined = joining.get()
    return cast("_Joined", joined) if joined is not None and isinstance(joined.service, HotRPC) else None


def _is_multiprocess() -> bool:
    return has_request_context() and bool(request.environ.get("wsgi.multiprocess"))


def _strings(names: Iterable[str]) -> tuple[str, ...]:
    """One name, or several."""
    return (names,) if isinstance(names, str) else tuple(names)

"""All that belongs to one Flask application: configuration, reloader, middleware, dispatchers, routes.

The application's extension object and every handle on it share one service.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask
from werkzeug.routing import Map

from flask_hotreload import checks, signals
from flask_hotreload.dispatch import Dispatcher, DispatchTable, Function, Group, Settings, normal_path
from flask_hotreload.drift import Drift
from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.generation import Generation
from flask_hotreload.interpreter import interpreter
from flask_hotreload.jsonrpc import Method
from flask_hotreload.membership import Membership
from flask_hotreload.middleware import HotReloadMiddleware
from flask_hotreload.mutex import Mutex
from flask_hotreload.reloader import Reloader
from flask_hotreload.routes import RouteCollision, TakenUrls, check_name, endpoint, rebuilt, url_of
from flask_hotreload.serial import serialized
from flask_hotreload.sources import Roots
from flask_hotreload.staging import Joining, Stager, aliases_of
from flask_hotreload.views import Views

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_hotreload.config import Config
    from flask_hotreload.document import Check
    from flask_hotreload.loader import ModuleLoader
    from flask_hotreload.namespaces import Namespace

_log = logging.getLogger("flask_hotreload")


class Service:
    """``server`` is the extension object; callbacks get it as their first argument."""

    def __init__(self, app: Flask, config: Config, server: object) -> None:
        self.app = app
        self.config = config
        self.server = server
        self.script_path = _script_path(app)
        self.roots = Roots(config.roots or [_default_root(app, self.script_path)])
        self._taken = TakenUrls()
        app.url_map = rebuilt(app.url_map, self._pinned_routes)
        self.reloader = Reloader(self, config, Generation(0, DispatchTable(), app.url_map, app.wsgi_app))
        self._views = Views(app, lambda: self.reloader.pinned.table, max_batch=config.max_batch)
        self._drift = Drift(self.roots)
        self.membership = Membership(self)
        self._kept: dict[str, Any] = {}
        self._keeping = Mutex(reentrant=True)  # protects _kept; factories run under it, each once; one may keep more

    def install(self, control: WSGIApplication | None) -> None:
        """Put the middleware around the application as it is now."""
        self.app.wsgi_app = HotReloadMiddleware(  # type: ignore[method-assign]  # the documented way to wrap it
            self.reloader, control=control, prefix=self.config.url_prefix, exempt=self.config.exempt
        )

    @property
    def pinned(self) -> Generation:
        return self.reloader.pinned

    def _pinned_routes(self) -> Map:
        routes: Map = self.reloader.pinned.routes
        return routes

    # Dispatchers -----------------------------------------------------------------------------------------------

    def make_dispatcher(
        self,
        path: str,
        name: str,
        function: Function,
        *,
        aliases: tuple[str, ...] = (),
        settings: Settings | None = None,
        group: Group | None = None,
        replaces: Dispatcher | None = None,
    ) -> Dispatcher:
        """A dispatcher ready to be served. Raise ``ValueError`` or ``TypeError`` for a name or signature at fault.

        The lock of the dispatcher that it ``replaces`` becomes its own, so that one call at a time holds across both.
        """
        settings = settings or Settings()
        for each in (name, *aliases):
            check_name(each)
        others = tuple(alias for alias in dict.fromkeys(aliases) if alias != name)
        call: Function = self.app.ensure_sync(function)
        mutex = None
        if settings.lock:
            mutex = replaces.mutex if replaces is not None and replaces.mutex is not None else Mutex()
            call = serialized(call, mutex, self.reloader.lock)
        method = Method(function, name=name, call=call, validate=settings.validate, authorize=settings.authorize)
        return Dispatcher(normal_path(path), name, function, others, settings, group, mutex, method=method)

    def make_members(
        self, path: str, group: Group, settings: Mapping[str, Settings], replaces: Mapping[str, Dispatcher]
    ) -> list[Dispatcher]:
        """The dispatchers of an instance's methods; ``settings`` by name, those of ``""`` for all others."""
        return [
            self.make_dispatcher(
                path,
                name,
                method,
                aliases=aliases_of(method),
                settings=settings.get(name, settings[""]),
                group=group,
                replaces=replaces.get(name),
            )
            for name, method in group.methods()
        ]

    def serve(self, added: list[Dispatcher], removed: list[Dispatcher] = [], *, overwrite: bool = False) -> None:  # noqa: B006  # never changed
        """Change what generation 0 serves, while the application is set up.

        Raise ``ValueError`` for a name or URL that is taken, ``RuntimeError`` once requests are served.
        """
        current = self.reloader.current
        if current.number or self.app._got_first_request:
            raise RuntimeError(
                "dispatchers are registered while the application is set up; afterwards a reload changes them: "
                "rpc.reload([{'dispatcher': function, 'path': '/api'}])"
            )
        table = current.table.with_changes(added, removed, overwrite=overwrite)
        fresh = [rule for rule in _rules(added) if current.table.get(rule[0], rule[1] or "") is None]
        fresh = [(path, name) for path, name in fresh if name is not None or not current.table.methods(path)]
        self._taken.check(self.app.url_map, (url_of(*rule) for rule in fresh), prefix=self.control_prefix)
        if removed:
            self.app.url_map = rebuilt(self.app.url_map, self._pinned_routes, table)
            for path, name in set(_rules(removed)) - set(table.rules()):
                del self.app.view_functions[endpoint(path, name)]
            for path, name in _rules(added):
                self.app.view_functions[endpoint(path, name)] = self._views.make(path, name)
        else:
            for path, name in fresh:
                self.app.add_url_rule(
                    url_of(path, name), endpoint(path, name), self._views.make(path, name), methods=["POST"]
                )
        self.reloader.current = Generation(
            0, table, self.app.url_map, current.wsgi_app, modules=current.modules, afterlife=current.afterlife
        )

    @property
    def control_prefix(self) -> str:
        return self.config.url_prefix if self.config.http else ""

    # What the reloader asks of the application -----------------------------------------------------------------

    def script(self, path: str | None) -> str:
        return self.script_path if path is None else os.path.join(self.app.root_path, path)

    def stager(self, table: DispatchTable, loader: ModuleLoader, joined: Joining) -> Stager:
        # Flask refuses to be set up once it serves; nor may new code set up the live application before that.
        self.app._got_first_request = True
        return Stager(table, loader, self, joined, script_path=self.script, live=_live_callable)

    def routes(
        self,
        table: DispatchTable,
        current: Generation,
        undo: Callable[[Callable[[], object]], None],
        *,
        give_way: Callable[[], object],
    ) -> Map:
        if table.has_names_of(current.table):
            return self.app.url_map
        try:
            routes = rebuilt(self.app.url_map, self._pinned_routes, table, give_way=give_way)
        except RouteCollision as error:
            raise ReloadInvalid(str(error)) from None
        prefix = self.control_prefix
        for path, name in table.rules():
            url = url_of(path, name)
            if prefix and (url == prefix or url.startswith(prefix + "/")):
                raise ReloadInvalid(f"{url} lies below the control prefix {prefix}; choose another path")
            if endpoint(path, name) not in self.app.view_functions:
                # Unreachable for others before its rule is published; checks reach it.
                self.app.view_functions[endpoint(path, name)] = self._views.make(path, name)
                undo(functools.partial(self.app.view_functions.pop, endpoint(path, name), None))
        return routes

    def explain(self, error: LoadError) -> LoadError:
        """Flask refuses ``@app.route`` once it serves; only a reload of the whole source can take in such a file."""
        if isinstance(error.original, AssertionError) and "setup method" in str(error.original):
            return LoadError(
                f"{error.file}:{error.line}: this file sets up the running application (a route, a hook), "
                "which a reload of dispatchers cannot do; put dispatchers into a file of their own, or reload the "
                "whole source",
                file=error.file,
                line=error.line,
                original=error.original,
            )
        return error

    def publish(self, generation: Generation) -> None:
        self.app.url_map = generation.routes

    def context(self) -> AbstractContextManager[object]:
        return self.app.app_context()

    def verify(self, check: Check) -> None:
        checks.verify(check, self.app.wsgi_app)

    def namespaces(self) -> list[Namespace]:
        roots = self.roots.resolve()
        return [
            vars(module)
            for name, module in interpreter.live.copy().items()
            if module is not None
            and (
                name == "__main__" or ((file := getattr(module, "__file__", None)) and roots.place(file) is not None)
            )
        ]

    def refuse_whole_source(self) -> ReloadInvalid:
        entries = [_as_entry(dispatcher) for dispatcher in self.reloader.current.table]
        return ReloadInvalid(
            "data is missing; say which dispatchers to reload (an instance starts anew unless an overload hands its "
            "state over). For those that are served now: "
            + _json({"data": list({repr(entry): entry for entry in entries}.values())})
        )

    def notify(self, event: str, **keywords: Any) -> None:
        try:
            getattr(signals, event).send(self.app, **keywords)
        except Exception:  # noqa: BLE001  # a receiver's fault is not the reload's
            _log.exception("a receiver of the signal %s failed", event)

    @property
    def release(self) -> str:
        """The digest of the project's sources as they were at the start."""
        return self._drift.release

    def ran(self, digests: Mapping[str, str]) -> None:
        self._drift.ran(digests)

    def pending(self) -> list[dict[str, str]]:
        """What lies on disk and does not run: see :class:`~flask_hotreload.drift.Drift`."""
        return self._drift.pending()

    # Kept objects ----------------------------------------------------------------------------------------------

    def keep(self, name: str, factory: Callable[[], Any]) -> Any:
        with self._keeping.lock:
            if name not in self._kept:
                self._kept[name] = factory()
            return self._kept[name]


def _rules(dispatchers: list[Dispatcher]) -> list[tuple[str, str | None]]:
    """``(path, name)`` of every URL that they need, each once; ``(path, None)`` for the path itself."""
    rules: dict[tuple[str, str | None], None] = {}
    for dispatcher in dispatchers:
        rules[dispatcher.path, None] = None
        for name in dispatcher.names:
            rules[dispatcher.path, name] = None
    return list(rules)


def _live_callable(name: str) -> Callable[..., Any]:
    """``"package.module:function"`` in the live modules. Raise :class:`ReloadInvalid`."""
    module_name, _, function_name = name.partition(":")
    value: Any = interpreter.live.get(module_name)
    if value is None:
        raise ReloadInvalid(f"{name!r}: no module {module_name!r} is loaded")
    for part in function_name.split("."):
        value = getattr(value, part, None)
    if not callable(value):
        raise ReloadInvalid(f"{name!r}: {module_name!r} has no callable {function_name!r}")
    function: Callable[..., Any] = value
    return function


def _as_entry(dispatcher: Dispatcher) -> dict[str, Any]:
    """The entry of a reload document that would reload ``dispatcher``."""
    owner = dispatcher.function if dispatcher.group is None else type(dispatcher.group.instance)
    module = interpreter.live.get(getattr(owner, "__module__", None) or "")
    entry: dict[str, Any] = {
        "dispatcher": getattr(owner, "__name__", dispatcher.name),
        "scriptPath": getattr(module, "__file__", None),
        "path": dispatcher.path,
    }
    if dispatcher.group is not None:
        entry["isInstance"] = True
    elif entry["dispatcher"] != dispatcher.name:
        entry["name"] = dispatcher.name
    return entry


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _script_path(app: Flask) -> str:
    """The file in which the application was made; its root path when that is not known."""
    module = sys.modules.get(app.import_name)
    return os.path.abspath(getattr(module, "__file__", None) or app.root_path)


def _default_root(app: Flask, script_path: str) -> str:
    """The folder of the application's top-level package, or of its module."""
    package = sys.modules.get(app.import_name.partition(".")[0])
    file = getattr(package, "__file__", None) if hasattr(package, "__path__") else script_path
    folder = os.path.dirname(os.path.abspath(file)) if file is not None else app.root_path
    return folder if os.path.isdir(folder) else app.root_path

"""One Flask application and the dispatchers that are views of it. Each whole generation has its own.

While the application is set up, registrations change the mount's own table. Then it is sealed: dispatchers change by
reloads, which make new tables and URL maps for the same application, or a new application with a mount of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flask_hotreload.dispatch import Dispatcher, DispatchTable, Function, Group, Settings, normal_path
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.jsonrpc import Method
from flask_hotreload.mutex import Mutex
from flask_hotreload.openrpc import DISCOVER
from flask_hotreload.routes import RouteCollision, TakenUrls, check_name, endpoint, rebuilt, url_of, verb_of
from flask_hotreload.serial import serialized
from flask_hotreload.staging import aliases_of
from flask_hotreload.stamp import stamped
from flask_hotreload.views import Views

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Map

    from flask_hotreload.generation import Generation
    from flask_hotreload.rwlock import ReadersWriterLock


class Mount:
    """``wsgi_app`` is what the application was when this was made: what its generations run.

    ``pinned()``
        The generation that the calling context runs.
    ``prefix``
        Of the control routes; empty if there are none.
    ``documented``
        Whether each API path tells what can be called there.
    ``before``
        The table whose dispatchers hand their locks on to those of the same names, until :meth:`forget_before`.
    ``changed()``
        Called after each registration.
    ``other_settings``
        The names of the settings that the application gives and that are not the process's.
    ``header``
        Of each answer, for the number of the generation that gave it; ``None``: none.
    """

    def __init__(
        self,
        app: Flask,
        *,
        lock: ReadersWriterLock,
        pinned: Callable[[], Generation],
        max_batch: int,
        prefix: str,
        documented: bool = True,
        before: DispatchTable | None = None,
        changed: Callable[[], object] = lambda: None,
        other_settings: Sequence[str] = (),
        header: str | None = None,
    ) -> None:
        self.app = app
        self.other_settings = other_settings
        self.wsgi_app = app.wsgi_app if header is None else stamped(app.wsgi_app, header, pinned)
        self.table = DispatchTable()
        self.sealed = False
        self._lock = lock
        self._pinned = pinned
        self._prefix = prefix
        self._documented = documented
        self._before = before or DispatchTable()
        self._changed = changed
        self._taken = TakenUrls()
        app.url_map = rebuilt(app.url_map, self._routes_of_context)
        self._views = Views(app, pinned, max_batch=max_batch, documented=documented)

    def _routes_of_context(self) -> Map:
        generation = self._pinned()
        # A context that runs another application's generation looks here on that one's behalf: while it is staged.
        routes: Map = generation.routes if generation.mount is self else self.app.url_map
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
            replaces = replaces or self._before.get(normal_path(path), name)
            mutex = replaces.mutex if replaces is not None and replaces.mutex is not None else Mutex()
            call = serialized(call, mutex, self._lock)
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

    def forget_before(self) -> None:
        """Hold nothing of the generation before any longer; the locks have been handed on."""
        self._before = DispatchTable()

    # While the application is set up ---------------------------------------------------------------------------

    def serve(self, added: list[Dispatcher], removed: list[Dispatcher] = [], *, overwrite: bool = False) -> None:  # noqa: B006  # never changed
        """Change what is served, while the application is set up.

        Raise ``ValueError`` for a name or URL that is taken, ``RuntimeError`` once requests are served.
        """
        if self.sealed or self.app._got_first_request:
            raise RuntimeError(
                "dispatchers are registered while the application is set up; afterwards a reload changes them: "
                "rpc.reload([{'dispatcher': function, 'path': '/api'}])"
            )
        before, table = self.table, self.table.with_changes(added, removed, overwrite=overwrite)
        fresh = [rule for rule in _rules(added) if before.get(rule[0], rule[1] or "") is None]
        fresh = [(path, name) for path, name in fresh if name is not None or not before.methods(path)]
        fresh = list(self._with_documents(fresh))
        self._taken.check(self.app.url_map, fresh, prefix=self._prefix)
        if removed:
            self.app.url_map = rebuilt(self.app.url_map, self._routes_of_context, self._names(table))
            for path, name in set(self._with_documents(_rules(removed))) - set(self._names(table)):
                del self.app.view_functions[endpoint(path, name)]
            fresh = list(self._with_documents(_rules(added)))
            for path, name in fresh:
                self.app.view_functions[endpoint(path, name)] = self._views.make(path, name)
        else:
            for path, name in fresh:
                view = self._views.make(path, name)
                self.app.add_url_rule(url_of(path, name), endpoint(path, name), view, methods=[verb_of(name)])
        self.table = table
        self._changed()

    def seal(self) -> None:
        """From here on only reloads change dispatchers. The table before is let go: it would keep its own alive."""
        self.sealed = True
        self._before = DispatchTable()

    # Reloads of dispatchers ------------------------------------------------------------------------------------

    def routes(
        self,
        table: DispatchTable,
        current: DispatchTable,
        undo: Callable[[Callable[[], object]], None],
        *,
        give_way: Callable[[], object],
    ) -> Map:
        """The URL map for ``table``, in the place of ``current``. Raise :class:`ReloadInvalid` for a collision."""
        if table.has_names_of(current):
            return self.app.url_map
        try:
            routes = rebuilt(self.app.url_map, self._routes_of_context, self._names(table), give_way=give_way)
        except RouteCollision as error:
            raise ReloadInvalid(str(error)) from None
        for path, name in self._names(table):
            url = url_of(path, name)
            if self._prefix and (url == self._prefix or url.startswith(self._prefix + "/")):
                raise ReloadInvalid(f"{url} lies below the control prefix {self._prefix}; choose another path")
            if endpoint(path, name) not in self.app.view_functions:
                # Unreachable for others before its rule is published; checks reach it.
                self.app.view_functions[endpoint(path, name)] = self._views.make(path, name)
                undo(functools.partial(self.app.view_functions.pop, endpoint(path, name), None))
        return routes

    def _names(self, table: DispatchTable) -> Iterator[tuple[str, str | None]]:
        """Of every URL that ``table`` needs."""
        return self._with_documents(table.rules())

    def _with_documents(self, rules: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
        for path, name in rules:
            yield path, name
            if name is None and self._documented:
                yield path, DISCOVER


def _rules(dispatchers: list[Dispatcher]) -> list[tuple[str, str | None]]:
    """``(path, name)`` of every URL that they need, each once; ``(path, None)`` for the path itself."""
    rules: dict[tuple[str, str | None], None] = {}
    for dispatcher in dispatchers:
        rules[dispatcher.path, None] = None
        for name in dispatcher.names:
            rules[dispatcher.path, name] = None
    return list(rules)

"""The URL map of each generation: one static rule for each API path and for each dispatcher.

Flask refuses new rules once it serves, and a werkzeug ``Map`` never forgets one. So a generation whose names differ
gets a map of its own, built beside the running one; the application's own rules are copied into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.routing import Map, MapAdapter, Rule

from flask_hotreload.dispatch import DispatchTable

#: What every endpoint of a dispatcher begins with; a dot in an endpoint would name a blueprint.
ENDPOINT_PREFIX = "rpc:"

#: About a millisecond's work.
_RULES_IN_A_TURN = 8


class RouteCollision(ValueError):
    """Two things want to answer POST at one URL."""


def endpoint(path: str, name: str | None) -> str:
    return ENDPOINT_PREFIX + url_of(path, name).replace("%", "%25").replace(".", "%2E")


def url_of(path: str, name: str | None) -> str:
    """``POST`` here calls the dispatcher ``name`` at ``path``; ``None``: the path itself, for JSON-RPC."""
    return path if name is None else f"{path.rstrip('/')}/{name}"


def check_name(name: str) -> None:
    """Raise ``ValueError`` for what cannot be a dispatcher's name."""
    if (
        not isinstance(name, str)
        or not name
        or any(character in name for character in "<>?#|\\")
        or name != name.strip("/ ")
    ):
        raise ValueError(f"{name!r} cannot name a dispatcher: a name is text that can stand in a URL")
    if name.startswith("rpc."):
        raise ValueError(f"{name!r} is reserved: names that begin with 'rpc.' are JSON-RPC's own (section 4.3)")


class PinnedMap(Map):
    """A map that binds a request with the map of the generation which that request runs."""

    pinned: Callable[[], Map]

    def bind_to_environ(
        self, environ: Any, server_name: str | None = None, subdomain: str | None = None
    ) -> MapAdapter:
        # Each request comes through here; collecting the arguments anew, or super(), would double what that costs.
        routes = self.pinned()
        if routes is self:
            return Map.bind_to_environ(self, environ, server_name, subdomain)
        return routes.bind_to_environ(environ, server_name, subdomain)


def rebuilt(
    routes: Map,
    pinned: Callable[[], Map],
    table: DispatchTable | None = None,
    *,
    give_way: Callable[[], object] = lambda: None,
) -> PinnedMap:
    """``routes`` as a new map, with the rules of dispatchers replaced by those of ``table`` if one is given.

    ``give_way`` is called every few rules, of which each takes a while. Raise :class:`RouteCollision` if a rule of
    ``table`` is another view's.
    """
    new = PinnedMap(
        default_subdomain=routes.default_subdomain,
        strict_slashes=routes.strict_slashes,
        merge_slashes=routes.merge_slashes,
        redirect_defaults=routes.redirect_defaults,
        converters=routes.converters,
        sort_parameters=routes.sort_parameters,
        sort_key=routes.sort_key,
        host_matching=routes.host_matching,
    )
    new.pinned = pinned
    own: dict[str, Rule] = {}
    taken: dict[str, str] = {}
    for rule in routes.iter_rules():
        if table is not None and rule.endpoint.startswith(ENDPOINT_PREFIX):
            own[rule.endpoint] = rule
            continue
        new.add(_copy(rule))
        if answers_post(rule):
            taken[rule.rule] = rule.endpoint
    for number, (path, name) in enumerate(table.rules() if table is not None else ()):
        if number % _RULES_IN_A_TURN == 0:
            give_way()
        url = url_of(path, name)
        if url in taken:
            raise RouteCollision(f"POST {url} is answered by {taken[url]!r} already; choose another path or name")
        taken[url] = endpoint(path, name)
        old = own.get(endpoint(path, name))
        new.add(_copy(old) if old is not None else _dispatcher_rule(url, taken[url]))
    new.update()  # sorted here, not by the first request
    return new


def _copy(rule: Rule) -> Rule:
    """An unbound copy, with the mark that Flask puts on a rule whose OPTIONS it answers by itself."""
    copy = rule.empty()
    copy.provide_automatic_options = getattr(rule, "provide_automatic_options", False)  # type: ignore[attr-defined]  # Flask's mark
    return copy


def _dispatcher_rule(url: str, name: str) -> Rule:
    rule = Rule(url, endpoint=name, methods=["POST", "OPTIONS"])
    rule.provide_automatic_options = True  # type: ignore[attr-defined]  # Flask's mark
    return rule


def answers_post(rule: Rule) -> bool:
    return rule.methods is None or "POST" in rule.methods


class TakenUrls:
    """The URLs at which an application answers POST, kept up to date while it is set up."""

    def __init__(self) -> None:
        self._map: Map | None = None
        self._seen = 0
        self._taken: dict[str, str] = {}

    def check(self, routes: Map, urls: Iterable[str], *, prefix: str) -> None:
        """Raise :class:`RouteCollision` if one of ``urls`` is a view's, or lies below the control ``prefix``."""
        if routes is not self._map:
            self._map, self._seen, self._taken = routes, 0, {}
        rules = list(routes.iter_rules())
        for rule in rules[self._seen :]:
            if answers_post(rule):
                self._taken[rule.rule] = rule.endpoint
        self._seen = len(rules)
        for url in urls:
            if prefix and (url == prefix or url.startswith(prefix + "/")):
                raise RouteCollision(f"{url} lies below the control prefix {prefix}; choose another path")
            if url in self._taken:
                raise RouteCollision(
                    f"POST {url} is answered by {self._taken[url]!r} already; choose another path or name"
                )

"""The URL map of each generation: two static rules for each API path, and one for each dispatcher.

Flask refuses new rules once it serves, and a werkzeug ``Map`` never forgets one. So a generation whose names differ
gets a map of its own, built beside the running one; the application's own rules are copied into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from werkzeug.routing import Map, MapAdapter, Rule

from flask_hotreload.openrpc import DISCOVER

#: What every endpoint of a dispatcher begins with; a dot in an endpoint would name a blueprint.
ENDPOINT_PREFIX = "rpc:"

#: About a millisecond's work.
_RULES_IN_A_TURN = 8


class RouteCollision(ValueError):
    """Two things want to answer at one URL."""


def endpoint(path: str, name: str | None) -> str:
    verb = "GET " if name == DISCOVER else ""  # so that it is none of a dispatcher of that name
    return ENDPOINT_PREFIX + verb + url_of(path, name).replace("%", "%25").replace(".", "%2E")


def url_of(path: str, name: str | None) -> str:
    """``POST`` here calls the dispatcher ``name`` at ``path``; ``None``: the path itself, for JSON-RPC.

    ``rpc.discover``, which no dispatcher has: ``GET`` here tells what there is to call.
    """
    return path if name is None else f"{path.rstrip('/')}/{'openrpc.json' if name == DISCOVER else name}"


def verb_of(name: str | None) -> str:
    return "GET" if name == DISCOVER else "POST"


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
    names: Iterable[tuple[str, str | None]] | None = None,
    *,
    give_way: Callable[[], object] = lambda: None,
) -> PinnedMap:
    """``routes`` as a new map, with the rules of dispatchers replaced by those of ``names`` if some are given.

    ``names``: ``(path, name)`` of each, as in :func:`url_of`. ``give_way`` is called every few rules, of which each
    takes a while. Raise :class:`RouteCollision` if one of their rules is another view's.
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
    taken: dict[tuple[str, str], str] = {}
    for rule in routes.iter_rules():
        if names is not None and rule.endpoint.startswith(ENDPOINT_PREFIX):
            own[rule.endpoint] = rule
            continue
        new.add(_copy(rule))
        taken.update(_taken_by(rule))
    for number, (path, name) in enumerate(names or ()):
        if number % _RULES_IN_A_TURN == 0:
            give_way()
        _refuse_if_taken(taken, path, name)
        own_endpoint = endpoint(path, name)
        taken[verb_of(name), url_of(path, name)] = own_endpoint
        old = own.get(own_endpoint)
        new.add(_copy(old) if old is not None else _own_rule(url_of(path, name), own_endpoint, verb_of(name)))
    new.update()  # sorted here, not by the first request
    return new


def _copy(rule: Rule) -> Rule:
    """An unbound copy, with the mark that Flask puts on a rule whose OPTIONS it answers by itself."""
    copy = rule.empty()
    copy.provide_automatic_options = getattr(rule, "provide_automatic_options", False)  # type: ignore[attr-defined]  # Flask's mark
    return copy


def _own_rule(url: str, name: str, verb: str) -> Rule:
    rule = Rule(url, endpoint=name, methods=[verb, "OPTIONS"])
    rule.provide_automatic_options = True  # type: ignore[attr-defined]  # Flask's mark
    return rule


def _taken_by(rule: Rule) -> dict[tuple[str, str], str]:
    verbs = [verb for verb in ("GET", "POST") if rule.methods is None or verb in rule.methods]
    return {(verb, rule.rule): rule.endpoint for verb in verbs}


def _refuse_if_taken(taken: Mapping[tuple[str, str], str], path: str, name: str | None) -> None:
    verb, url = verb_of(name), url_of(path, name)
    if (verb, url) in taken:
        remedy = "path, or set HOTRELOAD_OPENRPC to False" if name == DISCOVER else "path or name"
        raise RouteCollision(f"{verb} {url} is answered by {taken[verb, url]!r} already; choose another {remedy}")


class TakenUrls:
    """The URLs at which an application answers, kept up to date while it is set up."""

    def __init__(self) -> None:
        self._map: Map | None = None
        self._seen = 0
        self._taken: dict[tuple[str, str], str] = {}

    def check(self, routes: Map, names: Iterable[tuple[str, str | None]], *, prefix: str) -> None:
        """Raise :class:`RouteCollision` if the URL of one is a view's, or lies below the control ``prefix``."""
        if routes is not self._map:
            self._map, self._seen, self._taken = routes, 0, {}
        rules = list(routes.iter_rules())
        for rule in rules[self._seen :]:
            self._taken.update(_taken_by(rule))
        self._seen = len(rules)
        for path, name in names:
            url = url_of(path, name)
            if prefix and (url == prefix or url.startswith(prefix + "/")):
                raise RouteCollision(f"{url} lies below the control prefix {prefix}; choose another path")
            _refuse_if_taken(self._taken, path, name)

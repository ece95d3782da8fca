"""Requests that are served by what is staged, before anyone else is.

A request with the header ``HotReload-Preview: ID`` and the control token is pinned to the generation that was staged
under this id, and its answer says so by the same header. Every other request is served by what is live, and nothing
in its answer tells whether anything is staged: a wrong token or id is not even refused.

The token comes as ``Authorization: Bearer TOKEN``, or, where the application has a use for that header itself, as
``HotReload-Token: TOKEN``. The application does not get to see it. No cache on the way may keep such an answer: it
would give it to others.

While nothing is staged requests do not come through here at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flask_hotreload.bearer import given_token, matching

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from flask_hotreload.generation import Generation
    from flask_hotreload.middleware import HotReloadMiddleware
    from flask_hotreload.parking import Parked
    from flask_hotreload.reloader import Reloader
    from flask_hotreload.rwlock import Slot

HEADER = "HotReload-Preview"
_ID = "HTTP_HOTRELOAD_PREVIEW"
_TOKEN = "HTTP_HOTRELOAD_TOKEN"  # the name of a header
_AUTHORIZATION = "HTTP_AUTHORIZATION"
#: By which an answer allows caches to keep it.
_CACHING = frozenset({"cache-control", "expires", "surrogate-control", "cdn-cache-control", "x-accel-expires"})


class Preview:
    """Stands at the door of ``middleware`` while something is staged. ``tokens()``: those that count now."""

    def __init__(
        self, reloader: Reloader, middleware: HotReloadMiddleware, tokens: Callable[[], Sequence[str]]
    ) -> None:
        self._reloader = reloader
        self._lock = reloader.lock
        self._middleware = middleware
        self._tokens = tokens
        reloader.parking.changed = self._changed

    def _changed(self, parked: Parked | None) -> None:
        if parked is None:
            self._middleware.enter, self._middleware.pass_by = self._lock.acquire_read, self._lock.outside
        else:
            self._middleware.enter, self._middleware.pass_by = self._enter, self._pass_by

    def _enter(self, slot: Slot, environ: WSGIEnvironment) -> Slot | None:
        """As :meth:`~flask_hotreload.rwlock.ReadersWriterLock.acquire_read`; not ``None``: ``slot`` has its pin."""
        return self._lock.acquire_read(slot, environ) or self._pinned(slot, environ)

    def _pass_by(self, slot: Slot, environ: WSGIEnvironment) -> Slot | None:
        """The same for requests that neither are held nor count."""
        return self._lock.outside(slot, environ) or self._pinned(slot, environ)

    def _pinned(self, slot: Slot, environ: WSGIEnvironment) -> Slot | None:
        identity = environ.get(_ID)
        if identity is None:
            return None
        own, authorization = environ.get(_TOKEN), environ.get(_AUTHORIZATION, "")
        token = matching(self._tokens(), given_token(authorization) if own is None else own)
        generation = self._staged(identity) if token is not None else None
        if generation is None:
            return None
        for name in (_ID, _AUTHORIZATION if own is None else _TOKEN):
            environ.pop(name, None)
        slot.pin = replace(generation, wsgi_app=_Announced(generation, identity))
        return slot

    def _staged(self, identity: str) -> Generation | None:
        parking = self._reloader.parking
        parked = parking.parked
        if parked is None or parked.id != identity or not parked.fits(self._reloader.current):
            return None
        # Looked at first: it is held from here on.
        generation = parked.generation
        return generation if generation is not None and parking.confirmed(identity) else None


class _Announced:
    """A staged generation's application. It keeps hold of the generation, as requests of a live one do."""

    def __init__(self, generation: Generation, identity: str) -> None:
        self._generation = generation
        self._own = [("Cache-Control", "private, no-store"), (HEADER, identity)]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            kept = [header for header in headers if header[0].lower() not in _CACHING]
            return start_response(status, kept + self._own, exc_info)

        return self._generation.wsgi_app(environ, start)

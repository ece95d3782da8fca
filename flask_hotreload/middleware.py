"""The WSGI middleware: every request takes a slot in the readers–writer lock and one generation.

::

    server → HotReloadMiddleware → /_reload…        the control application, outside the lock
                                 → exempt paths     the current generation, outside the lock
                                 → all else         a slot, the current generation, the slot back at ``close()``

A request sees the generation that was current when it entered, from its start to the ``close()`` of its response. The
slot is given back exactly once: at ``close()``, whatever that raises; when the application raises; or when the server
drops the response without closing it. An event stream gives it back when it starts, and keeps its generation.

A response that states its ``Content-Length`` is handed to the server as it is. One that does not is streamed, and
what makes its chunks is part of the request: calls of the application made there are nested calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_hotreload.rwlock import ReadersWriterLock, Slot, current_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    class Pinned(Protocol):
        @property
        def wsgi_app(self) -> WSGIApplication: ...

    class Serves(Protocol):
        """Where the current generation is found, and the lock that guards its change."""

        @property
        def lock(self) -> ReadersWriterLock: ...
        @property
        def current(self) -> Pinned: ...


class HotReloadMiddleware:
    """Serve each request by one generation of ``service``, held while a reload drains and applies.

    ``control`` answers ``prefix`` and all below it; without it nothing is answered there. Paths in ``exempt`` (whole
    segments) neither hold nor count as in flight.
    """

    def __init__(
        self, service: Serves, *, control: WSGIApplication | None = None, prefix: str = "", exempt: Sequence[str] = ()
    ) -> None:
        self._service = service
        self._lock = service.lock
        self._control = control
        self._prefix = prefix
        self._exempt = tuple(path.rstrip("/") for path in exempt)
        self._outside = (*self._exempt, prefix) if control is not None else self._exempt

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        enter = self._lock.acquire_read
        if self._outside and environ.get("PATH_INFO", "").startswith(self._outside):
            if self._control is not None and _is_below(environ["PATH_INFO"], self._prefix):
                return self._control(environ, start_response)
            if any(_is_below(environ["PATH_INFO"], path) for path in self._exempt):
                enter = self._lock.outside
        slot = Slot()
        try:
            outer = enter(slot, environ)
            slot.pin = generation = self._service.current if outer is None else outer.pin
            body = _Body(self._lock, slot, start_response)
            token = current_slot.set(slot)
            try:
                body.iterable = generation.wsgi_app(environ, body.start_response)
            finally:
                current_slot.reset(token)
        except BaseException:
            self._lock.release_read(slot)
            raise
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(body.iterable, file_wrapper):
            return _closing_with(body.iterable, body)
        return body


class _Body:
    """The response. Its ``close()``, or its end as garbage, gives the slot back."""

    __slots__ = ("_lock", "_slot", "_start_response", "_streamed", "iterable")

    iterable: Iterable[bytes]

    def __init__(self, lock: ReadersWriterLock, slot: Slot, start_response: StartResponse) -> None:
        self._lock = lock
        self._slot = slot
        self._start_response = start_response
        self._streamed = True

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        for name, value in headers:
            if name == "Content-Length":
                self._streamed = False
                break
            if value.startswith("text/event-stream") and name.lower() == "content-type":
                self._lock.release_read(self._slot)
                break
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        if self._streamed:
            return self._chunks()
        return iter(self.iterable)

    def _chunks(self) -> Iterator[bytes]:
        """Each chunk is made in the request's context, which the server's own code between them does not see."""
        iterator = iter(self.iterable)
        while True:
            token = current_slot.set(self._slot)
            try:
                chunk = next(iterator)
            except StopIteration:
                return
            finally:
                current_slot.reset(token)
            yield chunk

    def close(self) -> None:
        token = current_slot.set(self._slot)
        try:
            close = getattr(self.iterable, "close", None)
            if close is not None:
                close()
        finally:
            current_slot.reset(token)
            self._lock.release_read(self._slot)
            self._slot.pin = None

    def __del__(self) -> None:
        if self._slot.unreleased:
            self._lock.release_read(self._slot)


def _closing_with(wrapper: Any, body: _Body) -> Iterable[bytes]:
    """The server's own file wrapper, which it knows how to send without copying, closing as ``body`` does."""
    inner = _FileClose(getattr(wrapper, "close", None))
    try:
        wrapper.close = body.close
    except AttributeError:  # a wrapper that takes no attributes is sent as any other iterable
        return body
    body.iterable = inner
    return wrapper  # type: ignore[no-any-return]  # it is what the application returned


class _FileClose:
    """What remains of a file wrapper whose ``close`` was replaced: its own ``close``."""

    __slots__ = ("close",)

    def __init__(self, close: Callable[[], object] | None) -> None:
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")

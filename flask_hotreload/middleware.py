"""The WSGI middleware: every request takes a slot in the readers–writer lock and one generation.

::

    server → HotReloadMiddleware → /_reload…        the control application, outside the lock
                                 → exempt paths     the current generation, outside the lock
                                 → all else         a slot, the current generation, the slot back at ``close()``

A request sees the generation that was current when it entered, from its start to the ``close()`` of its response. The
slot is given back exactly once: at ``close()``, whatever that raises; when the application raises; or when the server
drops the response without closing it. An event stream gives it back when it starts, and keeps its generation.

All that makes the response is part of the request: the call of the application, each chunk of the body, and its
``close()`` run in the request's context, so that calls of the application made there are nested calls. The
server's own code between them does not.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

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
        self._control = control
        self._prefix = prefix
        #: How a request gets its slot, inside or outside of the lock. What returns not ``None`` has pinned it.
        self.enter: Callable[[Slot, WSGIEnvironment], Slot | None] = service.lock.acquire_read
        self.pass_by: Callable[[Slot, WSGIEnvironment], Slot | None] = service.lock.outside
        self._exempt = tuple(path.rstrip("/") for path in exempt)
        self._outside = self._exempt if control is None else (*self._exempt, prefix)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        enter = self.enter
        if environ.get("PATH_INFO", "").startswith(self._outside):
            if self._control is not None and _is_below(environ["PATH_INFO"], self._prefix):
                return self._control(environ, start_response)
            if any(_is_below(environ["PATH_INFO"], path) for path in self._exempt):
                enter = self.pass_by
        slot = Slot()
        body = _Body()
        body.slot = slot
        body.begin = start_response
        try:
            if enter(slot, environ) is None:
                slot.pin = self._service.current
            token = current_slot.set(slot)
            try:
                body.iterable = iterable = slot.pin.wsgi_app(environ, body.start_response)
            finally:
                current_slot.reset(token)
        except BaseException:
            body.give_back()
            raise
        if type(iterable) is ClosingIterator:  # most responses of Flask
            return body
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(iterable, file_wrapper):
            return _closing_with(iterable, body)
        return body


class _Body:
    """The response. Its ``close()``, or its end as garbage, gives the slot back."""

    __slots__ = ("begin", "iterable", "slot")

    begin: StartResponse  # the server's
    iterable: Iterable[bytes]
    slot: Slot | None  # until it is given back

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        for name, value in headers:
            if name == "Content-Type" or name.lower() == "content-type":
                if value.startswith("text/event-stream") and self.slot is not None:
                    self.slot.lock.release_read(self.slot)
                break
        if exc_info is None:
            return self.begin(status, headers)
        return self.begin(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.iterable) if _is_complete(self.iterable) else self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        iterator = iter(self.iterable)
        while True:
            token = current_slot.set(self.slot)
            try:
                chunk = next(iterator)
            except StopIteration:
                return
            finally:
                current_slot.reset(token)
            yield chunk

    def close(self) -> None:
        token = current_slot.set(self.slot)
        try:
            close = getattr(self.iterable, "close", None)
            if close is not None:
                close()
        finally:
            current_slot.reset(token)
            self.give_back()

    def give_back(self) -> None:
        slot = self.slot
        if slot is not None:
            slot.lock.release_read(slot)
            slot.pin = None
            self.slot = None  # last, so that an interruption on the way here is made up for by the destructor

    __del__ = give_back


def _is_complete(iterable: Iterable[bytes]) -> bool:
    """Whether making the chunks runs no code of the application: they are in a list already.

    Werkzeug has no public way to tell. If its iterator ever looks otherwise, every body is taken for a streamed one.
    """
    try:
        return type(iterable._callbacks[-1].__self__.response) is list  # type: ignore[attr-defined]  # see above
    except (AttributeError, IndexError, TypeError):
        return False


def _closing_with(wrapper: Any, body: _Body) -> Iterable[bytes]:
    """The server's own file wrapper, which it knows how to send without copying, closing as ``body`` does."""
    try:
        body.iterable = _FileClose(wrapper)
        wrapper.close = body.close
    except (AttributeError, TypeError):  # a wrapper that takes no attributes is sent as any other iterable
        body.iterable = wrapper
        return body
    return wrapper  # type: ignore[no-any-return]  # it is what the application returned


class _FileClose:
    """A file wrapper's own ``close``, once it has another one. It does not keep the wrapper alive."""

    __slots__ = ("_close", "_wrapper")

    def __init__(self, wrapper: Any) -> None:
        self._close: Callable[[], object] | None = vars(wrapper).get("close")
        self._wrapper = weakref.ref(wrapper)

    def close(self) -> None:
        wrapper = self._wrapper()
        if self._close is not None:
            self._close()
        elif hasattr(type(wrapper), "close"):
            type(wrapper).close(wrapper)  # type: ignore[union-attr]  # it has one

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")

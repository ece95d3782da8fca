"""Carry a request's slot and generation to where its context does not reach.

A plain ``Thread``, an executor or ``gevent.spawn`` starts with an empty context. What runs there would neither be
part of the request (a reload would not wait for it, and its calls of the application would be held) nor find the
request's generation::

    executor.submit(rpc.propagate(resize), image)

Flask's own context is carried by ``flask.copy_current_request_context``; both can be used together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask_hotreload.rwlock import Slot, current_slot

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def propagate(function: AnyFunction) -> AnyFunction:
    """``function``, which runs with the slot and the generation of the request that calls ``propagate``.

    While it runs it has a slot of its own. If the request is still inside when it begins, that is a further slot of
    the request: it is not held, and a reload waits for both. Otherwise it is a reader like any request, held by a
    closed gate and waited for. Either way it runs in the request's generation, which lives as long as ``function``
    is kept. Outside of a request there is nothing to carry, and ``function`` itself is returned.
    """
    marker = current_slot.get()
    while marker is not None and marker.pin is None:
        marker = marker.outer
    if marker is None:
        return function
    origin, pin, environ = marker, marker.pin, marker.environ
    described = {key: environ[key] for key in ("REQUEST_METHOD", "PATH_INFO") if key in environ} if environ else None

    @functools.wraps(function)
    def carrying(*args: Any, **kwargs: Any) -> Any:
        slot = Slot()
        token = current_slot.set(origin)
        try:
            if origin.lock.acquire_read(slot, described) is None:
                slot.pin = pin
            current_slot.set(slot)
            return function(*args, **kwargs)
        finally:
            current_slot.reset(token)
            origin.lock.release_read(slot)
            slot.pin = None

    return cast("AnyFunction", carrying)

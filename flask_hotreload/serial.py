"""One call at a time: the ``lock`` setting of a dispatcher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import Lock
from typing import Any

from flask_hotreload.rwlock import ReadersWriterLock


def serialized(function: Callable[..., Any], mutex: Lock, lock: ReadersWriterLock) -> Callable[..., Any]:
    """``function``, run by one caller at a time. Who waits lends its slot, and never waits for the gate with the mutex."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        while not mutex.acquire(blocking=False):
            with lock.lend():
                mutex.acquire()
                mutex.release()
        try:
            return function(*arguments, **named)
        finally:
            mutex.release()

    return call

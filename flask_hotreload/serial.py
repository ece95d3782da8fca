"""One call at a time of a function, in this process: what a dispatcher's ``lock`` setting does.

Who waits for another call lends its slots meanwhile, so a reload waits for the call that runs and not for the queue
behind it. Nobody waits for the gate with the mutex in hand: a writer could then wait for who waits for the mutex.

A call that would wait for itself, because it was made, directly or not, by the call that runs, raises
``RuntimeError``. As with any locks, two functions that call each other in both orders can wait for each other.
"""

from __future__ import annotations

import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flask_hotreload.mutex import Mutex

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask_hotreload.rwlock import ReadersWriterLock

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: The calls that this context descends from, outermost first.
_calls: ContextVar[tuple[_Call, ...]] = ContextVar("flask_hotreload.serial", default=())


class _Call:
    __slots__ = ("mutex", "running")

    def __init__(self, mutex: object) -> None:
        self.mutex = mutex
        self.running = True


def serialized(
    function: Callable[Parameters, Result], mutex: Mutex | threading.Lock, rwlock: ReadersWriterLock
) -> Callable[Parameters, Result]:
    """``function``, of whose calls only one at a time runs with ``mutex`` in hand."""

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        lock = mutex.lock if isinstance(mutex, Mutex) else mutex
        taken = lock.acquire(blocking=False)
        try:
            if not taken:
                _refuse_waiting_for_itself(function, mutex)
                taken = _wait_for_turn(lock, rwlock)
            return _run(mutex, function, *args, **kwargs)
        finally:
            if taken:
                lock.release()

    return call


def _wait_for_turn(lock: Any, rwlock: ReadersWriterLock) -> bool:
    """Come back with ``lock`` and with all slots. Without the lock if the wait is interrupted."""
    with rwlock.lend() as loan:
        while True:
            ready = False
            lock.acquire()
            try:
                ready = loan.regain()
            finally:
                if not ready:
                    lock.release()
            if ready:
                return True
            loan.wait()


def _refuse_waiting_for_itself(function: Callable[..., object], mutex: object) -> None:
    if any(call.mutex is mutex and call.running for call in _calls.get()):
        name = getattr(function, "__qualname__", repr(function))
        raise RuntimeError(
            f"{name} allows one call at a time and is being called by the call that runs: it would wait for itself. "
            "Move what both need into a function of its own"
        )


def _run(
    mutex: object, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    call = _Call(mutex)
    token = _calls.set((*_calls.get(), call))
    try:
        return function(*args, **kwargs)
    finally:
        call.running = False
        _calls.reset(token)

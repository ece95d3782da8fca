"""Threads that stay alive and do what they are told, so that a test decides who does what in which order."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from typing import Any

PATIENCE = 10.0  # seconds after which something that must happen has not


class Actor:
    """One thread with one context. ``start`` begins something, ``do`` also waits for it."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, lambda: function(*args, **kwargs)))
        return future

    def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.start(function, *args, **kwargs).result(PATIENCE)

    def end(self) -> None:
        self._tasks.put(None)

    def _work(self) -> None:
        contextvars.Context().run(self._loop)

    def _loop(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function = task
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
                del error
            del task, future, function


@contextmanager
def actors(count: int) -> Iterator[list[Actor]]:
    cast = [Actor() for _ in range(count)]
    try:
        yield cast
    finally:
        for actor in cast:
            actor.end()
        for actor in cast:
            actor.thread.join(PATIENCE)
            assert not actor.thread.is_alive(), "an actor never came back"


def until(predicate: Callable[[], object]) -> None:
    """Wait for something that must come to pass."""
    deadline = monotonic() + PATIENCE
    pause = threading.Event()
    while not predicate():
        assert monotonic() < deadline, "it did not happen"
        pause.wait(0.001)

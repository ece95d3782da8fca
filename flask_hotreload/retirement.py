"""What happens when the last request of an old generation has left, wherever that is noticed."""

from __future__ import annotations

import _thread
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from flask_hotreload.caches import forget_types
from flask_hotreload.generation import run_endings

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask_hotreload.generation import Afterlife, Generation


class Retirement:
    """``retired(number)`` is told of each generation once its callbacks have run. It cannot fail."""

    def __init__(self, retired: Callable[[int], object]) -> None:
        self._retired = retired
        self._leaving: deque[tuple[int, Afterlife]] = deque()
        self._releasing = 0  # the thread that releases a generation just now

    def await_end(self, generation: Generation) -> None:
        """It is not the current one any more. The calling thread calls :meth:`run` soon."""
        weakref.finalize(generation, self._left, generation.number, generation.afterlife).atexit = False
        self._releasing = threading.get_ident()

    def _left(self, number: int, afterlife: Afterlife) -> None:
        """The last request of a generation has left. Called wherever its last reference was dropped."""
        self._leaving.append((number, afterlife))
        if threading.get_ident() != self._releasing:
            # Not on this thread: it may hold any lock, since the garbage collector runs anywhere.
            _thread.start_new_thread(self.run, ())

    def run(self) -> None:
        """Retire those whose last request has left."""
        self._releasing = 0
        while self._leaving:
            try:
                number, afterlife = self._leaving.popleft()
            except IndexError:  # another thread was quicker
                return
            if afterlife.world is not None:
                afterlife.world.uninstall()
                afterlife.world = None
            afterlife.ended = afterlife.ended or bool(afterlife.endings)
            run_endings(afterlife.endings, number)
            forget_types()
            self._retired(number)

"""How the thread that prepares new code shares the interpreter with the requests that run beside it.

A thread that only computes hands the interpreter over every 5 ms, and each request needs it several times: between
reading, calling, locking and writing. So while new code is imported at full speed a busy service answers half as much
as it could, and requests queue up. Short turns with rests between them cost a request the length of a turn instead.
"""

from __future__ import annotations

import time

#: Rest for so many times the length of the turn before it.
REST = 3.0
#: Others are at work when they have used more than this share of a processor since the last turn began.
_BUSY = 0.05
#: Seconds; long enough that whoever waits gets the interpreter, greenlets too.
_SHORT = 0.0001


class Pace:
    """Called between short turns of work, by the one thread that does it.

    After each turn it rests for as long as requests need, but ``at_most`` so many seconds in all. Without other
    threads at work in this process there is nothing to rest for, and it goes on at once.
    """

    def __init__(self, *, at_most: float) -> None:
        self._left = at_most
        #: Seconds that were spent resting.
        self.rested = 0.0
        # When the last turn ended, and what processor time this thread and the whole process had used by then.
        self._ended, self._own, self._all = time.monotonic(), time.thread_time(), time.process_time()

    def give_way(self) -> None:
        """End a turn, and rest if others need it."""
        now, own, everyone = time.monotonic(), time.thread_time(), time.process_time()
        worked = own - self._own
        # Looked at from the end of the turn before: during a turn that holds the interpreter they come to nothing.
        others = everyone - self._all - worked
        busy = others > _BUSY * (now - self._ended)
        self._ended, self._own, self._all = now, own, everyone
        rest = min(REST * worked, self._left) if busy else 0.0
        self._left -= rest
        self.rested += rest
        time.sleep(max(rest, _SHORT))

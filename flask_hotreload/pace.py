"""How the thread that prepares new code shares the interpreter with the requests that run beside it.

A thread that only computes hands the interpreter over every 5 ms, and each request needs it several times: between
reading, calling, locking and writing. So while new code is imported at full speed a busy service answers half as much
as it could, and requests queue up. Short turns with rests between them cost a request the length of a turn instead.
"""

from __future__ import annotations

import gc
import sys
import threading
import time

#: Seconds after which a computing thread hands the interpreter over while a reload is under way.
TURN = 0.0005
#: A threshold that the garbage collector does not reach.
NEVER = 2**31 - 1
#: Rest for so many times the length of the turn before it.
REST = 4.0
#: Others are at work when they have used more than this share of a processor since the last turn began.
_BUSY = 0.05
#: Seconds for which they count as at work after that: requests come at intervals, and each is to find rests.
MOMENT = 0.05
#: Others that use more than this share of a processor while this thread rests have requests waiting.
SATURATED = 0.8
#: A queue that is still there after so many seconds, or rests, is one that the service has always: it is saturated
#: without a reload, too, and must get its new code.
PATIENCE, RESTS = 0.05, 5
#: Seconds; long enough that whoever waits gets the interpreter, greenlets too.
_SHORT = 0.0001


class Pace:
    """Called between short turns of work, by the one thread that does it.

    After each turn it rests in proportion, and on for a while if requests queue up: a queue that finds less of the
    interpreter than it needs grows until the work is done. It rests ``at_most`` so many seconds in all. Without other
    threads at work in this process there is nothing to rest for, and it goes on at once.
    """

    def __init__(self, *, at_most: float) -> None:
        self._left = at_most
        #: Seconds that were spent resting.
        self.rested = 0.0
        self._busy_until = 0.0
        # When the last turn ended, and what processor time this thread and the whole process had used by then.
        self._ended, self._own, self._all = time.monotonic(), time.thread_time(), time.process_time()

    def give_way(self) -> None:
        """End a turn, and rest if others need it."""
        now, own, everyone = time.monotonic(), time.thread_time(), time.process_time()
        worked = own - self._own
        # Looked at from the end of the turn before: during a turn that holds the interpreter they come to nothing.
        others = everyone - self._all - worked
        if others > _BUSY * (now - self._ended):
            self._busy_until = now + MOMENT
        self._ended, self._own, self._all = now, own, everyone
        if now < self._busy_until:
            self._rest(max(REST * worked, _SHORT))
        else:
            time.sleep(_SHORT)

    def _rest(self, seconds: float) -> None:
        patience = max(PATIENCE, RESTS * seconds)
        while (seconds := min(seconds, self._left, patience)) > 0:
            began, used = time.monotonic(), time.process_time()
            time.sleep(seconds)
            patience -= seconds
            self._left -= seconds
            self.rested += seconds
            if time.process_time() - used < SATURATED * (time.monotonic() - began):
                return
        time.sleep(_SHORT)


class ShortTurns:
    """From its making to :meth:`end` no request waits long for the interpreter, in the whole process.

    It changes hands every half millisecond: a request that gives it up, as it does at each system call, has it back
    within that time and not within the usual 5 ms; and so has the thread that holds all requests. And the garbage
    collector leaves out full collections, which importing many modules sets off and which stop every thread (62 ms
    with 200 modules); the next one comes when nothing is imported. Young garbage is collected as ever.
    """

    _lock = threading.Lock()  # protects the three below, for a few bytecodes
    _wanted = 0
    _interval = 0.0  # as they were before
    _thresholds = (0, 0, 0)

    def __init__(self) -> None:
        self._ended = False
        with ShortTurns._lock:
            ShortTurns._wanted += 1
            if ShortTurns._wanted == 1:
                ShortTurns._interval = sys.getswitchinterval()
                sys.setswitchinterval(min(TURN, ShortTurns._interval))
                ShortTurns._thresholds = young, middle, _ = gc.get_threshold()
                gc.set_threshold(young, middle, NEVER)

    @classmethod
    def under_way(cls) -> bool:
        """Whether somebody in this process has begun short turns and not ended them."""
        return cls._wanted > 0

    def end(self) -> None:
        """With the last one all is as it was, but for what somebody else has set in the meantime. Once only."""
        with ShortTurns._lock:
            if self._ended:
                return
            self._ended = True
            ShortTurns._wanted -= 1
            if ShortTurns._wanted:
                return
            if abs(sys.getswitchinterval() - min(TURN, ShortTurns._interval)) < TURN / 100:
                sys.setswitchinterval(ShortTurns._interval)
            if gc.get_threshold() == (*ShortTurns._thresholds[:2], NEVER):
                gc.set_threshold(*ShortTurns._thresholds)

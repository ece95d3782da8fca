"""A thread on which one transaction runs foreign code, each piece within its time limit.

What overruns gets one asynchronous exception; if it ends neither then, it is abandoned: the thread is a daemon,
nobody waits for it any longer, and whoever asked is told when it ends after all.
"""

from __future__ import annotations

import contextvars
import ctypes
import logging
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger("flask_hotreload")

#: Seconds that overrun code gets to end after the asynchronous exception.
GRACE = 0.5


class Overrun(Exception):
    """The code did not end in time.

    ``ended``
        Whether it has ended since, so that nothing of it is left.
    ``stack``
        ``(file, line)`` of where it was when its time was up, innermost first; empty for a greenlet.
    """

    def __init__(self, seconds: float, *, ended: bool, stack: list[tuple[str, int]]) -> None:
        super().__init__(f"not done after {seconds:g} s")
        self.seconds = seconds
        self.ended = ended
        self.stack = stack


class TimeIsUp(BaseException):
    """Raised inside overrun code; not an ``Exception``, so that ``except Exception`` does not keep it running."""


class BoundedThread:
    """Runs one function after another on one fresh thread, in one fresh context. Used by one asker at a time."""

    def __init__(self, name: str, *, on_late_end: Callable[[], object]) -> None:
        """``on_late_end`` is called, on the abandoned thread, when code that was given up has ended after all."""
        self._name = name
        self._on_late_end: Callable[[], object] = on_late_end
        #: In which it runs everything; the caller may set variables before the first run.
        self.context = contextvars.Context()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._abandoned = False

    def run(self, function: Callable[[], Result], *, seconds: float) -> Result:
        """What ``function()`` returns or raises. Raise :class:`Overrun` if it takes longer than ``seconds``.

        After an :class:`Overrun`, or when the asker itself was interrupted, the thread takes no more work.
        """
        if self._abandoned:
            raise RuntimeError("this thread was given up")
        if self._thread is None:
            self._thread = threading.Thread(target=self.context.run, args=(self._work,), name=self._name, daemon=True)
            self._thread.start()
        job = _Job(function)
        self._jobs.put(job)
        try:
            if job.done.wait(seconds):
                return job.outcome()  # type: ignore[no-any-return]  # it is what function returned
        except BaseException:
            if not job.done.is_set():
                self._give_up(job)
            raise
        stack = self._stack()
        raise Overrun(seconds, ended=self._give_up(job), stack=stack)

    @property
    def given_up(self) -> bool:
        """Whether it takes no more work, since a piece of it overran."""
        return self._abandoned

    @property
    def hung(self) -> bool:
        """Whether code that was given up is still running."""
        return self._abandoned and self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Let the thread end. Waits for it unless it was given up."""
        self._jobs.put(None)
        if self._abandoned:
            return
        if self._thread is not None:
            self._thread.join()
        self._on_late_end = _nothing  # the asker is let go of now, not when the garbage collector comes round

    def _stack(self) -> list[tuple[str, int]]:
        assert self._thread is not None
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
        return stack

    def _give_up(self, job: _Job) -> bool:
        """Interrupt the job; return whether it has ended. From here on its outcome is nobody's."""
        thread = self._thread
        assert thread is not None
        self._abandoned = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeIsUp))
        self._jobs.put(None)
        with job.state:
            job.late = not job.done.wait(GRACE)
        if not job.late:
            thread.join(GRACE)  # it has nothing left to do: who asks now whether it hangs is told no
        return not job.late

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                job.run()
                with job.state:
                    late = job.late
                if late:
                    self._end_late()
        except TimeIsUp:
            pass  # it arrived when the job had just ended

    def _end_late(self) -> None:
        try:
            self._on_late_end()
        except Exception:  # noqa: BLE001  # nobody is left who could be told otherwise
            _log.exception("cleaning up after code that ended late failed")


def _nothing() -> None:
    pass


class _Job:
    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        self.state = threading.Lock()  # protects ``late`` against the job's end
        self.late = False

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001  # whatever it is belongs to the asker
            self._error = error
        finally:
            self.done.set()

    def outcome(self) -> Any:
        error = self._error
        if error is None:
            return self._result
        self._error = None
        try:
            raise error
        finally:
            del error  # the frame would keep the traceback, and that the staged modules

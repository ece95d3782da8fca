"""Whose turn it is to write. SQLite's own waiting is slow under contention: it sleeps for whole milliseconds.

A ``flock`` that blocks would be the fastest, by a little; but nothing ends it while a stopped process (SIGSTOP, a
debugger, a frozen container) holds the lock, and then every worker would hang. So this asks again and again, at short
random intervals; under gevent other greenlets run in between.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from random import uniform

from flask_hotreload.errors import StoreUnavailable

#: Seconds between two attempts: at first, at most in the first ``_HASTE`` seconds, and afterwards.
_FIRST_PAUSE, _SHORT_PAUSE, _LONG_PAUSE = 40e-6, 300e-6, 5e-3
_HASTE = 0.05


class WriteLock:
    """One writer among all threads of all processes that name the same ``file``, for at most ``seconds`` each."""

    def __init__(self, file: Path, *, seconds: float) -> None:
        """Raise :class:`OSError`."""
        self.descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = file
        self._seconds = seconds
        self._threads = threading.Lock()  # a flock does not tell threads apart

    def __enter__(self) -> None:
        """Raise :class:`StoreUnavailable`, having waited, if the turn does not come."""
        until = time.monotonic() + self._seconds
        if not self._threads.acquire(timeout=self._seconds):
            raise self._unavailable()
        try:
            self._lock(until)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *raised: object) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def close(self) -> None:
        with self._threads:
            os.close(self.descriptor)

    def _lock(self, until: float) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0:
                    raise self._unavailable() from None
                longest = _SHORT_PAUSE if self._seconds - left < _HASTE else _LONG_PAUSE
                time.sleep(pause * uniform(0.5, 1.5))
                pause = min(1.5 * pause, longest)
            else:
                return

    def _unavailable(self) -> StoreUnavailable:
        holders = ", ".join(_holders(self.descriptor)) or "another thread"
        return StoreUnavailable(
            f"the store beside {self._file} is locked: {holders} has been writing for {self._seconds:g} s; if that "
            "process is stopped, continue or end it"
        )


def _holders(descriptor: int) -> list[str]:
    """The processes that hold a lock on this file, as far as the system tells."""
    status = os.fstat(descriptor)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in locks]
    return [
        f"process {each[4]}" for each in fields if "->" not in each and file in each and each[4] != str(os.getpid())
    ]

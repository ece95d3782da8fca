"""A door for tests: the named steps at which a process can be stopped, to be killed or paused there."""

from __future__ import annotations

import os

_STOP_AT, _, _FIFO = os.environ.get("HOTRELOAD_TEST_STOP_AT", "").partition(":")


def at_step(name: str) -> None:
    """Nothing, unless ``HOTRELOAD_TEST_STOP_AT`` is ``name:fifo``: then write the pid there and wait for a line."""
    if name == _STOP_AT:
        with open(_FIFO, "w") as fifo:
            fifo.write(f"{os.getpid()}\n")
        with open(_FIFO) as fifo:
            fifo.readline()

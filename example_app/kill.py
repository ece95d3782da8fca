"""Kill a worker, and know exactly which connections die with it. Linux: the kernel tells it in ``/proc``."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Event
from time import monotonic

_STOPPED = frozenset("TtZX")
_LISTEN = "0A"


def kill(pid: int, port: int, *, timeout: float = 10.0) -> frozenset[int]:
    """SIGKILL the process, and return the client's port of each connection to ``port`` that it had accepted.

    It is stopped before the look, so that it accepts none between look and kill. Raises ``TimeoutError`` if it
    cannot be stopped; it is killed all the same.
    """
    try:
        os.kill(pid, signal.SIGSTOP)
        _await_stopped(pid, timeout)
        return _ports_of_clients(pid, port)
    finally:
        os.kill(pid, signal.SIGKILL)


def _await_stopped(pid: int, timeout: float) -> None:
    """Return when no thread of the process runs any more."""
    deadline, pause = monotonic() + timeout, Event()
    while not _STOPPED.issuperset(_states(pid)):
        if monotonic() > deadline:
            raise TimeoutError(f"process {pid} did not stop within {timeout} s")
        pause.wait(0.001)


def _states(pid: int) -> set[str]:
    """proc(5), stat, field 3: the letter of each thread's state."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(stat.read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
    return states


def _ports_of_clients(pid: int, port: int) -> frozenset[int]:
    """proc(5), net/tcp: local and remote address are fields 2 and 3, hexadecimal; 4: state; 10: inode."""
    held = {os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
    connections = (line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
    return frozenset(
        int(fields[2].rpartition(":")[2], 16)
        for fields in connections
        if f"socket:[{fields[9]}]" in held and fields[3] != _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    )

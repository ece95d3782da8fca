"""How far a reload has come, told while it is under way to whoever asked for it.

==========  ==========================================================================================================
event       what it tells
==========  ==========================================================================================================
``begin``   ``{"id", "workers"}``: the reload has its turn; ``workers`` are the ids of those that take part
``phase``   ``{"phase"}``: prepare, check, drain, apply, decide or release begins, in the worker that was asked
``worker``  ``{"id", "host", "pid", "step", "ok", "error"}``: a worker has ``prepared``, ``applied`` or ``settled``,
            or has refused to
==========  ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: ``progress(event, data)``, called on any thread. It neither waits nor raises: who watches never harms a reload.
Progress = Callable[[str, dict[str, Any]], object]


def untold(event: str, data: dict[str, Any]) -> None:
    """Nobody watches."""


def worker_told(identity: str, step: str, *, ok: bool, error: str | None = None) -> dict[str, Any]:
    """The data of a ``worker`` event. ``identity``: ``host:pid``, and perhaps more after a dot."""
    host, _, process = identity.rpartition(":")
    pid = process.partition(".")[0]
    return {
        "id": f"{host}:{pid}",
        "host": host,
        "pid": int(pid) if pid.isdecimal() else 0,
        "step": step,
        "ok": ok,
        "error": error,
    }

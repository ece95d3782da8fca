"""A mutex that is made when it is first needed.

So it belongs to the process that uses it, and is gevent's where gevent has replaced the locks since the application
was imported (gunicorn's ``--preload``): one that was made before would block every greenlet of the process.
"""

from __future__ import annotations

import threading
from typing import Any


class Mutex:
    """``lock`` is a ``threading.Lock``, or an ``RLock`` if ``reentrant``; the same one at each use."""

    __slots__ = ("_made", "_reentrant")

    def __init__(self, *, reentrant: bool = False) -> None:
        self._made: dict[str, Any] = {}
        self._reentrant = reentrant

    @property
    def lock(self) -> Any:
        made = self._made.get("lock")
        return made or self._made.setdefault("lock", threading.RLock() if self._reentrant else threading.Lock())

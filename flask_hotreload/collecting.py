"""Full garbage collections that reloads have made worth their while, put off to where they disturb least.

One stops every thread of its process for as long as it takes to look at all there is: a tenth of a second in a large
service. All workers have the same reason for one at the same instant, when they begin to serve new code.
"""

from __future__ import annotations

import gc
import logging
import random
import threading

from flask_hotreload.pace import ShortTurns
from flask_hotreload.side_effects import THREAD_PREFIX

#: Seconds between which each worker draws when it tries to: so they do it one after the other, mostly.
EARLIEST, LATEST = 0.5, 5.0

_log = logging.getLogger("flask_hotreload")
_collecting: threading.Thread | None = None
_urgent = threading.Event()


def collect_later(*, urgent: bool = False) -> None:
    """Call the garbage collector in a while, on a thread of its own, once no reload is under way.

    To be called by one thread at a time. Who calls again before that has happened gets the same collection.

    ``urgent``: now, whatever is under way.
    """
    global _collecting  # noqa: PLW0603  # there is one garbage collector
    if urgent:
        _urgent.set()
    if _collecting is not None and _collecting.is_alive():  # after a fork it is not, in the child
        return
    _collecting = threading.Thread(target=_collect, name=f"{THREAD_PREFIX}collect", daemon=True)
    try:
        _collecting.start()
    except RuntimeError as error:  # too many threads
        _collecting = None
        _log.warning("old generations are collected after a later reload: %s", error)


def _collect() -> None:
    while not _urgent.wait(random.uniform(EARLIEST, LATEST)) and ShortTurns.under_way():
        pass  # it is tried again
    _urgent.clear()
    gc.collect()

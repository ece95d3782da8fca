"""Full garbage collections that reloads have made worth their while, put off to where they disturb least.

One stops every thread of its process for as long as it takes to look at all there is: a tenth of a second in a large
service. All workers have the same reason for one at the same instant, when they begin to serve new code.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import threading

from flask_hotreload.mutex import Mutex
from flask_hotreload.pace import ShortTurns
from flask_hotreload.side_effects import THREAD_PREFIX

#: Seconds between which each worker draws when it tries to: so they do it one after the other, mostly.
EARLIEST, LATEST = 0.5, 5.0

_log = logging.getLogger("flask_hotreload")


def collect_later(*, urgent: bool = False) -> None:
    """Call the garbage collector in a while, on a thread of its own, once no reload is under way.

    Who calls again before that has begun gets the same collection.

    ``urgent``: now, whatever is under way.
    """
    with _Collection.mutex.lock:
        collection = _Collection.next
        if collection is None or not collection.is_alive():
            collection = _Collection()
            try:
                collection.start()
            except RuntimeError as error:  # too many threads
                _log.warning("old generations are collected after a later reload: %s", error)
                return
            _Collection.next = collection
    if urgent:
        collection.urgent.set()


class _Collection(threading.Thread):
    next: _Collection | None = None  # the one that has not begun
    mutex = Mutex()  # protects it

    def __init__(self) -> None:
        super().__init__(name=f"{THREAD_PREFIX}collect", daemon=True)
        self.urgent = threading.Event()

    def run(self) -> None:
        while not self.urgent.wait(random.uniform(EARLIEST, LATEST)) and ShortTurns.under_way():
            pass  # it is tried again
        with _Collection.mutex.lock:
            _Collection.next = None  # it may look past what becomes garbage from now on
        gc.collect()


def _reset_in_child() -> None:
    _Collection.next, _Collection.mutex = None, Mutex()


os.register_at_fork(after_in_child=_reset_in_child)

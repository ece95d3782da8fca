"""A part of each application here: what a test wants to know of the process, and of the generation that answers."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from itertools import count
from weakref import WeakSet

from flask import Blueprint, Flask, current_app

EDITION = 0
watch = Blueprint("watch", __name__)


def begin(app: Flask) -> None:
    """Note that this generation's application and modules have been made."""
    rpc = app.extensions["hotreload"]
    rpc.keep("made in", lambda: EDITION)
    rpc.keep("applications", WeakSet).add(app)
    rpc.keep("modules", WeakSet).add(sys.modules[__name__])
    app.register_blueprint(watch)


def pause() -> None:
    """Let a reload overtake the request that works here."""
    time.sleep(0.02)


def answer(*editions: int) -> dict:
    """The answer of the edition ``EDITION``; an error if one of the parts that have worked on it is of another."""
    rpc = current_app.extensions["hotreload"]
    next(rpc.keep("answers", count))
    if {*editions} != {EDITION}:
        raise RuntimeError(f"parts of the editions {editions} have worked together under {EDITION}")
    return {"result": {"edition": EDITION, "generation": rpc.generation, "pid": os.getpid()}}


@watch.get("/health")
def health() -> dict:
    return {"pid": os.getpid(), "generation": current_app.extensions["hotreload"].generation}


@watch.get("/inside")
def inside() -> dict:
    rpc = current_app.extensions["hotreload"]
    gc.collect()
    return {
        "pid": os.getpid(),
        "made in": rpc.keep("made in", lambda: None),
        "applications": len(rpc.keep("applications", WeakSet)),
        "modules": len(rpc.keep("modules", WeakSet)),
        "threads": sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("whole-")),
    }


@watch.get("/answers")
def answers() -> dict:
    """How many there have been. This counts as one: ask once."""
    return {"answers": next(current_app.extensions["hotreload"].keep("answers", count))}

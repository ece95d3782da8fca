import os

import state
from flask import current_app

EDITION = 0
GIVEN = None


def where() -> dict:
    state.calls += 1
    generation = current_app.extensions["hotreload"].generation
    return {"edition": EDITION, "generation": generation, "pid": os.getpid(), "first": state.first, "given": GIVEN}


def note_first(server, module, dispatcher):
    """A callback: what it changes is no part of any generation's modules."""
    state.first = module.EDITION

"""``--wait``: until the probation of what was just committed is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask_hotreload.cli.options import Asked
from flask_hotreload.cli.outcome import BUSY, CODE_AT_FAULT, DONE, UNREACHABLE, WORKER_FAILED, Failure
from flask_hotreload.cli.printing import clean, note, out

#: Seconds between two looks, and how often the service may be away meanwhile.
INTERVAL = 0.5
AWAY = 20

_CODES = {"passed": DONE, "rolled-back": CODE_AT_FAULT, "replaced": BUSY}


def wait_for_end(asked: Asked, report: Mapping[str, Any]) -> int:
    """Watch the probation of a committed ``report``; tell how it ends, and return the exit code.

    Passed: 0. Rolled back: 1, and the errors. Another reload has taken its place: 3. It could not be rolled back: 4.
    """
    generation, away = report["generation"], 0
    while True:
        try:
            told = asked.get().get("probation")
            away = 0
        except Failure as failure:
            away += 1
            if failure.code != UNREACHABLE or away > AWAY:
                raise
            told = {"generation": generation, "state": "running"}
        # A worker that has just been asked for the first time may not know of it yet, or of a later one already.
        if told is not None and told["generation"] == generation and told["state"] != "running":
            return _ended(told)
        if told is not None and told["generation"] > generation:
            note(f"generation {generation} was replaced by another one while it was on probation", style="yellow")
            return BUSY
        time.sleep(INTERVAL)


def _ended(told: Mapping[str, Any]) -> int:
    state, count = told["state"], f"{told['requests']} requests, {told['errors']} errors"
    if state == "passed":
        out(f"generation {told['generation']} has passed its probation: {count}")
        return DONE
    note(f"generation {told['generation']} {clean(state.replace('-', ' '))}: {count}", style="red")
    for kind in told["kinds"]:
        note(f"  {clean(str(kind['place'] or '?'))}: {clean(kind['type'])}, {kind['count']} times")
    if told["error"]:
        note(f"  {clean(told['error'])}")
    return _CODES.get(state, WORKER_FAILED)

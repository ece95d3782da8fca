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
    generation, away, without_report = report["generation"], 0, 0
    while True:
        last: Mapping[str, Any] | None = None
        try:
            status = asked.get()
            told, last, away = status.get("probation"), status.get("last"), 0
        except Failure as failure:
            away += 1
            if failure.code != UNREACHABLE or away > AWAY:
                raise
            told = {"generation": generation, "state": "running"}
        # A worker that has just been asked for the first time may not know of it yet, or of a later one already.
        if told is not None and told["generation"] == generation and told["state"] != "running":
            if told["state"] == "rolled-back" and not _is_of(last, generation) and without_report < AWAY:
                without_report += 1  # it is written a moment later
            else:
                return _ended(told, last)
        if told is not None and told["generation"] > generation:
            note(f"generation {generation} was replaced by another one while it was on probation", style="yellow")
            return BUSY
        time.sleep(INTERVAL)


def _is_of(last: Mapping[str, Any] | None, generation: int) -> bool:
    """Whether it is the report of the rollback from ``generation``."""
    return last is not None and last["trigger"] == "rollback" and last["previous"] == generation


def _ended(told: Mapping[str, Any], last: Mapping[str, Any] | None) -> int:
    """``last``: the last report. That of the rollback has the errors of all workers; ``told`` may lack the latest."""
    state, count = told["state"], f"{told['requests']} requests, {told['errors']} errors"
    if state == "passed":
        out(f"generation {told['generation']} has passed its probation: {count}")
        return DONE
    note(f"generation {told['generation']} {clean(state.replace('-', ' '))}", style="red")
    for line in last["warnings"] if last is not None and _is_of(last, told["generation"]) else ():
        note(f"  {clean(line)}")
    if told["error"]:
        note(f"  {clean(told['error'])}")
    return _CODES.get(state, WORKER_FAILED)

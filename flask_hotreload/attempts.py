"""What became of the reloads that this process was asked for."""

from __future__ import annotations

import copy
from collections import deque
from typing import NamedTuple

from flask_hotreload.errors import ReloadError
from flask_hotreload.report import ReloadReport

#: How many are remembered.
HISTORY = 100


class Attempt(NamedTuple):
    """``error`` is raised again for a retry with the same id. ``began``: whether there was a transaction at all."""

    report: ReloadReport
    error: ReloadError | None = None
    began: bool = True


class Attempts:
    """The last ones."""

    def __init__(self) -> None:
        self._past: deque[Attempt] = deque(maxlen=HISTORY)

    @property
    def reports(self) -> list[ReloadReport]:
        """Newest first."""
        return [attempt.report for attempt in reversed(self._past)]

    def remember(self, report: ReloadReport, error: ReloadError | None = None, *, began: bool = True) -> None:
        self._past.append(Attempt(report, None if error is None else _bare(error), began))

    def earlier(self, identity: str) -> ReloadReport | None:
        """What an earlier transaction with the same id came to: its report, or its error raised.

        An attempt that never began (busy, tainted, not the expected generation) does not count: it can be retried.
        """
        for attempt in self._past:
            if attempt.began and attempt.report.id == identity:
                if attempt.error is not None:
                    raise copy.copy(attempt.error)  # a raise would hang its traceback on the one that is kept
                return attempt.report
        return None


def _bare(error: ReloadError) -> ReloadError:
    """``error`` without the exception that it came from, whose frames would keep the new modules alive."""
    bare = copy.copy(error)
    if hasattr(bare, "original"):
        bare.original = None
    return bare

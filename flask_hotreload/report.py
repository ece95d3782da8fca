"""The report of a reload: one frozen value that Python, HTTP, the log and the command line all show."""

from __future__ import annotations

import traceback
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import msgspec

Status = Literal["committed", "aborted", "checked", "unchanged"]
Trigger = Literal["http", "python", "cli", "watch", "rollback", "catch-up"]


_LONGEST = 400  # characters of an error in a log line


class Timings(msgspec.Struct, frozen=True):
    """Milliseconds of each phase. ``pause_ms``: how long the lock was closed."""

    prepare_ms: float = 0
    check_ms: float = 0
    drain_ms: float = 0
    apply_ms: float = 0
    pause_ms: float = 0
    total_ms: float = 0


class Straggler(msgspec.Struct, frozen=True):
    """A request that was still inside when the drain ended; it finished on its own generation."""

    method: str
    path: str
    age_ms: float


class Drain(msgspec.Struct, frozen=True):
    """``in_flight``: requests inside when the lock was closed; ``held``: requests that waited for it to open."""

    in_flight: int = 0
    stragglers: tuple[Straggler, ...] = ()
    held: int = 0


class Change(msgspec.Struct, frozen=True):
    """What became of one name at one API path."""

    path: str
    name: str
    change: Literal["added", "replaced", "removed"]


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker's part. ``id`` is ``host:pid``."""

    id: str
    host: str
    pid: int
    ok: bool
    pause_ms: float = 0
    error: str | None = None


class ErrorReport(msgspec.Struct, frozen=True):
    """Why a reload was refused. ``type`` is the name of the error class, ``line`` is 1-based."""

    type: str
    message: str
    file: str | None = None
    line: int | None = None
    traceback: str | None = None
    worker: str | None = None

    @property
    def located(self) -> str:
        """The message, with file and line in front unless it names them."""
        if self.file is None:
            return self.message
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return self.message if place in self.message else f"{place}: {self.message}"


class StagedReport(msgspec.Struct, frozen=True):
    """What is staged and waits to be committed: by which id, and until when, as RFC 3339 in UTC."""

    id: str
    until: str


class ReloadReport(msgspec.Struct, frozen=True):
    """What one reload did, or why it did nothing. ``to_dict()`` is the JSON form.

    ``generation`` is the number that is served after it, ``previous`` the one that was served before.
    """

    id: str
    status: Status
    generation: int
    previous: int
    label: str | None
    digest: str | None
    trigger: Trigger
    actor: str | None
    restores: int | None = None
    timings: Timings = Timings()
    drain: Drain = Drain()
    changes: tuple[Change, ...] = ()
    modules: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    workers: tuple[WorkerReport, ...] = ()
    error: ErrorReport | None = None
    started_at: str = ""
    staged: StagedReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return values

    def summary(self) -> str:
        """One line for a log."""
        label = f" {self.label!r}" if self.label else ""
        if self.error is not None:
            told = f"{self.error.type}: {_shortened(self.error.located)}"
        else:
            told = (
                f"generation {self.previous} → {self.generation}, {len(self.changes)} changes, "
                f"pause {self.timings.pause_ms:.2f} ms, held {self.drain.held}, total {self.timings.total_ms:.1f} ms"
            )
        return _printable(f"reload {self.id}{label} {self.status}: {told}")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _printable(text: str) -> str:
    """``text`` on one line: what a client or an exception has put into it cannot begin another."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def describe_error(error: BaseException, *, worker: str | None = None) -> ErrorReport:
    """``error`` with its place in the new code, and the traceback of what it came from."""
    text = getattr(error, "traceback", None)
    original = getattr(error, "original", None)
    if text is None and original is not None:
        text = "".join(traceback.format_exception(original))
    return ErrorReport(
        type=type(error).__name__,
        message=str(error),
        file=getattr(error, "file", None),
        line=getattr(error, "line", None),
        traceback=text,
        worker=getattr(error, "worker", None) or worker,
    )


def utc_now(seconds: float = 0.0) -> str:
    """Now, or so many ``seconds`` later, as RFC 3339 in UTC with milliseconds."""
    moment = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

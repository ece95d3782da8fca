"""What one process tells of an attempt to reload: the report of a transaction, or of what never became one."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flask_hotreload.document import Document, new_id
from flask_hotreload.report import ReloadReport, StagedReport, Status, WorkerReport, describe_error, utc_now

if TYPE_CHECKING:
    from flask_hotreload.errors import ReloadError
    from flask_hotreload.host import Asked
    from flask_hotreload.transaction import Transaction


def worker_id() -> str:
    """``host:pid`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def report_of(
    transaction: Transaction, error: ReloadError | None, *, generation: int, parked: StagedReport | None
) -> ReloadReport:
    """What this process can tell of a transaction, as far as it has come.

    ``generation``: the number of what is served. ``parked``: what is to be told if the transaction waits to be
    committed.
    """
    staged, timings = transaction.staged, transaction.timings
    return ReloadReport(
        id=transaction.document.id,
        status=_status_of(transaction, error),
        generation=generation,
        previous=transaction.previous,
        label=transaction.label,
        digest=transaction.digest,
        trigger=transaction.asked.trigger,
        actor=transaction.asked.actor,
        restores=transaction.document.restores,
        timings=timings,
        drain=transaction.drained,
        changes=staged.changes if staged is not None else (),
        modules=staged.modules if staged is not None else (),
        warnings=transaction.warnings,
        workers=(
            WorkerReport(
                id=worker_id(),
                host=socket.gethostname(),
                pid=os.getpid(),
                ok=error is None,
                pause_ms=timings.pause_ms,
                error=None if error is None else str(error),
            ),
        ),
        error=None if error is None else describe_error(error),
        started_at=transaction.started_at,
        staged=parked,
    )


def report_of_refusal(error: ReloadError, document: Document, asked: Asked, *, generation: int) -> ReloadReport:
    """That of an attempt which never began, while that generation was served."""
    return ReloadReport(
        id=document.id,
        status="aborted",
        generation=generation,
        previous=generation,
        label=document.label,
        digest=None,
        trigger=asked.trigger,
        actor=asked.actor,
        error=describe_error(error),
        started_at=utc_now(),
    )


def unreadable(given: object) -> Document:
    """What can be told of a document that cannot be read."""
    told = given if isinstance(given, Mapping) else {}
    identity, label = told.get("id"), told.get("label")
    return Document(
        id=identity if isinstance(identity, str) and identity else new_id(),
        label=label if isinstance(label, str) else None,
    )


def _status_of(transaction: Transaction, error: ReloadError | None) -> Status:
    if transaction.committed:
        return "committed"
    if error is not None:
        return "aborted"
    return "unchanged" if transaction.unchanged else "checked"

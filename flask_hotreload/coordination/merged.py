"""One report of what all workers tell of their parts, and the error that it amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from flask_hotreload import errors
from flask_hotreload.coordination.protocol import WANTED
from flask_hotreload.coordination.records import Ballot, Phase, Vote
from flask_hotreload.coordination.worker import Part
from flask_hotreload.report import Drain, ErrorReport, ReloadReport, Timings, WorkerReport, describe_error

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import Member, TransactionRecord

Key = tuple[Ballot, str]


class Wanted(NamedTuple):
    """What was asked for, and by whom."""

    label: str | None
    trigger: str
    actor: str | None
    started_at: str
    prepared_only: bool


def concluded(
    record: TransactionRecord,
    phase: Phase,
    wanted: Wanted,
    members: Sequence[Member],
    votes: Iterable[Vote],
    *,
    reason: str | None,
    dead: set[str],
    silent: set[str],
) -> ReloadReport | errors.ReloadError:
    """What a transaction that was decided came to: its report, or the error that carries it.

    ``members``: its participants. ``reason``: why it was aborted.
    """
    committed = phase is Phase.COMMITTED
    base = ReloadReport(
        id=record.id,
        status="committed" if committed else "checked",
        generation=record.generation if committed else record.base,
        previous=record.base,
        label=wanted.label,
        digest=None,
        trigger=wanted.trigger,  # type: ignore[arg-type]  # it was a Trigger when it was written
        actor=wanted.actor,
        started_at=wanted.started_at,
    )
    cast = {(vote.ballot, vote.member): vote for vote in votes}
    parts = {key: part_of(vote) for key, vote in cast.items()}
    found = parts.get((Ballot.PREPARED, record.coordinator), Part()).report
    if not committed and found is not None and found.status == "unchanged":
        return found
    report = merged(base, members, parts, dead=dead, silent=silent)
    if committed or (wanted.prepared_only and reason in WANTED):
        return report
    refused = [key for key, vote in cast.items() if not vote.ok and key[0] is not Ballot.SETTLED]
    return error_of(report, parts, refused, reason or "it was aborted", coordinator=record.coordinator)


def part_of(vote: Vote | None) -> Part:
    """What a participant tells with its vote."""
    return Part() if vote is None else msgspec.json.decode(vote.detail, type=Part)


def merged(
    base: ReloadReport,
    members: Sequence[Member],
    parts: Mapping[Key, Part],
    *,
    dead: set[str],
    silent: set[str],
) -> ReloadReport:
    """``base`` with what each participant tells, the longest times of all, and the sum of their requests."""
    latest = [(member, _latest(parts, member.id)) for member in members]
    reports = [part.report for _, part in latest if part is not None and part.report is not None]
    told = next((report for part in parts.values() if (report := part.report) and _tells_what(report)), None)
    return replace(
        base,
        label=base.label if base.label is not None else next((report.label for report in reports), None),
        restores=next((report.restores for report in reports if report.restores is not None), None),
        staged=next((report.staged for report in reports if report.staged is not None), None),
        digest=next((report.digest for report in reports if report.digest is not None), None),
        timings=_longest([report.timings for report in reports]),
        drain=Drain(
            in_flight=sum(report.drain.in_flight for report in reports),
            stragglers=tuple(straggler for report in reports for straggler in report.drain.stragglers),
            held=sum(report.drain.held for report in reports),
        ),
        changes=told.changes if told is not None else (),
        modules=told.modules if told is not None else (),
        warnings=tuple(dict.fromkeys(warning for report in reports for warning in report.warnings)),
        workers=tuple(
            _worker(member, part, _refusal(parts, member.id), died=member.id in dead, silent=member.id in silent)
            for member, part in latest
        ),
    )


def _tells_what(report: ReloadReport) -> bool:
    """Told once by each participant, when it has prepared."""
    return bool(report.changes or report.modules)


def _latest(parts: Mapping[Key, Part], member: str) -> Part | None:
    for ballot in (Ballot.SETTLED, Ballot.APPLIED, Ballot.PREPARED):
        part = parts.get((ballot, member))
        if part is not None and part.report is not None:
            return part
    return parts.get((Ballot.PREPARED, member))


def _refusal(parts: Mapping[Key, Part], member: str) -> ErrorReport | None:
    for ballot in (Ballot.PREPARED, Ballot.APPLIED):
        part = parts.get((ballot, member))
        if part is not None and part.error is not None:
            return part.error
    return None


def _worker(
    member: Member, part: Part | None, refusal: ErrorReport | None, *, died: bool, silent: bool
) -> WorkerReport:
    report = part.report if part is not None else None
    error = "died" if died else "silent" if silent else refusal.message if refusal else None
    return WorkerReport(
        id=f"{member.host}:{member.pid}",
        host=member.host,
        pid=member.pid,
        ok=error is None,
        pause_ms=report.timings.pause_ms if report is not None else 0,
        error=error,
    )


def _longest(timings: Sequence[Timings]) -> Timings:
    names = Timings.__struct_fields__
    return Timings(**{name: max((getattr(each, name) for each in timings), default=0) for name in names})


def error_of(
    report: ReloadReport, parts: Mapping[Key, Part], refused: Iterable[Key], reason: str, *, coordinator: str
) -> errors.ReloadError:
    """The error that a refused transaction raises, of the kind that the first worker to refuse has met."""
    error: errors.ReloadError | None = None
    described: ErrorReport | None = None
    for key in sorted(refused, key=lambda key: (key[0] is not Ballot.PREPARED, key[1])):
        if (told := parts[key].error) is not None:
            described = replace(told, worker=key[1])
            error = raised(described)
            break
    if error is None or described is None:
        failed = [worker for worker in report.workers if not worker.ok]
        who = ", ".join(f"{worker.id} {worker.error}" for worker in failed)
        error = errors.WorkerFailed(
            f"the reload was aborted: {reason}" + (f" ({who})" if who else ""),
            worker=failed[0].id if failed else coordinator,
            reason=reason,
        )
        described = describe_error(error)
    error.report = replace(report, status="aborted", error=described)
    return error


def raised(told: ErrorReport) -> errors.ReloadError:
    """The error that a worker met, made anew from what it tells."""
    if told.type == "LoadError":
        return errors.LoadError(told.message, file=told.file, line=told.line)
    if told.type == "ApplyError":
        return errors.ApplyError(told.message, file=told.file, line=told.line)
    if told.type == "DrainTimeout":
        return errors.DrainTimeout(told.message, seconds=0.0)
    if told.type == "WorkerFailed":
        return errors.WorkerFailed(told.message, worker=told.worker or "?", reason=told.message)
    return _PLAIN.get(told.type, errors.ReloadError)(told.message)


_PLAIN: dict[str, type[errors.ReloadError]] = {
    kind.__name__: kind
    for kind in (errors.ReloadInvalid, errors.CheckFailed, errors.ReloadBusy, errors.StoreUnavailable)
}

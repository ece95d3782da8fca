"""What came of the reloads of a deployment: one report of each, which every worker can read.

The coordinator writes it when its transaction has ended. One that has died, or was cut off from the store, does not.
Then it is made of the transaction's record and of what the participants have told with their votes, by whoever needs
it first: to answer a retry with the same id, to show the history, or to begin the next transaction, since with that
the votes of the one before are gone. So nothing that was begun is left without a report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.merged import Wanted, concluded, raised
from flask_hotreload.coordination.payload import Signs, unseal
from flask_hotreload.coordination.protocol import unsettled
from flask_hotreload.coordination.records import Ballot, Member, TransactionRecord, View
from flask_hotreload.document import read_document
from flask_hotreload.errors import ReloadError, StoreUnavailable
from flask_hotreload.report import ReloadReport

if TYPE_CHECKING:
    from flask_hotreload.coordination.store import Store

_log = logging.getLogger("flask_hotreload")


class Reports:
    """As ``member`` sees them. ``conducting()``: the transaction that it coordinates now.

    Any thread may ask. All but :meth:`keep` raise :class:`StoreUnavailable`.
    """

    def __init__(self, store: Store, signer: Signs, *, member: Member, deployment: str) -> None:
        self._store = store
        self._signer = signer
        self._member = member
        self._deployment = deployment
        self.conducting: Callable[[], str | None] = lambda: None

    def keep(self, report: ReloadReport) -> None:
        """Tell every worker of it. The reload itself is over: that it cannot be told is no failure of it."""
        began = bool(report.workers)  # else another attempt with this id may follow
        try:
            self._store.put_report(msgspec.json.encode(report), transaction=report.id if began else None)
        except StoreUnavailable as error:
            _log.warning("the report of reload %s could not be kept: %s", report.id, error)

    def history(self) -> list[ReloadReport]:
        """Newest first."""
        try:
            self._complete_forsaken(self._store.view(self._member.release))
        except StoreUnavailable:
            pass  # it cannot be written: what is there can be read all the same
        return [_read(each) for each in reversed(self._store.reports())]

    def of(self, transaction: str) -> ReloadReport | ReloadError | None:
        """What became of a transaction, asked for anywhere: its report, or its error with the report in it.

        ``None``: it has not begun or not ended, its coordinator is about to tell, or that is not kept any more.
        """
        found = self._store.report(transaction)
        if found is None:
            view = self._store.view(self._member.release)
            if view.active is None or view.active.id != transaction:
                return None
            self._complete_forsaken(view)
            found = self._store.report(transaction)
        return None if found is None else _as_outcome(_read(found))

    def complete(self, record: TransactionRecord | None) -> None:
        """Write the report of ``record``, the last transaction, if it has ended and nobody has done so."""
        if record is None or not record.phase.decided or self._store.report(record.id) is not None:
            return
        view = self._store.view(self._member.release)  # with the votes, which a glance is without
        if view.active is None or view.active.id != record.id:
            return  # somebody else was quicker
        report = self._made_afterwards(view.active, view)
        if report is not None:
            # Its coordinator, if it lives after all, knows more: what it writes takes the place of this.
            self._store.put_report(msgspec.json.encode(report), transaction=record.id, only_first=True)

    def _complete_forsaken(self, view: View) -> None:
        """The same, but leave it to a coordinator that lives, and wait until all who live have carried it out."""
        record = view.active
        if record is None or not record.phase.decided or unsettled(view) - self._gone(record.participants, view):
            return
        if record.coordinator == self._member.id:
            forsaken = record.id != self.conducting()
        else:
            forsaken = record.coordinator in self._gone([record.coordinator], view)
        if forsaken:
            self.complete(record)

    def _gone(self, participants: Iterable[str], view: View) -> set[str]:
        """Those that have died, and those of whom nothing is left: the traces of the dead are removed in the end."""
        members = {member.id for member in view.members}
        there = [member for member in participants if member in members]
        return {*participants} - {*there} | self._store.dead(there)

    def _made_afterwards(self, record: TransactionRecord, view: View) -> ReloadReport | None:
        try:
            payload = unseal(
                record.payload,
                self._signer,
                deployment=self._deployment,
                release=record.release,
                generation=record.generation,
                transaction=record.id,
            )
        except StoreUnavailable as error:
            _log.error("what became of reload %s cannot be told: %s", record.id, error)
            return None
        document = read_document(payload.document)
        known = {member.id: member for member in view.members}
        settled = view.voted(Ballot.SETTLED)  # who has died after that has done its part
        outcome = concluded(
            record,
            record.phase,
            Wanted(
                document.label, payload.trigger, payload.actor, payload.started_at, document.dry_run or document.stage
            ),
            [known.get(member) or _stranger(member) for member in record.participants],
            view.votes,
            reason=record.reason,
            dead={member for member in self._gone(record.participants, view) if member not in settled},
            silent=set(),
        )
        return outcome.report if isinstance(outcome, ReloadError) else outcome


def _read(report: bytes) -> ReloadReport:
    return msgspec.json.decode(report, type=ReloadReport)


def _as_outcome(report: ReloadReport) -> ReloadReport | ReloadError:
    if report.error is None:
        return report
    error = raised(report.error)
    error.report = report
    return error


def _stranger(identity: str) -> Member:
    """A member that is gone, as far as its id tells of it."""
    host, _, process = identity.rpartition(":")
    pid = process.partition(".")[0]
    return Member(identity, host, int(pid) if pid.isdecimal() else 0, "", 0)

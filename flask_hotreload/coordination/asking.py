"""A reload that somebody in this process has asked for, from the question to its outcome."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask_hotreload.coordination.merged import part_of
from flask_hotreload.coordination.records import Ballot, JournalRecord, Member, TransactionRecord, Vote
from flask_hotreload.progress import worker_told
from flask_hotreload.report import ReloadReport, utc_now

if TYPE_CHECKING:
    from flask_hotreload.coordination.payload import Payload
    from flask_hotreload.coordination.protocol import Coordinator
    from flask_hotreload.deadline import Deadline
    from flask_hotreload.document import Document
    from flask_hotreload.errors import ReloadError
    from flask_hotreload.host import Asked


@dataclass
class Asking:
    """A reload that a thread of this process waits for."""

    document: Document
    written: dict[str, Any]  # the document, portable
    asked: Asked
    turn: Deadline
    staged: Payload | None = None  # what it commits
    started_at: str = field(default_factory=utc_now)
    coordinator: Coordinator | None = None  # once it has the turn
    record: TransactionRecord | None = None
    obsolete: tuple[int, ...] = ()
    sealed: bytes = b""
    digests: tuple[str, ...] = ()
    journal: JournalRecord | None = None  # as soon as locks are closed
    ballot: Ballot = Ballot.PREPARED  # what its participants vote on now
    members: dict[str, Member] = field(default_factory=dict)
    taken: tuple[Vote, ...] = ()  # votes that were not cast in the store
    votes: dict[tuple[Ballot, str], Vote] = field(default_factory=dict)
    outcome: ReloadReport | ReloadError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def see(self, vote: Vote) -> None:
        """Count a vote, and tell of it if it is a new one."""
        if (vote.ballot, vote.member) not in self.votes:
            error = None if vote.ok else part_of(vote).error
            told = worker_told(
                vote.member,
                vote.ballot.value,
                ok=vote.ok or error is None,  # it found nothing to do, or has undone what another one refused
                error=error.message if error is not None else None,
            )
            self.asked.progress("worker", told)
        self.votes[vote.ballot, vote.member] = vote

    def finish(self, outcome: ReloadReport | ReloadError) -> None:
        self.outcome = outcome
        self.done.set()

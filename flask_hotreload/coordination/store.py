"""Where the workers of a deployment meet. The interface; the implementations stand beside it.

A store keeps what it has acknowledged, and each of its changes happens wholly or not at all, as if alone. One thing
it may forget when it crashes: that a transaction is in ``APPLY``, with the votes cast since then; nothing can come of
it but an abort. Nothing else is asked of a store: the protocol is right however late, often or
seldom wake-ups arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from flask_hotreload.coordination.records import (
    JournalRecord,
    Member,
    News,
    Phase,
    StagedRecord,
    TransactionRecord,
    View,
    Vote,
)

#: How many reports a store keeps.
REPORTS = 100
#: How many transactions a store remembers by their ids, and how many decisions after their records are obsolete.
REMEMBERED = 1000
#: How many releases a store remembers beside those that have members.
RELEASES = 20


class Store(Protocol):
    """All methods but :meth:`now`, :meth:`ring`, :meth:`close` may raise
    :class:`~flask_hotreload.errors.StoreUnavailable`; then it is unknown whether a change happened: reading tells.
    """

    @property
    def member_id(self) -> str:
        """The id under which this process joins; no other living process has it. Asking makes the process *alive*
        for :meth:`dead`, until it ends or closes the store.
        """

    def now(self) -> float:
        """Seconds on a clock that all members share and that runs on while a process is stopped. Never raises."""

    def view(self, release: str, transaction: str | None = None) -> View:
        """Everything, as of one moment; ``head`` for ``release``, ``outcome`` for ``transaction``. Votes may be there
        that were cast a moment later.
        """

    def glance(self, release: str, transaction: str | None = None) -> View:
        """The same without votes and members, which cost the most: all that a participant needs."""

    # Members ---------------------------------------------------------------------------------------------------

    def join(self, member: Member) -> bool:
        """Make ``member`` a participant of transactions that begin from now on.

        Refused, with ``False``, unless its generation is the head of its release and no transaction of that release
        is undecided: a worker never joins behind what is served.
        """

    def update(self, member: Member) -> None:
        """Replace what is told of a member. Nothing happens if it is none."""

    def leave(self, member: str) -> None:
        """The member admits no request from now on: its vote is not waited for."""

    def renew(self, member: str, generation: int) -> float:
        """Until when this process's member may admit requests, in seconds of its :func:`time.monotonic`.

        As long as it may, it is not :meth:`dead` unless its process has ended. Counted from before the store was
        asked, so that no clock is compared with another; infinity where the store learns of deaths from the kernel.
        Minus infinity, and nothing is renewed, if it is no member, or ``generation`` is not the head of its release:
        then it has to catch up and :meth:`join` again.
        """

    def dead(self, members: Iterable[str]) -> set[str]:
        """Those of ``members`` that admit no request from now on until they have joined again: their processes have
        ended, or their leases have run out. Never a guess. Who is told dead here cannot renew afterwards; what it
        has told of itself may stay in the view.
        """

    # The transaction -------------------------------------------------------------------------------------------

    def begin(self, record: TransactionRecord) -> bool:
        """Make it the active one, and forget the votes of the one before. Refused

        * while another one, of any release, is undecided;
        * if this id :meth:`has_begun` before, whatever came of it: a second attempt needs an id of its own;
        * if ``base`` is not the head of its release, or ``generation`` not above every head;
        * unless every participant is a member of the release, and every other member of the release is dead: whoever
          has joined since the participants were listed has to be among them.
        """

    def tidy(self) -> None:
        """Do now what the next :meth:`begin` would do else: nobody waits for anything, it is said. Nothing happens
        while a transaction is undecided.
        """

    def has_begun(self, transaction: str) -> bool:
        """Whether a transaction of this id was begun, in any release: among the last :data:`REMEMBERED` that were
        begun, the last :data:`REMEMBERED` whose records became obsolete, and all that a journal holds. An id that was
        used longer ago is as good as new.
        """

    def advance(self, transaction: str, *, to: Phase, deadline: float, payload: bytes | None = None) -> bool:
        """From ``STAGING`` to ``PREPARE``, or from ``PREPARE`` to ``APPLY``. Refused from anywhere else."""

    def vote(self, vote: Vote, *, told: Member | None = None) -> int:
        """Cast a vote; return how many have voted yes on this ballot by then: of several that vote at once at least
        one is told the whole number. Refused, with 0, if the transaction is not the active one, if this member has
        cast one on the same ballot, or, except for ``SETTLED``, if it is decided. (One that is cast while it is being
        decided, or after a commit, may still be counted; nothing comes of that.)

        ``told``: with ``SETTLED``, what the same member tells of itself, to :meth:`update` before, whatever becomes
        of the vote.
        """

    def lay_ready(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> None:
        """Write what :meth:`commit` with the same arguments would write, as far as possible while nobody is held.
        What is laid ready and not committed goes when the next transaction begins.
        """

    def commit(self, record: JournalRecord, *, obsolete: Iterable[int] = ()) -> bool:
        """Decide for commit, and write the journal's record, in one change. Refused unless the transaction is the
        active one and in ``APPLY``: then it is aborted, or was committed before.

        ``obsolete``: generations of the same release whose records the new one makes superfluous. They leave the
        journal in the same change.
        """

    def abort(self, transaction: str, reason: str) -> bool:
        """Decide for abort. Refused if it is decided or not the active one."""

    # The journal -----------------------------------------------------------------------------------------------

    def journal(self, release: str) -> Sequence[JournalRecord]:
        """The committed transactions of a release that are not obsolete, oldest first.

        A blob of theirs may be gone by the time it is asked for, if a commit in between made the record obsolete:
        then read the journal again.
        """

    def new_release(self, release: str, *, only_if: str) -> bool:
        """Let workers that boot from now on belong to ``release``, with an empty journal and generation numbers
        going on. Refused unless ``only_if`` is the one that they belong to so far, and if there is one of this name.

        Of those that have no members and are not the one that workers boot with, all but the last :data:`RELEASES`
        are forgotten, with all that is theirs; their numbers are not given again.
        """

    def release_of(self, sources: str) -> str | None:
        """The release that began with, or committed, a whole source with this digest; of several the one that did so
        last. ``None``: it is not known.
        """

    def publish_again(
        self,
        release: str,
        head: int,
        journal: Sequence[JournalRecord],
        blobs: Mapping[str, bytes],
        base: bytes | None,
    ) -> bool:
        """Give back to a store what it has lost: ``release`` serves ``head``, by just this journal and base.

        Refused, unless ``head`` is above the head that the store has for the release. An undecided transaction of the
        release is aborted, and all members of the release have to :meth:`join` again. ``blobs`` are those that the
        journal and the base need.
        """

    def put_seal(self, seal: bytes) -> bytes:
        """Keep ``seal``, opaque here, unless there is one and any member lives; return the one that is kept."""

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """Keep sources by digest: for the active transaction, and from then on while a record of a journal, a base,
        or what is staged, names them. The next :meth:`begin` removes all others, so put them after your own.
        """

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Digest → source, of those that are there."""

    def put_base(self, release: str, base: bytes, blobs: Mapping[str, bytes]) -> bool:
        """Keep a base, opaque here, for workers of ``release`` that start later, and its sources by digest; it takes
        the place of every earlier one. Refused once anything was committed in the release, while any transaction is
        undecided, and if workers that boot now belong to another release.
        """

    def base(self, release: str) -> bytes | None:
        """The base of a release; ``None``: there is none."""

    def put_staged(self, staged: StagedRecord) -> None:
        """Keep it until its time, in the place of what was staged in the release before."""

    def staged(self, release: str) -> StagedRecord | None:
        """What is staged in a release; ``None``: nothing is, or its time is up."""

    def drop_staged(self, transaction: str, *, unless_begun: str | None = None) -> bool:
        """Keep what ``transaction`` has staged no longer. Refused if it is not there, and if a transaction with the
        id ``unless_begun`` :meth:`has_begun`.
        """

    # The past ----------------------------------------------------------------------------------------------------

    def put_report(self, report: bytes, *, transaction: str | None = None, only_first: bool = False) -> None:
        """Remember what came of an attempt, opaque here. The last :data:`REPORTS` are kept.

        ``transaction``: the one that it is of. There is one report of each: it takes the place of an earlier one, or
        with ``only_first`` it is dropped if there is an earlier one.
        """

    def report(self, transaction: str) -> bytes | None:
        """The report that was put for ``transaction``, if it is still kept."""

    def reports(self) -> list[bytes]:
        """What is remembered, oldest first."""

    # Wake-ups: hints ---------------------------------------------------------------------------------------------

    def ring(self, members: Iterable[str], news: News | None = None) -> None:
        """Wake these members' :meth:`wait`, if possible; others may be woken, too. Never raises, never blocks.

        ``news`` has to be acknowledged by this store: who hears it believes it. No other deployment hears it.
        """

    def wait(self, seconds: float | None) -> News | None:
        """Return soon after a ring, also one from before the call, or after ``seconds``; sometimes without reason.
        One thread at a time. Of the news of several rings one is returned; the others may be lost.
        """

    def close(self) -> None:
        """Let go of everything, and end a :meth:`wait`. The member, if any, is dead afterwards."""

"""Where the workers of a deployment meet. The interface; the implementations stand beside it.

A store keeps what it has acknowledged, and each of its changes happens wholly or not at all, as if alone. Nothing
else is asked of it: the protocol is right however late, often or seldom wake-ups arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from flask_hotreload.coordination.records import JournalRecord, Member, Phase, TransactionRecord, View, Vote


class Store(Protocol):
    """Every method may raise :class:`~flask_hotreload.errors.StoreUnavailable`; then it is unknown whether a change
    happened, and reading tells.
    """

    def now(self) -> float:
        """Seconds on a clock that all members share and that runs on while a process is stopped."""

    def view(self, release: str, transaction: str | None = None) -> View:
        """Everything, as of one moment; ``head`` for ``release``, ``outcome`` for ``transaction``."""

    # Members ---------------------------------------------------------------------------------------------------

    def join(self, member: Member) -> bool:
        """Make ``member`` a participant of transactions that begin from now on.

        Refused, with ``False``, unless its generation is the head of its release and no transaction of that release
        is undecided: a worker never joins behind what is served.
        """

    def update(self, member: Member) -> None:
        """Replace what is told of a member. Nothing happens if it is none."""

    def leave(self, member: str) -> None:
        """The member serves no longer."""

    def dead(self, members: Iterable[str]) -> set[str]:
        """Those of ``members`` that have certainly ended. Never a guess from silence."""

    # The transaction -------------------------------------------------------------------------------------------

    def begin(self, record: TransactionRecord) -> bool:
        """Make it the active one. Refused while another one of any release is undecided, or if ``base`` is not the
        head of its release.
        """

    def advance(self, transaction: str, *, to: Phase, deadline: float, payload: bytes | None = None) -> bool:
        """From ``STAGING`` to ``PREPARE``, or from ``PREPARE`` to ``APPLY``. Refused from anywhere else."""

    def vote(self, vote: Vote) -> bool:
        """Cast a vote. Refused if the transaction is not the active one, if this member has cast one on the same
        ballot, or, except for ``SETTLED``, if it is decided.
        """

    def commit(self, record: JournalRecord) -> bool:
        """Decide for commit, and write the journal's record, in one change. Refused unless the transaction is the
        active one and in ``APPLY``: then it is aborted, or was committed before.
        """

    def abort(self, transaction: str, reason: str) -> bool:
        """Decide for abort. Refused if it is decided or not the active one."""

    # The journal -----------------------------------------------------------------------------------------------

    def journal(self, release: str) -> Sequence[JournalRecord]:
        """The committed transactions of a release, oldest first."""

    def new_release(self, release: str, *, only_if: str) -> bool:
        """Let workers that boot from now on belong to ``release``, with an empty journal and generation numbers
        going on. Refused unless ``only_if`` is the one that they belong to so far.
        """

    def put_blobs(self, blobs: Mapping[str, bytes]) -> None:
        """Keep sources by digest."""

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Digest → source, of those that are there."""

    # Wake-ups: hints ---------------------------------------------------------------------------------------------

    def ring(self, members: Iterable[str]) -> None:
        """Wake these members' :meth:`wait`, if possible. Never raises."""

    def wait(self, seconds: float | None) -> None:
        """Return soon after a ring, or after ``seconds``; sometimes without any reason."""

    def close(self) -> None:
        """Let go of everything. The member, if any, is dead afterwards."""

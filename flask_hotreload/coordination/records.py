"""What the workers of one deployment tell each other through the store. Frozen values, no behaviour."""

from __future__ import annotations

from enum import Enum

import msgspec

from flask_hotreload.probation import Tally


class Phase(str, Enum):
    """How far a transaction has come. ``COMMITTED`` and ``ABORTED`` are decisions: they never change again."""

    STAGING = "staging"  # the asker's own worker prepares, which finds out what all will run
    PREPARE = "prepare"  # every participant prepares
    APPLY = "apply"  # every participant closes its lock, drains, applies
    COMMITTED = "committed"
    ABORTED = "aborted"

    @property
    def decided(self) -> bool:
        return self in (Phase.COMMITTED, Phase.ABORTED)


class Ballot(str, Enum):
    """What a participant votes on, once in a transaction each."""

    PREPARED = "prepared"  # the new code is ready
    APPLIED = "applied"  # the lock is closed and everything has been applied: only the decision is missing
    SETTLED = "settled"  # the decision has been carried out and the lock is open


class Member(msgspec.Struct, frozen=True):
    """A worker that serves. ``id``: the store's ``member_id``; ``seen``: when it said so, on the store's clock.

    ``sources``: one digest over all sources that it runs. ``tally``: of its generation, if that is on probation.
    """

    id: str
    host: str
    pid: int
    release: str
    generation: int
    state: str = "serving"
    in_flight: int = 0
    held: int = 0
    seen: float = 0.0
    sources: str = ""
    tally: Tally | None = None


class TransactionRecord(msgspec.Struct, frozen=True):
    """The one transaction that is under way, or the last one that was.

    ``participants``
        Ids of those whose votes count: the living members of the release when it began, ``coordinator`` among them.
    ``generation``
        The number that will be served if it commits; ``base`` the one it changes.
    ``deadline``
        When the phase must have ended, on the store's clock.
    ``payload``
        Signed: what is to be run. Opaque to the protocol.
    ``reason``
        Why it was aborted.
    """

    id: str
    release: str
    coordinator: str
    participants: tuple[str, ...]
    base: int
    generation: int
    phase: Phase
    deadline: float
    payload: bytes = b""
    reason: str | None = None


class News(msgspec.Struct, frozen=True, array_like=True):
    """What a ring may tell: ``transaction`` has come to ``phase``, until ``deadline`` on the store's clock.

    ``agreed``: and every participant has voted yes on what this phase asks of it. ``record``: as it stands there, if
    it is short.

    Whoever rings has it from the store. Of ``COMMITTED``, and that all have agreed, it stays true; of ``PREPARE`` and
    ``APPLY`` until somebody aborts.
    """

    transaction: str
    phase: Phase
    deadline: float = 0.0
    agreed: bool = False
    record: TransactionRecord | None = None


class Vote(msgspec.Struct, frozen=True):
    """One participant's word. ``detail``: JSON for the report; opaque to the protocol."""

    transaction: str
    ballot: Ballot
    member: str
    ok: bool
    detail: bytes = b"{}"


class JournalRecord(msgspec.Struct, frozen=True):
    """A committed transaction. ``payload`` is signed, and names the digests of the sources and the record before.

    ``digests``
        Of the blobs that replaying it needs; the store keeps these as long as the record.
    ``sources``
        If it made a whole source: the digest of that, by which a worker that boots with the same files finds its
        release.
    """

    release: str
    generation: int
    transaction: str
    payload: bytes
    digests: tuple[str, ...]
    sources: str = ""


class StagedRecord(msgspec.Struct, frozen=True):
    """What all workers have prepared, and keep to be committed ``until`` then, on the store's clock.

    ``transaction`` has staged it for the generation ``base``; ``generation`` was its number. ``payload`` is signed.
    ``digests``: of the blobs that staging it anew needs; the store keeps these as long as this.
    """

    release: str
    transaction: str
    base: int
    generation: int
    until: float
    payload: bytes
    digests: tuple[str, ...]


class View(msgspec.Struct, frozen=True):
    """What the store held at one moment, read in one step.

    ``release``
        The release that a worker which boots now belongs to.
    ``head``
        The generation that the release asked about serves; 0 for one that the store does not know.
    ``newest``
        The highest generation of any release: the next one is ``newest + 1``, so that no number is given twice.
    ``active``
        The transaction under way, or the last one; ``None`` when there was none.
    ``votes``
        Those of ``active``.
    ``outcome``
        Of the transaction that was asked about: its phase; ``None`` when it was not asked about one.
    """

    release: str
    head: int
    newest: int
    active: TransactionRecord | None
    votes: tuple[Vote, ...]
    members: tuple[Member, ...]
    outcome: Phase | None = None

    def voted(self, ballot: Ballot) -> dict[str, Vote]:
        """Member → its vote on ``ballot``."""
        return {vote.member: vote for vote in self.votes if vote.ballot is ballot}

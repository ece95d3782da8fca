"""What a coordinator writes down of a reload, for the other workers and for who reads it in the journal later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_hotreload.coordination.base import base_hash
from flask_hotreload.coordination.beginning import NOTHING_LEFT, Left
from flask_hotreload.coordination.merged import part_of
from flask_hotreload.coordination.payload import Payload, Signs, keys_of, seal, with_kept_settings
from flask_hotreload.coordination.records import Ballot, JournalRecord, Member, Phase, StagedRecord, TransactionRecord
from flask_hotreload.coordination.shipped import INTERPRETER, NOTHING, Read

if TYPE_CHECKING:
    from flask_hotreload.coordination.asking import Asking
    from flask_hotreload.coordination.journal import Journal
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.coordination.worker import Worker


class Composer:
    """For ``member``. ``keep``: for how many generations back the journal serves rollbacks."""

    def __init__(
        self, store: Store, worker: Worker, signer: Signs, *, member: Member, deployment: str, keep: int
    ) -> None:
        self._store = store
        self._worker = worker
        self._signer = signer
        self._member = member
        self._deployment = deployment
        self._keep = keep

    def opening(self, asking: Asking, generation: int) -> tuple[Phase, bytes]:
        """With which phase it begins, and the payload for that. Raise :class:`ReloadError`.

        What is run is found out by staging it here first; but for a rollback, which all can stage at once.
        """
        if asking.document.restores is None:
            payload = self._payload(asking, generation, asking.written, **_sources(asking.staged))
            return Phase.STAGING, seal(payload, self._signer)
        return Phase.PREPARE, self.whole(asking, generation)

    def whole(self, asking: Asking, generation: int) -> bytes:
        """All that the others need to know, and its place in the journal. The store gets what it does not hold.

        Raise :class:`ReloadError`.
        """
        journal, wanted = self._worker.journal(), asking.document
        document = with_kept_settings(asking.written, journal.documents)
        report = part_of(asking.votes.get((Ballot.PREPARED, self._member.id))).report
        keys = () if wanted.restores is not None else keys_of(document, report.modules if report is not None else ())
        following = journal.followed_by(
            generation, keys=keys, clear_old=wanted.clear_old, restores=wanted.restores, keep=self._keep
        )
        read, left = self._sources(asking, journal)
        if read.blobs or left.blobs:
            self._store.put_blobs({**read.blobs, **left.blobs})
        asking.obsolete, asking.digests = following.obsolete, tuple(sorted({*read.digests, *left.digests}))
        payload = self._payload(
            asking,
            generation,
            document,
            sources=read.references,
            keys=keys,
            live=following.live,
            roots=() if wanted.restores is not None else self._worker.roots,
            interpreter=INTERPRETER,
            parent=following.parent,
            began=following.began,
            turned=following.turned,
            base=base_hash(self._store, self._member.release) if journal.newest is None else journal.newest.base,
            beginning=left.beginning,
        )
        asking.sealed = seal(payload, self._signer)
        return asking.sealed

    def _sources(self, asking: Asking, journal: Journal) -> tuple[Read, Left]:
        """For the others, and for the journal's readers. What one worker alone tries out is for nobody else."""
        alone = asking.record is not None and asking.record.participants == (self._member.id,)
        if alone and asking.document.dry_run:
            return NOTHING, NOTHING_LEFT
        rolls_back = asking.document.restores is not None
        read = NOTHING if rolls_back else self._worker.sources_read(journal.digests)
        return read, self._worker.left(journal, read.digests)

    def journal_record(self, asking: Asking, record: TransactionRecord) -> JournalRecord:
        """Of what :meth:`whole` has made."""
        return JournalRecord(
            record.release, record.generation, record.id, asking.sealed, asking.digests, self._worker.whole
        )

    def staged_record(self, asking: Asking, record: TransactionRecord, until: float) -> StagedRecord:
        """The same, to be committed ``until`` then, on the store's clock."""
        return StagedRecord(
            record.release, record.id, record.base, record.generation, until, asking.sealed, asking.digests
        )

    def _payload(self, asking: Asking, generation: int, document: dict[str, Any], **more: Any) -> Payload:
        return Payload(
            deployment=self._deployment,
            release=self._member.release,
            generation=generation,
            transaction=asking.document.id,
            trigger=asking.asked.trigger,
            actor=asking.asked.actor,
            started_at=asking.started_at,
            document=document,
            restores=asking.document.restores,
            reason=asking.asked.reason,
            at=self._store.now(),
            commits=asking.document.commits,
            **more,
        )


def _sources(staged: Payload | None) -> dict[str, Any]:
    """From what a commit makes in a worker that has not staged it."""
    if staged is None:
        return {}
    return {"sources": staged.sources, "roots": staged.roots, "interpreter": staged.interpreter}

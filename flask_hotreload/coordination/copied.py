"""A worker's copy of what the store holds of its release, to be given back to a store that has lost it.

It follows what this worker carries out, so that little has to be read for it, and is bounded by what the journal
keeps: records, and the blobs that they name. What runs here is not held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.base import open_base
from flask_hotreload.coordination.beginning import left_before
from flask_hotreload.coordination.payload import Beginning, Payload, Signs
from flask_hotreload.coordination.records import JournalRecord

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import TransactionRecord
    from flask_hotreload.coordination.store import Store


class JournalCopy:
    """``running()``: digest → bytes of what runs here. It belongs to the agent's thread."""

    def __init__(
        self, store: Store, signer: Signs, *, release: str, running: Callable[[], Mapping[str, bytes]]
    ) -> None:
        self._store = store
        self._signer = signer
        self._release = release
        self._running = running
        self.records: tuple[JournalRecord, ...] = ()
        self.base: bytes | None = None
        self.blobs: dict[str, bytes] = {}
        self.of = -1  # the generation that it makes
        self._began: tuple[Beginning | None, frozenset[str]] = (None, frozenset())  # as read last, and its digests

    @property
    def complete(self) -> bool:
        """Whether everything is there that others would need."""
        return self.blobs.keys() >= self._digests()

    def read(self, generation: int, transaction: str | None) -> None:
        """Copy what the store holds, if ``transaction`` has made ``generation`` there.

        Raise :class:`StoreUnavailable`.
        """
        records, base = self._store.journal(self._release), self._store.base(self._release)
        self._take(records, base, generation)
        if transaction is not None and records and records[-1].transaction != transaction:
            self.of = -1  # the store has lost that one, and others have committed another in the meantime
        missing = self._digests() - self.blobs.keys()
        if missing:
            self.blobs |= self._store.blobs(missing)

    def follow(self, record: TransactionRecord, sources: str) -> None:
        """``record`` was committed, and runs here; ``sources`` as in its record of the journal.

        Raise :class:`StoreUnavailable` if something has to be read and cannot be.
        """
        payload = msgspec.json.decode(self._signer.verify(record.payload), type=Payload)
        read = {each for ref in payload.sources for each in (ref.digest, ref.code) if each}
        live = {each.generation for each in payload.live}
        kept = [each for each in self.records if each.generation in live]
        if len(kept) < len(live):
            self.read(record.generation, record.id)
            return
        digests = tuple(sorted(read | self._digests_of(payload.beginning)))
        newest = JournalRecord(record.release, record.generation, record.id, record.payload, digests, sources)
        self._take([*kept, newest], self.base, record.generation)
        if not self.complete:
            self.blobs |= self._store.blobs(self._digests() - self.blobs.keys())

    def _digests_of(self, beginning: Beginning | None) -> frozenset[str]:
        """Of what the release began with, which every record of it needs; read once."""
        if beginning != self._began[0]:
            self._began = beginning, left_before(beginning, self._store).digests
        return self._began[1]

    def _take(self, records: Sequence[JournalRecord], base: bytes | None, generation: int) -> None:
        self.records, self.base = tuple(records), base
        self.of = generation if not records or records[-1].generation == generation else -1
        there = {**self.blobs, **self._running()}
        self.blobs = {digest: there[digest] for digest in self._digests() if digest in there}

    def _digests(self) -> set[str]:
        base = set() if self.base is None else open_base(self.base, self._signer, self._release).digests()
        return base.union(*(record.digests for record in self.records))

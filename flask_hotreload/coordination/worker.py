"""A worker's own part of a coordinated transaction: what the protocol's actions mean in this process."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from flask_hotreload.coordination.payload import LiveRecord, Payload, Signs, SourceReference, hash_of, unseal
from flask_hotreload.document import read_document
from flask_hotreload.errors import ReloadError, StoreUnavailable, WorkerFailed
from flask_hotreload.reloader import worker_id
from flask_hotreload.report import ErrorReport, ReloadReport, describe_error
from flask_hotreload.sources import Source
from flask_hotreload.transaction import Asked

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import JournalRecord, TransactionRecord
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.reloader import Reloader
    from flask_hotreload.transaction import Transaction


_log = logging.getLogger("flask_hotreload")


class Part(msgspec.Struct, frozen=True):
    """What one worker tells of its part, with each vote."""

    report: ReloadReport | None = None
    error: ErrorReport | None = None


class Worker:
    """Runs one transaction at a time on ``reloader``, for the agent, on the agent's thread."""

    def __init__(self, reloader: Reloader, store: Store, signer: Signs, *, deployment: str, release: str) -> None:
        self._reloader = reloader
        self._store = store
        self._signer = signer
        self._deployment = deployment
        self._release = release
        self._transaction: Transaction | None = None
        self._error: ReloadError | None = None

    @property
    def generation(self) -> int:
        return self._reloader.current.number

    # Steps. Each returns whether it went well, and what to tell of it. -------------------------------------------

    def prepare(self, record: TransactionRecord) -> tuple[bool, Part]:
        """Stage and check what the record's payload says, from its sources as far as it names them."""
        try:
            payload = self._unseal(record.payload, record.generation, record.id)
            document = read_document(payload.document)
            self._reloader.admit(document)
            self._transaction = self._reloader.begin(
                document,
                Asked(payload.trigger, payload.actor),  # type: ignore[arg-type]  # it was a Trigger when it was signed
                number=record.generation,
                sources=self._sources(payload.sources),
            )
            self._transaction.prepare()
            self._transaction.check()
        except Exception as error:  # noqa: BLE001  # whatever it is, this worker refuses and says why
            return False, self._failed(error)
        return True, self._part()

    def apply(self) -> tuple[bool, Part]:
        """Close the lock, drain, apply. The lock stays closed, whatever this returns."""
        assert self._transaction is not None
        try:
            self._transaction.drain()
            self._transaction.apply()
        except Exception as error:  # noqa: BLE001  # as above
            return False, self._failed(error)
        return True, self._part()

    def release(self) -> None:
        """Serve what is staged and open the lock. Cannot fail."""
        assert self._transaction is not None
        self._reloader.commit(self._transaction)

    def restore(self) -> None:
        """Undo everything and open the lock."""
        if self._transaction is not None:
            self._transaction.abort()

    def end(self) -> Part:
        """Let go; the lock is open by now."""
        part = Part()
        if self._transaction is not None:
            part = Part(report=self._reloader.end(self._transaction, self._error))
        self._transaction = self._error = None
        return part

    # The journal -------------------------------------------------------------------------------------------------

    def sources_read(self) -> tuple[tuple[SourceReference, ...], dict[str, bytes]]:
        """What the staged code was made from: references, and the bytes by digest."""
        assert self._transaction is not None
        sources = self._transaction.snapshot.sources
        references = tuple(SourceReference(real, source.path, source.digest) for real, source in sources.items())
        return references, {source.digest: source.data for source in sources.values()}

    def catch_up(self, records: Sequence[JournalRecord], head: int) -> None:
        """Run the journal's records in their order, without asking anybody. Raise :class:`ReloadError`.

        ``head``: what the release serves. It may be ahead of the records, where a release began with that number.
        """
        for payload in self._verified(records):
            if payload.generation <= self.generation:
                continue
            document = read_document({**payload.document, "checks": [], "dryRun": False})
            transaction = self._reloader.begin(
                document,
                Asked("catch-up", payload.actor),
                number=payload.generation,
                sources=self._sources(payload.sources),
            )
            try:
                transaction.prepare()
                transaction.drain()
                transaction.apply()
                self._reloader.commit(transaction)
            finally:
                self._reloader.end(transaction)
        if not records:
            self._reloader.renumber(head)
        self._reloader.tell()

    def _verified(self, records: Sequence[JournalRecord]) -> list[Payload]:
        """The payloads, provided that they are exactly those that the newest one says remain."""
        payloads = [self._unseal(record.payload, record.generation, record.transaction) for record in records]
        if payloads:
            told = [(live.generation, live.hash) for live in payloads[-1].live]
            there = [(record.generation, hash_of(record.payload)) for record in records[:-1]]
            if told != there:
                raise StoreUnavailable(
                    "the journal does not hold the records that its newest one names; nothing of it is executed"
                )
        return payloads

    def live_records(self, records: Sequence[JournalRecord]) -> tuple[list[LiveRecord], list[Mapping[str, Any]]]:
        """The journal as the next payload's ``live`` has to tell it, and the documents."""
        payloads = self._verified(records)
        if not payloads:
            return [], []
        newest = LiveRecord(records[-1].generation, hash_of(records[-1].payload), payloads[-1].keys)
        return [*payloads[-1].live, newest], [payload.document for payload in payloads]

    def _unseal(self, signed: bytes, generation: int, transaction: str) -> Payload:
        return unseal(
            signed,
            self._signer,
            deployment=self._deployment,
            release=self._release,
            generation=generation,
            transaction=transaction,
        )

    def _sources(self, references: Sequence[SourceReference]) -> dict[str, Source]:
        """Real path → source, each with the digest that was signed."""
        blobs = self._store.blobs({reference.digest for reference in references})
        sources = {}
        for reference in references:
            data = blobs.get(reference.digest)
            source = None if data is None else Source(reference.shown, data)
            if source is None or source.digest != reference.digest:
                raise StoreUnavailable(f"the store does not hold the source of {reference.shown} as it was signed")
            sources[reference.real] = source
        return sources

    # What is told ------------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> Part:
        if not isinstance(error, ReloadError):
            _log.error("this worker failed in a reload", exc_info=error)
            error = WorkerFailed(
                f"{type(error).__name__}: {error}", worker=worker_id(), reason="an unexpected error; see its log"
            )
        self._error = error
        return self._part()

    def _part(self) -> Part:
        if self._transaction is None:
            return Part(error=None if self._error is None else describe_error(self._error))
        report = self._reloader.report_of(self._transaction, self._error)
        return Part(report=report, error=report.error)

"""A worker's own part of a coordinated transaction: what the protocol's actions mean in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.beginning import NOTHING_LEFT, Left, left_before, left_by, snapshot_of
from flask_hotreload.coordination.copied import JournalCopy
from flask_hotreload.coordination.journal import Journal
from flask_hotreload.coordination.payload import LedRoot, Payload, Signs, unseal
from flask_hotreload.coordination.positions import led_here, script_here, told_roots
from flask_hotreload.coordination.shipped import Read, blobs_of, read_of, sources_of
from flask_hotreload.coordination.verified import Verified
from flask_hotreload.document import read_document
from flask_hotreload.errors import ReloadError, StoreUnavailable, WorkerFailed
from flask_hotreload.host import Asked, Given
from flask_hotreload.pace import ShortTurns
from flask_hotreload.parking import commit_of
from flask_hotreload.portable import with_scripts
from flask_hotreload.progress import Progress, untold
from flask_hotreload.recipe import Recipe
from flask_hotreload.report import ErrorReport, ReloadReport, describe_error
from flask_hotreload.reporting import worker_id
from flask_hotreload.sources import Snapshot, Source

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import JournalRecord, TransactionRecord
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.document import Document
    from flask_hotreload.reloader import Reloader
    from flask_hotreload.sources import ResolvedRoots
    from flask_hotreload.transaction import Transaction


_log = logging.getLogger("flask_hotreload")


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker tells of its part, with each vote."""

    report: ReloadReport | None = None
    error: ErrorReport | None = None


class Worker:
    """Runs one transaction at a time on ``reloader``, for the agent, on the agent's thread."""

    def __init__(
        self,
        reloader: Reloader,
        store: Store,
        signer: Signs,
        *,
        deployment: str,
        release: str,
        leaves_beginning: bool = False,
    ) -> None:
        """``leaves_beginning``: see :mod:`flask_hotreload.coordination.beginning`."""
        self._reloader = reloader
        self._store = store
        self._signer = signer
        self._deployment = deployment
        self._release = release
        self._leaves_beginning = leaves_beginning
        self._copy = JournalCopy(store, signer, release=release, running=self.running)
        self._transaction: Transaction | None = None
        self._turns: ShortTurns | None = None  # as long as there is something to be done for a transaction
        self._error: ReloadError | None = None
        self._served: str | None = None  # the transaction that made what runs here, if it is known
        self._verified = Verified(self._unseal)
        #: Whom to tell of this worker's steps in a transaction: whoever has asked for it here.
        self.progress_of: Callable[[str], Progress] = lambda transaction: untold
        reloader.parking.confirmed = self._is_staged

    @property
    def generation(self) -> int:
        return self._reloader.current.number

    @property
    def sources(self) -> str:
        """One digest over all sources that run here."""
        return self._reloader.current.recipe.snapshot.digest

    @property
    def whole(self) -> str:
        """The digest of the whole source that the transaction in progress serves, if it makes one; else nothing.

        A worker that boots with these files computes the same.
        """
        following = None if self._transaction is None else self._transaction.next
        return "" if following is None or following.recipe.documents else following.recipe.snapshot.digest

    def running(self) -> dict[str, bytes]:
        """Digest → bytes of all sources that run here, and of what they are compiled to."""
        sources = self._reloader.current.recipe.snapshot.sources.values()
        return {digest: data for source in sources for digest, data in blobs_of(source)}

    @property
    def roots(self) -> tuple[LedRoot, ...]:
        """Where the roots led when the transaction in progress read its sources."""
        assert self._transaction is not None
        return told_roots(self._transaction.snapshot.roots)

    # Steps. Each returns whether it went well, and what to tell of it. -------------------------------------------

    def prepare(self, record: TransactionRecord, *, alike: bool = False) -> tuple[bool, Part]:
        """Stage and check what the record's payload says, from its sources as far as it names them.

        ``alike``: every worker runs the same sources, so that where nothing differs here there is nothing to do.
        """
        self._turns = ShortTurns()
        try:
            payload = self._verified.payload(record.payload, record.generation, record.id)
            document = self._document_of(payload)
            document = replace(document, restores=payload.restores, commits=payload.commits)
            self._reloader.admit(document)
            self._transaction = self._begin(document, payload, alike=alike)
            self._transaction.prepare()
            if self._transaction.unchanged:
                return False, self._part()
            self._transaction.check()
        except Exception as error:  # noqa: BLE001  # whatever it is, this worker refuses and says why
            return False, self._failed(error)
        return True, self._part()

    def _begin(self, document: Document, payload: Payload, *, alike: bool) -> Transaction:
        """What was staged here, if it is that which is committed; else the same from the sources."""
        number, asked = (
            payload.generation,
            Asked(
                payload.trigger,  # type: ignore[arg-type]  # it was a Trigger when it was signed
                payload.actor,
                payload.reason,
                self.progress_of(payload.transaction),
            ),
        )
        staged = None if document.commits is None else self._reloader.resume(document, asked, number=number)
        if staged is not None:
            return staged
        return self._reloader.begin(document, asked, number=number, given=self._given(payload, alike=alike))

    def apply(self) -> tuple[bool, Part]:
        """Close the lock, drain, apply. The lock stays closed, whatever this returns."""
        assert self._transaction is not None
        try:
            self._transaction.drain()
            self._transaction.apply()
        except Exception as error:  # noqa: BLE001  # as above
            return False, self._failed(error)
        return True, Part()  # while locks are closed nobody says more than it must

    def release(self) -> None:
        """Serve what is staged and open the lock. Cannot fail."""
        assert self._transaction is not None
        self._reloader.commit(self._transaction)
        self._served = self._transaction.document.id

    def restore(self) -> None:
        """Undo everything and open the lock."""
        if self._transaction is not None:
            self._transaction.abort()

    def served(self) -> Part:
        """What to tell of a release: all that this worker does afterwards is to clear up.

        What has changed was told when it was prepared: many modules' names would be written while others may wait.
        """
        assert self._transaction is not None
        self._transaction.stop_clock()
        report = self._reloader.report_of(self._transaction)
        return Part(report=msgspec.structs.replace(report, changes=(), modules=()))

    def settle(self) -> None:
        """What anybody may look at who knows that it is served: see :meth:`Reloader.settle`."""
        assert self._transaction is not None
        self._reloader.settle(self._transaction)

    def end(self, *, keep: bool = False) -> Part:
        """Let go; the lock is open by now. ``keep``: what is staged waits for a transaction that commits it."""
        transaction, error = self._transaction, self._error
        self._transaction = self._error = None
        try:
            if transaction is None:
                return Part()
            if keep and error is None:
                return Part(report=self._reloader.park(transaction))
            return Part(report=self._reloader.end(transaction, error))
        finally:
            if self._turns is not None:
                self._turns.end()

    def collect(self) -> None:
        """See :meth:`Reloader.collect`."""
        self._reloader.collect()

    @property
    def unchanged(self) -> bool:
        """That the transaction in progress found nothing to do."""
        return self._transaction is not None and self._transaction.unchanged

    # What waits to be committed ----------------------------------------------------------------------------------

    def keep_what_waits(self) -> None:
        """Drop what is staged here if it is not what is staged for all. Raise :class:`StoreUnavailable`."""
        parked = self._reloader.parking.parked
        if parked is not None and not self._is_the_one(parked.id):
            self.drop(parked.id)

    def drop(self, identity: str) -> None:
        self._reloader.parking.drop(identity)

    def stage_what_waits(self) -> None:
        """Stage what the others have staged for what is served here. Raise :class:`ReloadError`."""
        staged = self._store.staged(self._release)
        if staged is None or staged.base != self.generation or self._store.has_begun(commit_of(staged.transaction)):
            return
        payload = self._unseal(staged.payload, staged.generation, staged.transaction)
        document = self._document_of(payload)
        self._reloader.admit(document)
        transaction = self._begin(document, payload, alike=False)
        try:
            transaction.prepare()
        except ReloadError as error:
            self._reloader.end(transaction, error)
            raise
        self._reloader.park(transaction, seconds=staged.until - self._store.now())

    def _is_staged(self, identity: str) -> bool:
        try:
            return self._is_the_one(identity)
        except StoreUnavailable:
            return True  # its time runs out here, too

    def _is_the_one(self, identity: str) -> bool:
        staged = self._store.staged(self._release)
        return staged is not None and staged.transaction == identity

    # The journal -------------------------------------------------------------------------------------------------

    def journal(self) -> Journal:
        """What was committed, verified. Raise :class:`StoreUnavailable`."""
        return self._journal_of(self._store.journal(self._release))

    def read_ahead(self, *, journal: bool) -> None:
        """Find out while there is time what a rollback needs at once; with the ``journal`` where it is at hand.

        What goes wrong here is told by whoever needs it.
        """
        try:
            if journal:
                self.journal()
            self._reloader.read_ahead()
        except Exception:  # noqa: BLE001  # see above
            _log.debug("worker %s cannot read ahead", worker_id(), exc_info=True)

    def sources_read(self, known: Collection[str]) -> Read:
        """What the staged code was made from; without the bytes of the digests that are ``known``."""
        assert self._transaction is not None
        return read_of(self._transaction.snapshot, known)

    def left(self, journal: Journal, known: Collection[str]) -> Left:
        """What the release began with. ``known``: digests of blobs that the store gets anyhow."""
        if journal.newest is not None:
            return left_before(journal.newest.beginning, self._store)
        return left_by(self._reloader.base.snapshot, known) if self._leaves_beginning else NOTHING_LEFT

    def catch_up(self, head: int, *, anew: bool = False) -> None:
        """Run what the journal says makes what is committed, without asking anybody. Raise :class:`ReloadError`.

        ``head``: what the release serves. It may be ahead of the records, where a release began with that number.
        ``anew``: what runs here is something else, whatever its number.
        """
        records = self._store.journal(self._release)
        journal = self._journal_of(records)
        newest = journal.newest
        if newest is None or (newest.generation <= self.generation and not anew):
            self._reloader.renumber(head)
            return
        runs = journal.runs
        if anew or not self._leads_to(journal, newest):
            self._run(newest, Given(recipe=self._recipe(runs, newest)))
            runs = []
        for payload in runs:
            if payload.generation > self.generation and not self._is_there(payload):
                self._run(payload, self._given(payload))
        self._served = newest.transaction
        self._reloader.renumber(newest.generation, parent=newest.parent, restores=newest.restores, label=newest.label)
        self._reloader.caught_up(read_document(newest.document).probation, newest.transaction, newest.at)
        self._reloader.tell()

    # What is given back to a store that has lost it -------------------------------------------------------------

    def keep_copy(self, record: TransactionRecord | None = None, sources: str = "") -> None:
        """``record`` was committed, with ``sources``; or this worker has caught up.

        Raise :class:`StoreUnavailable`.
        """
        if record is None:
            self._copy.read(self.generation, self._served)
        else:
            self._copy.follow(record, sources)

    @property
    def can_publish(self) -> bool:
        return self._copy.of == self.generation and self._copy.complete

    def publish_again(self) -> bool:
        """Give back what makes the generation that is served here. Raise :class:`StoreUnavailable`."""
        copy = self._copy
        return self._store.publish_again(self._release, self.generation, copy.records, copy.blobs, copy.base)

    def differs_from_head(self) -> bool:
        """Whether the store holds, under the number of what runs here, something else: it had lost that number."""
        records = self._store.journal(self._release)
        if self._served is None or not records or records[-1].generation != self.generation:
            return False
        return records[-1].transaction != self._served

    def _leads_to(self, journal: Journal, newest: Payload) -> bool:
        """Whether running what is newer than what runs here makes the newest generation; else everything has to be.

        It does not where a rollback, since then, has led elsewhere; nor if this worker has started from other files
        than the release began with.
        """
        runs = journal.runs
        is_first = self._reloader.is_first
        from_base = self._began_alike(newest) if is_first else self.generation >= newest.turned
        return from_base or bool(runs and runs[0].document["data"] is None and runs[0].generation > self.generation)

    def _began_alike(self, newest: Payload | None) -> bool:
        """Whether the first generation of this process is that of its release."""
        beginning = None if newest is None else newest.beginning
        return beginning is None or beginning.sources == self._reloader.base.snapshot.digest

    def _is_there(self, payload: Payload) -> bool:
        """Whether the application was imported from just these sources: then it is that generation already."""
        if payload.document["data"] is not None or not self._reloader.is_first:
            return False
        given = self._given(payload)
        return given.snapshot is not None and not self._reloader.differs(given.snapshot)

    def _run(self, payload: Payload, given: Given) -> None:
        document = replace(self._document_of(payload), checks=(), dry_run=False)
        if given.recipe is not None:
            document = replace(document, data=None, restores=payload.generation)
        number = max(payload.generation, self.generation + 1)
        transaction = self._reloader.begin(document, Asked("catch-up", payload.actor), number=number, given=given)
        try:
            transaction.prepare()
            transaction.drain()
            transaction.apply()
            self._reloader.commit(transaction)
        finally:
            self._reloader.end(transaction)
            self._reloader.collect()

    def _journal_of(self, records: Sequence[JournalRecord]) -> Journal:
        """The records, provided that they are exactly those that the newest one says remain."""
        entries = self._verified.journal(records)
        if entries:
            told = [(live.generation, live.hash) for live in entries[-1].payload.live]
            if told != [(entry.payload.generation, entry.hash) for entry in entries[:-1]]:
                raise StoreUnavailable(
                    "the journal does not hold the records that its newest one names; nothing of it is executed"
                )
        return Journal(entries, self.generation)

    def _unseal(self, signed: bytes, generation: int, transaction: str) -> Payload:
        return unseal(
            signed,
            self._signer,
            deployment=self._deployment,
            release=self._release,
            generation=generation,
            transaction=transaction,
        )

    # What a transaction starts from --------------------------------------------------------------------------------

    def _given(self, payload: Payload, *, alike: bool = False) -> Given:
        """``alike``: every worker runs the same sources."""
        if payload.restores is not None:
            return self._given_back(payload.restores, payload.parent)
        roots = self._roots_of(payload)
        whole = payload.document["data"] is None
        if not payload.sources:
            return Given(Snapshot(roots), must_differ=alike)
        return Given(Snapshot(roots, self._sources(payload, roots), sealed=whole))

    def _given_back(self, generation: int, parent: int | None) -> Given:
        kept = self._reloader.kept.get(generation)
        if kept is not None and kept.is_alive(self._reloader.current):
            return Given(recipe=kept.recipe, kept=kept, parent=parent, label=kept.label)
        journal = self.journal()
        recipe = self._recipe(journal.recipe(generation), journal.newest)
        return Given(recipe=recipe, kept=kept, parent=parent, label=journal.label_of(generation))

    def _recipe(self, runs: Sequence[Payload], newest: Payload | None) -> Recipe:
        """Of what ``runs`` on what the release began with, as the ``newest`` record tells."""
        recipe = self._reloader.base
        from_whole = bool(runs) and runs[0].document["data"] is None
        if newest is not None and newest.beginning is not None and not (from_whole or self._began_alike(newest)):
            recipe = Recipe(snapshot_of(newest.beginning, self._store, self._reloader))
        for payload in runs:
            roots = self._roots_of(payload)
            snapshot = Snapshot(roots, self._sources(payload, roots), sealed=True)
            if payload.document["data"] is None:
                recipe = Recipe(snapshot)
            else:
                recipe = recipe.followed_by(self._document_of(payload), snapshot.sources)
        return recipe

    def _document_of(self, payload: Payload) -> Document:
        """With the scripts' paths on this host."""
        if payload.document["data"] is None:
            return read_document(payload.document)
        own = self._reloader.roots_led({})
        return read_document(with_scripts(payload.document, script_here(own)))

    def _roots_of(self, payload: Payload) -> ResolvedRoots:
        """This worker's own roots, as they led where the payload was made if these are the same folders."""
        led = led_here(payload.roots, self._reloader.roots_led({}))
        return self._reloader.roots_led(led)

    def _sources(self, payload: Payload, roots: ResolvedRoots) -> dict[str, Source]:
        """Real path → source, each with the digest that was signed. What runs here already is not made once more."""
        return sources_of(payload, self._store, self._reloader.current.recipe.snapshot.sources, roots)

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

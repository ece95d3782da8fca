"""The reloader of one process: its current generation, its transactions one at a time, its past.

It knows no Flask: what belongs to the application comes through :class:`~flask_hotreload.transaction.Host`.
"""

from __future__ import annotations

import _thread
import logging
import os
import socket
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flask_hotreload.document import Document, read_document
from flask_hotreload.errors import ReloadBusy, ReloadError, ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.generation import Afterlife, Generation
from flask_hotreload.interpreter import set_pinned
from flask_hotreload.report import ReloadReport, Trigger, WorkerReport, describe_error, utc_now
from flask_hotreload.rwlock import ReadersWriterLock, current_slot
from flask_hotreload.staging import joining
from flask_hotreload.transaction import Host, Limits, Transaction

if TYPE_CHECKING:
    from flask_hotreload.sources import Roots
    from flask_hotreload.worlds import World

_log = logging.getLogger("flask_hotreload")

#: How many reports are kept.
HISTORY = 100


class Application(Host, Protocol):
    """What the reloader needs of the application besides what each transaction needs."""

    @property
    def roots(self) -> Roots:
        """From where code may be loaded."""

    def refuse_whole_source(self) -> ReloadInvalid:
        """The error for a document without data."""

    def ran(self, digests: Mapping[str, str]) -> None:
        """Sources that the current generation runs from now on: real path → digest. Cannot fail."""

    def notify(self, event: str, **keywords: Any) -> None:
        """Send the signal ``event``. Cannot fail."""


class Reloader:
    """``current`` is what requests that enter now are served by; ``lock`` is held by those that are inside."""

    def __init__(self, application: Application, limits: Limits, first: Generation) -> None:
        self.lock = ReadersWriterLock()
        self.current = first
        self._application = application
        self._limits = limits
        self._turn = threading.Lock()  # held by the transaction that runs
        self._past: deque[tuple[ReloadReport, ReloadError | None]] = deque(maxlen=HISTORY)
        self._running: Transaction | None = None
        self._given_up: list[Transaction] = []  # those whose code could not be ended
        self._worlds: weakref.WeakSet[World] = weakref.WeakSet()  # of generations that requests still run
        self._leaving: deque[tuple[int, Afterlife]] = deque()
        self._releasing = 0  # the thread that releases a generation just now

    # What is served --------------------------------------------------------------------------------------------

    @property
    def pinned(self) -> Generation:
        """The generation that the calling context runs: its request's, else the current one."""
        slot = current_slot.get()
        while slot is not None:
            if slot.lock is self.lock and slot.pin is not None:
                return slot.pin  # type: ignore[no-any-return]  # the middleware pins generations
            slot = slot.outer
        return self.current

    @property
    def history(self) -> list[ReloadReport]:
        """Reports of the last 100 attempts, newest first."""
        return [report for report, _ in reversed(self._past)]

    @property
    def tainted(self) -> str | None:
        """Why this process takes no reload: code of an earlier one that cannot be ended. ``None``: it does."""
        self._given_up = [transaction for transaction in self._given_up if transaction.hung]
        return f"code of reload {self._given_up[0].document.id} has not ended" if self._given_up else None

    @property
    def applying(self) -> Transaction | None:
        """The transaction whose callback or migration calls this, or ``None``."""
        return self._running if joining.get() is not None else None

    # Reloading -------------------------------------------------------------------------------------------------

    def reload(
        self, given: Mapping[str, Any], *, trigger: Trigger, actor: str | None = None, multiprocess: bool = False
    ) -> ReloadReport:
        """Run one transaction. Raise :class:`ReloadError` with its ``report``; then nothing has changed.

        ``multiprocess``: the server says that it runs several processes; this reloader could change one of them only.
        """
        try:
            document = read_document(given)
        except ReloadInvalid as error:
            raise self._refused(error, Document(id=uuid.uuid4().hex), trigger, actor) from None
        try:
            if multiprocess:
                raise StoreUnavailable(
                    "this server runs several processes, and HOTRELOAD_COORDINATOR is local: a reload would change "
                    "one of them only. Run one worker process, with threads: gunicorn --workers 1 --threads 8"
                )
            if joining.get() is not None:
                raise ReloadBusy("code that is part of a reload cannot reload: do it after the reload has ended")
            with self.lock.lend():
                if not self._turn.acquire(timeout=self._limits.prepare_timeout):
                    raise ReloadBusy(
                        f"another reload has been running for {self._limits.prepare_timeout:g} s; try again"
                    )
                try:
                    earlier = self._earlier(document.id)
                    return earlier if earlier is not None else self._transact(document, trigger, actor)
                finally:
                    self._turn.release()
        except ReloadError as error:
            if error.report is None:
                self._refused(error, document, trigger, actor)
            raise

    def _earlier(self, identity: str) -> ReloadReport | None:
        """What an earlier attempt with the same id came to: its report, or its error."""
        for report, error in self._past:
            if report.id == identity:
                if error is not None:
                    raise error.with_traceback(None)
                return report
        return None

    def _transact(self, document: Document, trigger: Trigger, actor: str | None) -> ReloadReport:
        """One transaction, in its turn."""
        self._admit(document)
        transaction = Transaction(
            document,
            self.current,
            host=self._application,
            lock=self.lock,
            limits=self._limits,
            roots=self._application.roots,
        )
        reports = _Reports(transaction, trigger, actor)
        self._application.notify("reload_started", report=reports.make("checked", self.current.number))
        try:
            committed = self._run(transaction)
        except ReloadError as error:
            error.report = reports.make("aborted", self.current.number, error)
            self._remember(error.report, error)
            self._application.notify("reload_aborted", report=error.report)
            raise
        report = reports.make("committed" if committed else "checked", self.current.number)
        self._remember(report, None)
        if committed:
            self._application.ran({path: source.digest for path, source in transaction.snapshot.sources.items()})
            self._application.notify("reload_committed", report=report, generation=report.generation)
        return report

    def _run(self, transaction: Transaction) -> bool:
        """Every step in its order; return whether it is committed. Whatever is raised, nothing has changed then."""
        self._running = transaction
        committed = False
        try:
            transaction.prepare()
            transaction.check()
            if not transaction.document.dry_run:
                transaction.drain()
                transaction.apply()
                self._release(transaction)
                committed = True
            return committed
        finally:
            if not committed:
                transaction.abort()
            transaction.close(committed=committed)
            if transaction.hung:
                self._given_up.append(transaction)
            self._running = None
            self._retire()

    def _admit(self, document: Document) -> None:
        """Raise what speaks against beginning at all."""
        if document.data is None:
            raise self._application.refuse_whole_source()
        if document.timeout is not None and document.timeout > self._limits.max_hold:
            raise ReloadInvalid(
                f"timeout is {document.timeout:g} s, but requests may be held for at most "
                f"{self._limits.max_hold:g} s (HOTRELOAD_MAX_HOLD)"
            )
        if self.tainted is not None:
            raise WorkerFailed(
                f"this process takes no reload before it is restarted, or the code has ended: {self.tainted}",
                worker=worker_id(),
                reason=self.tainted,
            )
        if document.expect is not None and document.expect != self.current.number:
            raise ReloadBusy(f"generation {self.current.number} is live, not {document.expect} as expected")

    def _release(self, transaction: Transaction) -> None:
        """From here on there is no way back: what follows cannot fail."""
        old = self.current
        weakref.finalize(old, self._left, old.number, old.afterlife).atexit = False
        self._releasing = threading.get_ident()
        generation, exchange = transaction.release()
        for world in self._worlds:
            world.preserve(exchange.displaced)
        old.afterlife.world = past = exchange.past()
        past.install()
        self._worlds.add(past)
        self.current = transaction.current = generation
        transaction.open()

    # Retirement ------------------------------------------------------------------------------------------------

    def _left(self, number: int, afterlife: Afterlife) -> None:
        """The last request of a generation has left. Called wherever its last reference was dropped."""
        self._leaving.append((number, afterlife))
        if threading.get_ident() != self._releasing:
            # Not on this thread: it may hold any lock, since the garbage collector runs anywhere.
            _thread.start_new_thread(self._retire, ())

    def _retire(self) -> None:
        self._releasing = 0
        while self._leaving:
            try:
                number, afterlife = self._leaving.popleft()
            except IndexError:  # another thread was quicker
                return
            if afterlife.world is not None:
                afterlife.world.uninstall()
                afterlife.world = None
            while afterlife.callbacks:
                callback = afterlife.callbacks.pop()
                try:
                    callback()
                except Exception:  # noqa: BLE001  # foreign code; the other callbacks run all the same
                    _log.exception("on_retire callback %r of generation %d failed", callback, number)
            self._application.notify("generation_retired", generation=number)

    # Reports ---------------------------------------------------------------------------------------------------

    def _refused(self, error: ReloadError, document: Document, trigger: Trigger, actor: str | None) -> ReloadError:
        """``error`` with the report of an attempt that never began."""
        number = self.current.number
        error.report = ReloadReport(
            id=document.id,
            status="aborted",
            generation=number,
            previous=number,
            label=document.label,
            digest=None,
            trigger=trigger,
            actor=actor,
            error=describe_error(error),
            started_at=utc_now(),
        )
        self._remember(error.report, error)
        return error

    def _remember(self, report: ReloadReport, error: ReloadError | None) -> None:
        self._past.append((report, error))
        if error is None:
            _log.info("%s", report.summary())
        else:
            _log.warning("%s", report.summary())


class _Reports:
    """Makes the report of one transaction as far as it has come."""

    def __init__(self, transaction: Transaction, trigger: Trigger, actor: str | None) -> None:
        self._transaction = transaction
        self._fixed: dict[str, Any] = {
            "id": transaction.document.id,
            "previous": transaction.current.number,
            "label": transaction.document.label,
            "trigger": trigger,
            "actor": actor,
            "started_at": utc_now(),
        }

    def make(self, status: Any, generation: int, error: ReloadError | None = None) -> ReloadReport:
        transaction = self._transaction
        staged = transaction.staged
        timings = transaction.timings
        return ReloadReport(
            **self._fixed,
            status=status,
            generation=generation,
            digest=transaction.digest,
            timings=timings,
            drain=transaction.drained,
            changes=staged.changes if staged is not None else (),
            modules=staged.modules if staged is not None else (),
            warnings=tuple(transaction.warnings),
            workers=(
                WorkerReport(
                    id=worker_id(),
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    ok=error is None,
                    pause_ms=timings.pause_ms,
                    error=None if error is None else str(error),
                ),
            ),
            error=None if error is None else describe_error(error),
        )


def worker_id() -> str:
    """``host:pid`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _world_of_context() -> World | None:
    """Where the calling context finds project modules if its generation is no longer the current one."""
    slot = current_slot.get()
    generation = slot.pin if slot is not None else None
    return generation.afterlife.world if isinstance(generation, Generation) else None


set_pinned(_world_of_context)

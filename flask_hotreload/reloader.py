"""The reloader of one process: its current generation, its transactions one at a time, its past.

It knows no Flask: what belongs to the application comes through :class:`~flask_hotreload.transaction.Host`.
"""

from __future__ import annotations

import _thread
import copy
import functools
import logging
import os
import socket
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flask_hotreload.caches import forget_lines, forget_types
from flask_hotreload.document import Document, read_document
from flask_hotreload.errors import ReloadBusy, ReloadError, ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.generation import Afterlife, Generation, Kept, run_endings, worth_keeping
from flask_hotreload.host import Asked, Given, Host, Limits
from flask_hotreload.interpreter import set_pinned
from flask_hotreload.mutex import Mutex
from flask_hotreload.progress import Progress, untold, worker_told
from flask_hotreload.report import ReloadReport, Status, Trigger, WorkerReport, describe_error, utc_now
from flask_hotreload.rwlock import ReadersWriterLock, current_slot
from flask_hotreload.staging import Joining, joining
from flask_hotreload.transaction import Transaction

if TYPE_CHECKING:
    from flask_hotreload.loader import Exchange
    from flask_hotreload.probation import Probation
    from flask_hotreload.recipe import Recipe
    from flask_hotreload.sources import ResolvedRoots, Roots, Snapshot
    from flask_hotreload.worlds import World

_log = logging.getLogger("flask_hotreload")

#: How many reports are kept.
HISTORY = 100


class Application(Host, Protocol):
    """What the reloader needs of the application besides what each transaction needs."""

    @property
    def roots(self) -> Roots:
        """From where code may be loaded."""

    def notify(self, event: str, **keywords: Any) -> None:
        """Send the signal ``event``. Cannot fail."""

    def attempted(self, report: ReloadReport) -> None:
        """An attempt that this process was asked for has ended so. Cannot fail."""

    def committed(self, generation: Generation, document: Document, asked: Asked) -> None:
        """``generation`` is served as soon as the lock opens. Cannot fail."""

    def caught_up(self, probation: Probation | None, identity: str, began: float) -> None:
        """What the transaction ``identity`` made elsewhere is served here, too; it ``began`` then, on the store's
        clock.
        """


class Conductor(Protocol):
    """Runs all steps of a transaction."""

    def conduct(self, document: Document, asked: Asked) -> ReloadReport:
        """Raise :class:`ReloadError` with its ``report``; then nothing has changed."""

    def remember(self, report: ReloadReport) -> None:
        """Keep the report of an attempt, for all processes. Cannot fail."""

    def history(self) -> list[ReloadReport]:
        """The reports of all processes, newest first. Raise :class:`StoreUnavailable`."""

    def earlier(self, identity: str) -> ReloadReport | None:
        """The report of a transaction with this id that any process asked for, or its error raised."""


class Reloader:
    """``current`` is what requests that enter now are served by; ``lock`` is held by those that are inside."""

    def __init__(self, application: Application, limits: Limits, first: Generation, *, keep: int = 0) -> None:
        """``keep``: how many generations stay in memory for rollbacks."""
        self.lock = ReadersWriterLock()
        self.current = first
        self.kept: dict[int, Kept] = {}
        self._parents: dict[int, int | None] = {first.number: first.parent}
        self._keep = keep
        self._base: Recipe | None = None
        self._application = application
        self._limits = limits
        #: Who runs the steps of a transaction over several processes; ``None``: this reloader, for its own.
        self.conductor: Conductor | None = None
        self._turn = Mutex()  # held by whoever asked for the transaction that runs
        self._turn_of = 0  # the thread that holds it
        self._past: deque[_Attempt] = deque(maxlen=HISTORY)
        self._running: Transaction | None = None
        self._given_up: list[Transaction] = []  # those whose code could not be ended
        self._worlds: weakref.WeakSet[World] = weakref.WeakSet()  # of generations that requests still run
        self._leaving: deque[tuple[int, Afterlife]] = deque()
        self._news: deque[tuple[str, dict[str, Any]]] = deque()  # signals to be sent
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

    def roots_led(self, led: Mapping[str, str]) -> ResolvedRoots:
        """From where code may be loaded, as the roots lead now, or as they ``led``."""
        return self._application.roots.resolve(led)

    @property
    def base(self) -> Recipe:
        """What the first generation of this process was made from."""
        return self.current.recipe if self._base is None else self._base

    @property
    def is_first(self) -> bool:
        """Whether nothing has been reloaded in this process."""
        return self._base is None

    def differs(self, snapshot: Snapshot) -> bool:
        """Whether serving ``snapshot`` would change anything of the current sources."""
        return self._application.differs(snapshot, self.current.recipe.snapshot)

    @property
    def history(self) -> list[ReloadReport]:
        """Reports of the last 100 attempts, newest first."""
        if self.conductor is not None:
            try:
                return self.conductor.history()
            except StoreUnavailable as error:
                _log.warning("only the reports of this process can be told: %s", error)
        return [attempt.report for attempt in reversed(self._past)]

    @property
    def tainted(self) -> str | None:
        """Why this process takes no reload: code of an earlier one that cannot be ended. ``None``: it does."""
        self._given_up = [transaction for transaction in self._given_up if transaction.hung]
        return f"code of reload {self._given_up[0].document.id} has not ended" if self._given_up else None

    @property
    def applying(self) -> Transaction | None:
        """The transaction whose callback or migration calls this, or ``None``."""
        return self._running if joining.get() is not None else None

    @property
    def staged(self) -> Joining | None:
        """What the new code of the transaction that runs has registered so far; ``None``: none runs."""
        running = self._running
        return None if running is None else running.joined

    # Reloading -------------------------------------------------------------------------------------------------

    def reload(
        self,
        given: Mapping[str, Any],
        *,
        trigger: Trigger,
        actor: str | None = None,
        multiprocess: bool = False,
        progress: Progress = untold,
    ) -> ReloadReport:
        """Run one transaction. Raise :class:`ReloadError` with its ``report``; then nothing has changed.

        ``multiprocess``: the server says that it runs several processes. Without a conductor that reaches the others
        this reloader could change one of them only, and refuses. ``progress`` is told how far it has come.
        """
        asked = Asked(trigger, actor, progress=progress)
        try:
            document = read_document(given)
        except ReloadInvalid as error:
            raise self._refused(error, _unreadable(given), asked) from None
        return self._attempt(document, asked, multiprocess=multiprocess)

    def rollback(
        self,
        to: int | None,
        *,
        actor: str | None = None,
        multiprocess: bool = False,
        expect: int | None = None,
        id: str | None = None,
        reason: tuple[str, ...] = (),
        progress: Progress = untold,
    ) -> ReloadReport:
        """Serve an earlier generation once more, under a number of its own. Raise as :meth:`reload` does.

        ``to``: its number; ``None``: the one before, as seen from what is served. What a rollback has restored counts
        as what it was then, so another one goes further back; it has the label that it had. ``expect`` and ``id``: as
        in a reload document. ``reason``: what the report tells of it.
        """
        asked = Asked("rollback", actor, reason, progress)
        document = Document(id=id or uuid.uuid4().hex, expect=expect, restores=-1 if to is None else to)
        return self._attempt(document, asked, multiprocess=multiprocess)

    def _attempt(self, document: Document, asked: Asked, *, multiprocess: bool) -> ReloadReport:
        try:
            if multiprocess and self.conductor is None:
                raise StoreUnavailable(
                    "this server runs several processes, and HOTRELOAD_COORDINATOR is 'local': a reload would change "
                    "one of them only. Leave HOTRELOAD_COORDINATOR at 'auto', or run one worker process"
                )
            if joining.get() is not None or self._turn_of == threading.get_ident():
                raise ReloadBusy(
                    "code that a reload runs (new code, a callback, a signal's receiver) cannot reload: do it on a "
                    "thread of its own, after the reload has ended"
                )
            with self.lock.lend():
                if not self._turn.lock.acquire(timeout=self._limits.prepare_timeout):
                    raise ReloadBusy(
                        f"another reload has been running for {self._limits.prepare_timeout:g} s; try again"
                    )
                try:
                    self._turn_of = threading.get_ident()
                    earlier = self._earlier(document.id)
                    return earlier if earlier is not None else self._conduct(document, asked)
                finally:
                    self._turn_of = 0
                    self._turn.lock.release()
        except ReloadError as error:
            if error.report is None:
                self._refused(error, document, asked)
            raise
        finally:
            self.tell()

    def _conduct(self, document: Document, asked: Asked) -> ReloadReport:
        if document.restores == -1:
            document = replace(document, restores=self._one_before())
        self.admit(document)
        try:
            report = (self.conductor or self).conduct(document, asked)
        except ReloadError as error:
            if error.report is not None:
                self._remember(_Attempt(error.report, _bare(error)))
            raise
        self._remember(_Attempt(report))
        return report

    def conduct(self, document: Document, asked: Asked) -> ReloadReport:
        """Every step in its order, for this process alone."""
        transaction, step = self.begin(document, asked), "prepared"
        asked.progress("begin", {"id": document.id, "workers": [worker_id()]})
        try:
            transaction.prepare()
            if not transaction.unchanged:
                transaction.check()
            asked.progress("worker", worker_told(worker_id(), step, ok=True))
            if not (transaction.unchanged or document.dry_run):
                step = "applied"
                transaction.drain()
                transaction.apply()
                asked.progress("worker", worker_told(worker_id(), step, ok=True))
                asked.phase("decide")
                asked.phase("release")
                self.commit(transaction)
        except ReloadError as error:
            asked.progress("worker", worker_told(worker_id(), step, ok=False, error=str(error)))
            error.report = self.end(transaction, error)
            raise
        except BaseException:
            self.end(transaction)
            raise
        return self.end(transaction)

    def _earlier(self, identity: str) -> ReloadReport | None:
        """What an earlier transaction with the same id came to: its report, or its error.

        An attempt that never began (busy, tainted, not the expected generation) does not count: it can be retried.
        """
        for attempt in self._past:
            if attempt.began and attempt.report.id == identity:
                if attempt.error is not None:
                    raise copy.copy(attempt.error)  # a raise would hang its traceback on the one that is kept
                return attempt.report
        return self.conductor.earlier(identity) if self.conductor is not None else None

    def admit(self, document: Document) -> None:
        """Raise what speaks against beginning at all."""
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
        if document.probation is not None and not self._keep:
            raise ReloadInvalid(
                "probation needs a generation to roll back to: set HOTRELOAD_KEEP_GENERATIONS to 1 or more"
            )
        if document.expect is not None and document.expect != self.current.number:
            raise ReloadBusy(f"generation {self.current.number} is live, not {document.expect} as expected")

    # Steps, for whoever conducts a transaction -----------------------------------------------------------------

    def begin(
        self, document: Document, asked: Asked, *, number: int | None = None, given: Given | None = None
    ) -> Transaction:
        """A transaction that nothing has been done for yet; every one needs its :meth:`end`.

        ``given``: what others have found out already. Raise :class:`ReloadInvalid` for a rollback to what is gone.
        """
        if given is None:
            given = Given() if document.restores is None else self._kept_of(document.restores)
        self._running = transaction = Transaction(
            document,
            self.current,
            host=self._application,
            lock=self.lock,
            limits=self._limits,
            roots=self._application.roots.resolve(),
            asked=asked,
            number=self.current.number + 1 if number is None else number,
            given=given,
        )
        self._application.notify("reload_started", report=self.report_of(transaction))
        return transaction

    def commit(self, transaction: Transaction) -> None:
        """Serve what is staged and open the lock. There is no way back from here, and nothing that can fail."""
        old = self.current
        if self._base is None:
            self._base = old.recipe
        weakref.finalize(old, self._left, old.number, old.afterlife).atexit = False
        endings = tuple(old.afterlife.endings)
        self._releasing = threading.get_ident()
        # Requests inside are in the past before anything else is live: at no moment do they find new modules.
        generation = transaction.release(functools.partial(self._preserve, old))
        self.current = transaction.current = generation
        self._application.committed(generation, transaction.document, transaction.asked)
        transaction.open()
        assert old.afterlife.world is not None
        self._keep_or_forget(Kept.of(old, old.afterlife.world, endings), generation)

    def _preserve(self, old: Generation, exchange: Exchange) -> None:
        for world in self._worlds:
            world.preserve(exchange.displaced)
        past = exchange.past(old.recipe.snapshot)
        past.install()
        self._worlds.add(past)
        old.afterlife.world = past

    def _keep_or_forget(self, old: Kept, new: Generation) -> None:
        self._parents[new.number] = new.parent
        self.kept[old.number] = old
        kept = worth_keeping(new.number, self._parents, self._keep)
        gone = [each.recipe.snapshot for number, each in self.kept.items() if number not in kept]
        self.kept = {number: each for number, each in self.kept.items() if number in kept}
        for snapshot in gone:
            forget_lines(snapshot, [new.recipe.snapshot, *(each.recipe.snapshot for each in self.kept.values())])
        forget_types()
        self._parents = {number: parent for number, parent in self._parents.items() if number in {*kept, new.number}}

    def _one_before(self) -> int:
        if self.current.parent is None:
            raise ReloadInvalid(f"there is no generation before {self.current.number}: nothing to roll back to")
        return self.current.parent

    def _kept_of(self, number: int) -> Given:
        kept = self.kept.get(number)
        if kept is None:
            there = ", ".join(map(str, sorted(self.kept))) or "none"
            what = "is the one that is served" if number == self.current.number else "is not kept"
            raise ReloadInvalid(
                f"generation {number} {what}; kept are: {there} (HOTRELOAD_KEEP_GENERATIONS says how many)"
            )
        return Given(recipe=kept.recipe, kept=kept, parent=kept.parent, label=kept.label)

    def renumber(
        self, number: int, *, parent: int | None = None, restores: int | None = None, label: str | None = None
    ) -> None:
        """Let what is served be the generation ``number``, which others have made, or with which a release begins.

        What led here were not the generations that had those numbers elsewhere: nothing is kept of them.
        """
        self.current = replace(
            self.current,
            number=number,
            parent=parent,
            restores=restores,
            label=label,
        )
        self.kept = {}
        self._parents = {number: parent}

    def caught_up(self, probation: Probation | None, identity: str, began: float) -> None:
        """Tell the application what it serves since others have committed it: see :meth:`Application.caught_up`."""
        self._application.caught_up(probation, identity, began)

    def end(self, transaction: Transaction, error: ReloadError | None = None) -> ReloadReport:
        """Undo everything unless it is committed, and let go. :meth:`tell` sends the signals."""
        if not transaction.committed:
            transaction.abort()
        transaction.close()
        if transaction.hung:
            self._given_up.append(transaction)
        self._running = None
        self._retire()
        report = self.report_of(transaction, error)
        _log.debug("in this worker: %s", report.summary())
        if transaction.committed:
            self._news.append(("reload_committed", {"report": report, "generation": report.generation}))
        elif error is not None:
            self._news.append(("reload_aborted", {"report": report}))
        if not transaction.hung:
            transaction.let_go()
        return report

    def tell(self) -> None:
        """Send the signals of what has ended. Receivers may reload: whoever calls this is in no transaction."""
        while True:
            try:
                event, keywords = self._news.popleft()
            except IndexError:
                return
            self._application.notify(event, **keywords)

    def report_of(self, transaction: Transaction, error: ReloadError | None = None) -> ReloadReport:
        """What this process can tell of a transaction, as far as it has come."""
        staged, timings = transaction.staged, transaction.timings
        return ReloadReport(
            id=transaction.document.id,
            status=_status_of(transaction, error),
            generation=self.current.number,
            previous=transaction.previous,
            label=transaction.label,
            digest=transaction.digest,
            trigger=transaction.asked.trigger,
            actor=transaction.asked.actor,
            restores=transaction.document.restores,
            timings=timings,
            drain=transaction.drained,
            changes=staged.changes if staged is not None else (),
            modules=staged.modules if staged is not None else (),
            warnings=transaction.warnings,
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
            started_at=transaction.started_at,
        )

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
            afterlife.ended = afterlife.ended or bool(afterlife.endings)
            run_endings(afterlife.endings, number)
            forget_types()
            self._application.notify("generation_retired", generation=number)

    # Reports ---------------------------------------------------------------------------------------------------

    def _refused(self, error: ReloadError, document: Document, asked: Asked) -> ReloadError:
        """``error`` with the report of an attempt that never began."""
        number = self.current.number
        error.report = ReloadReport(
            id=document.id,
            status="aborted",
            generation=number,
            previous=number,
            label=document.label,
            digest=None,
            trigger=asked.trigger,
            actor=asked.actor,
            error=describe_error(error),
            started_at=utc_now(),
        )
        self._remember(_Attempt(error.report, began=False))
        return error

    def _remember(self, attempt: _Attempt) -> None:
        self._past.append(attempt)
        if self.conductor is not None:
            self.conductor.remember(attempt.report)
        level = logging.INFO if attempt.report.error is None else logging.WARNING
        _log.log(level, "%s", attempt.report.summary())
        self._application.attempted(attempt.report)


class _Attempt(NamedTuple):
    """``error`` is raised again for a retry with the same id. ``began``: whether there was a transaction at all."""

    report: ReloadReport
    error: ReloadError | None = None
    began: bool = True


def _bare(error: ReloadError) -> ReloadError:
    """``error`` without the exception that it came from, whose frames would keep the new modules alive."""
    bare = copy.copy(error)
    if hasattr(bare, "original"):
        bare.original = None
    return bare


def _unreadable(given: object) -> Document:
    """What can be told of a document that cannot be read."""
    told = given if isinstance(given, Mapping) else {}
    identity, label = told.get("id"), told.get("label")
    return Document(
        id=identity if isinstance(identity, str) and identity else uuid.uuid4().hex,
        label=label if isinstance(label, str) else None,
    )


def _status_of(transaction: Transaction, error: ReloadError | None) -> Status:
    if transaction.committed:
        return "committed"
    if error is not None:
        return "aborted"
    return "unchanged" if transaction.unchanged else "checked"


def worker_id() -> str:
    """``host:pid`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _world_of_context() -> World | None:
    """Where the calling context finds project modules if its generation is no longer the current one."""
    slot = current_slot.get()
    generation = slot.pin if slot is not None else None
    return generation.afterlife.world if isinstance(generation, Generation) else None


set_pinned(_world_of_context)

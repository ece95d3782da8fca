"""The reloader of one process: its current generation, its transactions one at a time, its past.

It knows no Flask: what belongs to the application comes through :class:`~flask_hotreload.host.Host`.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flask_hotreload.attempts import Attempts
from flask_hotreload.document import Document, new_id, read_document
from flask_hotreload.errors import ReloadBusy, ReloadError, ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.generation import Generation, Kept
from flask_hotreload.host import Application, Asked, Conductor, Given, Limits
from flask_hotreload.interpreter import set_pinned
from flask_hotreload.keeping import Keeping
from flask_hotreload.loader import take_stock
from flask_hotreload.mutex import Mutex
from flask_hotreload.parking import Parking, commit_of, committing, not_staged
from flask_hotreload.progress import Progress, untold, worker_told
from flask_hotreload.report import ReloadReport, Trigger
from flask_hotreload.reporting import report_of, report_of_refusal, unreadable, worker_id
from flask_hotreload.retirement import Retirement
from flask_hotreload.rwlock import ReadersWriterLock, current_slot
from flask_hotreload.staging import Joining, joining
from flask_hotreload.transaction import Transaction

if TYPE_CHECKING:
    from flask_hotreload.loader import Exchange
    from flask_hotreload.probation import Probation
    from flask_hotreload.recipe import Recipe
    from flask_hotreload.sources import ResolvedRoots, Snapshot
    from flask_hotreload.worlds import World

_log = logging.getLogger("flask_hotreload")


class Reloader:
    """``current`` is what requests that enter now are served by; ``lock`` is held by those that are inside."""

    def __init__(self, application: Application, limits: Limits, first: Generation, *, keep: int = 0) -> None:
        """``keep``: how many generations stay in memory for rollbacks."""
        self.lock = ReadersWriterLock()
        self.current = first
        self._keeping = Keeping(first, keep)
        self._keep = keep
        self._followed: Kept | None = None  # by the current one, which is not told to the keeping yet
        #: What is staged and waits to be committed.
        self.parking = Parking()
        self._base: Recipe | None = None
        self._application = application
        self._limits = limits
        #: Who runs the steps of a transaction over several processes; ``None``: this reloader, for its own.
        self.conductor: Conductor | None = None
        self._turn = Mutex()  # held by whoever asked for the transaction that runs
        self._turn_of = 0  # the thread that holds it
        self._attempts = Attempts()
        self._running: Transaction | None = None
        self._given_up: list[Transaction] = []  # those whose code could not be ended
        self._worlds: weakref.WeakSet[World] = weakref.WeakSet()  # of generations that requests still run
        self._retirement = Retirement(lambda number: application.notify("generation_retired", generation=number))
        self._news: deque[tuple[str, dict[str, Any]]] = deque()  # signals to be sent

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

    @property
    def kept(self) -> Mapping[int, Kept]:
        """The generations that stay in memory for rollbacks, by number."""
        return self._keeping.generations

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
        return self._attempts.reports

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
    def staged(self) -> tuple[Joining, ...]:
        """What new code has registered so far: that of the transaction that runs, and what waits to be committed."""
        running = self._running
        staged = (None if running is None else running.joined), self.parking.joined
        return tuple(joined for joined in staged if joined is not None)

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
            raise self._refused(error, unreadable(given), asked) from None
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
        document = Document(
            id=id or new_id(), may_be_retry=bool(id), expect=expect, restores=-1 if to is None else to
        )
        return self._attempt(document, asked, multiprocess=multiprocess)

    def commit_staged(
        self, identity: str, *, trigger: Trigger, actor: str | None = None, multiprocess: bool = False
    ) -> ReloadReport:
        """Serve what was staged by the reload of that id. Raise as :meth:`reload` does.

        It is a transaction of its own, with an id made from that one, so that a retry gets the same report.
        """
        document = Document(id=commit_of(identity), commits=identity)
        return self._attempt(document, Asked(trigger, actor), multiprocess=multiprocess)

    def discard_staged(self, identity: str) -> bool:
        """Let go of what was staged by the reload of that id; return whether it was there, and not committed."""
        return self.parking.drop(identity) if self.conductor is None else self.conductor.discard(identity)

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
                    earlier = self._earlier(document.id) if document.may_be_retry else None
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
        if document.commits is not None and self.conductor is None:
            document = committing(self.parking.document(document.commits, self.current))
        # A conductor looks first whether it is a retry: what was expected then may be what has been replaced since.
        self.admit(document if self.conductor is None else replace(document, expect=None))
        try:
            report = (self.conductor or self).conduct(document, asked)
        except ReloadError as error:
            if error.report is not None:
                self._remember(error.report, error)
            raise
        self._remember(report)
        return report

    def conduct(self, document: Document, asked: Asked) -> ReloadReport:
        """Every step in its order, for this process alone."""
        step = "prepared"
        transaction = self.begin(document, asked) if document.commits is None else self.resume(document, asked)
        if transaction is None:
            raise not_staged(document.commits or "")
        asked.progress("begin", {"id": document.id, "workers": [worker_id()]})
        try:
            transaction.prepare()
            if not transaction.unchanged:
                transaction.check()
            asked.progress("worker", worker_told(worker_id(), step, ok=True))
            if not (transaction.unchanged or document.dry_run or document.stage):
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
        if document.stage and not transaction.unchanged:
            return self.park(transaction)
        report = self.end(transaction)
        self.collect()
        return report

    def _earlier(self, identity: str) -> ReloadReport | None:
        """What an earlier transaction with the same id came to, anywhere: its report, or its error raised."""
        report = self._attempts.earlier(identity)
        return report if report is not None or self.conductor is None else self.conductor.earlier(identity)

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
            given = Given() if document.restores is None else self._keeping.given(document.restores, self.current)
        recipe = given.recipe
        self._running = transaction = Transaction(
            document,
            self.current,
            host=self._application,
            lock=self.lock,
            limits=self._limits,
            roots=self._application.roots.resolve() if recipe is None else recipe.snapshot.roots,
            asked=asked,
            number=self.current.number + 1 if number is None else number,
            given=given,
        )
        self._tell_start(transaction)
        return transaction

    def _tell_start(self, transaction: Transaction) -> None:
        if self._application.awaits("reload_started"):
            self._application.notify("reload_started", report=self.report_of(transaction))

    def park(self, transaction: Transaction, *, seconds: float | None = None) -> ReloadReport:
        """Keep what is staged for a later :meth:`resume`, in the place of :meth:`end`."""
        transaction.park()
        self._running = None
        self.parking.keep(transaction, self._limits.stage_seconds if seconds is None else max(0.0, seconds))
        return self.report_of(transaction)

    def resume(self, document: Document, asked: Asked, *, number: int | None = None) -> Transaction | None:
        """The transaction that was parked under the id which ``document`` commits, prepared, as by :meth:`begin`.

        ``None``: there is none that would make the generation ``number`` of the current one.
        """
        number = self.current.number + 1 if number is None else number
        transaction = self.parking.take(document.commits or "", self.current, number)
        if transaction is not None:
            self._running = transaction
            transaction.resume(document, asked)
            self._tell_start(transaction)
        return transaction

    def commit(self, transaction: Transaction) -> None:
        """Serve what is staged and open the lock. There is no way back from here, and nothing that can fail."""
        old = self.current
        if self._base is None:
            self._base = old.recipe
        endings = tuple(old.afterlife.endings)
        # Requests inside are in the past before anything else is live: at no moment do they find new modules.
        generation = transaction.release(functools.partial(self._preserve, old))
        self.current = transaction.current = generation
        self._application.committed(generation, transaction.document, transaction.asked)
        transaction.open()
        self._retirement.await_end(old)
        assert old.afterlife.world is not None
        self._followed = Kept.of(old, old.afterlife.world, endings)

    def _preserve(self, old: Generation, exchange: Exchange) -> None:
        for world in self._worlds:
            world.preserve(exchange.displaced)
        past = exchange.past(old.recipe.snapshot)
        past.install()
        self._worlds.add(past)
        old.afterlife.world = past

    def settle(self, transaction: Transaction) -> None:
        """After :meth:`commit`: let tracebacks quote what is served, and rollbacks find what was.

        :meth:`end` does it, too, if nobody has.
        """
        transaction.quote()
        followed, self._followed = self._followed, None
        if followed is not None:
            self._keeping.followed(followed, self.current)

    def _one_before(self) -> int:
        if self.current.parent is None:
            raise ReloadInvalid(f"there is no generation before {self.current.number}: nothing to roll back to")
        return self.current.parent

    def renumber(
        self, number: int, *, parent: int | None = None, restores: int | None = None, label: str | None = None
    ) -> None:
        """Let what is served be the generation ``number``, which others have made, or with which a release begins.

        What led here were not the generations that had those numbers elsewhere: nothing is kept of them.
        """
        self.current = replace(self.current, number=number, parent=parent, restores=restores, label=label)
        self._keeping.begin_anew(self.current)
        self.parking.drop_unfit(self.current)

    def caught_up(self, probation: Probation | None, identity: str, began: float) -> None:
        """Tell the application what it serves since others have committed it: see :meth:`Application.caught_up`."""
        self._application.caught_up(probation, identity, began)

    def end(self, transaction: Transaction, error: ReloadError | None = None) -> ReloadReport:
        """Undo everything unless it is committed, and let go. :meth:`tell` sends the signals.

        What is not worth keeping any more goes with :meth:`collect`, for which nobody needs to wait.
        """
        if not transaction.committed:
            transaction.abort()
        transaction.close()
        if transaction.hung:
            self._given_up.append(transaction)
        self._running = None
        self.parking.drop_unfit(self.current)
        if transaction.committed:
            self.settle(transaction)
        self._retirement.run()
        report = self.report_of(transaction, error)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("in this worker: %s", report.summary())
        if transaction.committed:
            if self._application.awaits("reload_committed"):
                self._news.append(("reload_committed", {"report": report, "generation": report.generation}))
        elif error is not None:
            self._news.append(("reload_aborted", {"report": report}))
        if not transaction.hung:
            transaction.let_go()
        return report

    def collect(self) -> None:
        """Let go of generations that nobody can roll back to any more. Behind :meth:`end`, when nobody waits."""
        self._keeping.collect(self.current)

    def read_ahead(self) -> None:
        """Find out while there is time what the next reload, a rollback maybe, has to know."""
        take_stock(self._application.roots.resolve(), self._application.keep)

    def tell(self) -> None:
        """Send the signals of what has ended. Receivers may reload: whoever calls this is in no transaction."""
        while True:
            try:
                event, keywords = self._news.popleft()
            except IndexError:
                return
            self._application.notify(event, **keywords)

    def tell_apart(self) -> None:
        """The same on a thread of its own, for whom a receiver that reloads must not wait for."""
        if self._news:
            threading.Thread(target=self.tell, name="hotreload-signals", daemon=True).start()

    def report_of(self, transaction: Transaction, error: ReloadError | None = None) -> ReloadReport:
        """What this process can tell of a transaction, as far as it has come."""
        parked = self.parking.report_of(transaction)
        return report_of(transaction, error, generation=self.current.number, parked=parked)

    # Reports ---------------------------------------------------------------------------------------------------

    def _refused(self, error: ReloadError, document: Document, asked: Asked) -> ReloadError:
        """``error`` with the report of an attempt that never began."""
        error.report = report_of_refusal(error, document, asked, generation=self.current.number)
        self._remember(error.report, began=False)
        return error

    def _remember(self, report: ReloadReport, error: ReloadError | None = None, *, began: bool = True) -> None:
        self._attempts.remember(report, error, began=began)
        if self.conductor is not None:
            self.conductor.remember(report)
        level = logging.INFO if report.error is None else logging.WARNING
        _log.log(level, "%s", report.summary())
        self._application.attempted(report)


def _world_of_context() -> World | None:
    """Where the calling context finds project modules if its generation is no longer the current one."""
    slot = current_slot.get()
    generation = slot.pin if slot is not None else None
    return generation.afterlife.world if isinstance(generation, Generation) else None


set_pinned(_world_of_context)

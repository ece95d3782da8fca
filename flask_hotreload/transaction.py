"""One reload in one process, step by step.

==========  ====================================================================================================
step        promise
==========  ====================================================================================================
prepare     The new code is compiled, imported and bound beside the running code, within its time limit. Nothing
            live has changed, whatever it raised or however long it took.
check       Checks ran against the staged generation. Nothing live has changed.
drain       The gate is closed. Requests that are still inside are known by name.
apply       Callbacks, migrations and applied checks ran, within their time limit. Each namespace change has its undo.
park        In the place of all that follows: what is prepared stays, and requests can be served by it beside what is
            live. Either ``resume`` and the steps from drain on follow, or ``close``.
release     Requests that enter from now on get the new generation. This step cannot fail.
abort       After any of the steps before release: what was applied is undone, the gate is open.
close       The thread of the transaction has ended, or is known to be hung.
==========  ====================================================================================================

A step that fails raises a :class:`~flask_hotreload.errors.ReloadError`; whoever runs the steps then aborts.
"""

from __future__ import annotations

import _thread
import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from flask_hotreload.blame import hanging_import, overran, place_of_overrun, shown
from flask_hotreload.bounded import BoundedThread, Overrun
from flask_hotreload.caches import forget_types
from flask_hotreload.deadline import Deadline
from flask_hotreload.effects import Effects
from flask_hotreload.errors import CheckFailed, DrainTimeout, LoadError
from flask_hotreload.generation import Afterlife, Generation, run_endings
from flask_hotreload.host import Asked, Given, Host, Limits
from flask_hotreload.loader import Exchange
from flask_hotreload.pace import Pace, ShortTurns
from flask_hotreload.preparation import Preparation
from flask_hotreload.report import Drain, Straggler, Timings, utc_now
from flask_hotreload.rwlock import Gate, Reader, ReadersWriterLock
from flask_hotreload.side_effects import THREAD_PREFIX
from flask_hotreload.sources import ResolvedRoots, Snapshot
from flask_hotreload.staging import BoundCallback, Joining, Staged, joining

if TYPE_CHECKING:
    from flask_hotreload.document import Check, Document

Result = TypeVar("Result")

#: How much of the time for preparing may be spent on letting requests have their turn.
_RESTING = 0.5


class Transaction:
    """The steps of one reload; see the module's documentation for what each promises."""

    def __init__(
        self,
        document: Document,
        current: Generation,
        *,
        host: Host,
        lock: ReadersWriterLock,
        limits: Limits,
        roots: ResolvedRoots,
        asked: Asked,
        number: int,
        given: Given,
    ) -> None:
        """``number`` will be the generation's."""
        self.document = document
        self.current = current
        self.previous = current.number
        self.number = number
        #: The document's, or that of the generation which is restored.
        self.label = document.label if document.label is not None else given.label
        self.asked = asked
        self.started_at = utc_now()
        self.committed = False
        self._host = host
        self._lock = lock
        self._limits = limits
        self._gate = Gate()
        self._closed_at: float | None = None
        self._hold = Deadline(None)
        self._started = perf_counter()
        self._milliseconds: dict[str, float] = {}
        self._turns = ShortTurns()
        self._effects = Effects(
            lambda: self.snapshot,
            apply=self._bounded,
            undo=self._bounded_in_old,
        )
        self.joined = Joining(host.server, mount=None if document.data is not None else host.mount)
        self._preparation = Preparation(
            document,
            current,
            host=host,
            given=given,
            snapshot=given.snapshot or Snapshot(roots),
            joined=self.joined,
            number=number,
            label=self.label,
            undo=self._effects.undo,
        )
        self._threads: list[BoundedThread] = []  # all but the last were given up
        self._exchange: Exchange | None = None
        self.drained = Drain()
        self._warnings: list[str] = []
        self._parked: Afterlife | None = None  # of the staged generation, while requests can be served by it
        self._resumed = False

    # Steps -----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Raise :class:`LoadError` or :class:`ReloadInvalid`."""
        if self._resumed:
            return
        self.asked.phase("prepare")
        with self._timed("prepare_ms"):
            try:
                if self._preparation.executes:
                    self._thread().run(self._stage, seconds=self._limits.prepare_timeout)
                else:
                    self._preparation.make(_at_once)
            except Overrun as overrun:
                raise hanging_import(overrun, self.snapshot) from None
            except LoadError as error:
                explained = self._host.explain(error)
                if explained is error:
                    raise
                raise explained from error.original
            finally:
                self._warnings += self._preparation.side_effects()
        self._warnings += self._preparation.doubts()

    def check(self) -> None:
        """Raise :class:`CheckFailed`."""
        checks = [check for check in self.document.checks if not check.applied]
        if checks and not self._resumed:
            self.asked.phase("check")
            with self._timed("check_ms"):
                self._verify(checks, Deadline(self._limits.prepare_timeout))

    def park(self) -> None:
        """Let go of the thread, and let contexts that are pinned to what is staged find its modules."""
        loader = self._preparation.loader
        assert loader is not None
        assert self.next is not None
        self._end_threads()
        self._threads.clear()
        loader.world.install()
        self._parked = self.next.afterlife
        self._parked.world = loader.world
        self._milliseconds["total_ms"] = (perf_counter() - self._started) * 1000

    def resume(self, document: Document, asked: Asked) -> None:
        """Go on with what was parked, for ``document``, which is the same but for its id. Nothing is run again."""
        self.document, self.asked, self.started_at = document, asked, utc_now()
        self._resumed = True
        self._started, self._milliseconds = perf_counter(), {}
        self._turns = ShortTurns()
        self._preparation.find_migrations()  # live modules may have been imported since
        self._find_namespaces()

    def drain(self) -> None:
        """Raise :class:`DrainTimeout` if requests are inside at the time-out and the document says ``abort``."""
        document = self.document
        timeout = self._limits.timeout if document.timeout is None else document.timeout
        self.asked.phase("drain")
        with self._timed("drain_ms"):
            self._hold = Deadline(self._limits.max_hold)
            self._closed_at = perf_counter()
            self._lock.close(self._gate)  # transactions take turns, so no other writer is waited for
            in_flight = self._lock.in_flight
            inside = self._lock.drain(self._gate, timeout=timeout, ignoring=document.processing_dispatcher_count_max)
            self.drained = Drain(in_flight=in_flight, stragglers=tuple(_straggler(reader) for reader in inside))
        if len(inside) > document.processing_dispatcher_count_max and document.on_timeout == "abort":
            names = ", ".join(f"{reader.method} {reader.path} ({reader.age_ms:.0f} ms)" for reader in inside)
            raise DrainTimeout(
                f"after {timeout:g} s requests were still inside: {names}", seconds=timeout, readers=inside
            )

    def apply(self) -> None:
        """Raise :class:`ApplyError` or :class:`CheckFailed`."""
        assert self.staged is not None
        checks = [check for check in self.document.checks if check.applied]
        staged, migrations = self.staged, self._preparation.migrations
        if not (checks or staged.callbacks or staged.attributes or migrations):
            return
        self.asked.phase("apply")
        with self._timed("apply_ms"):
            budget = Deadline(min(self._limits.apply_timeout, self._hold.remaining() or 0.0))
            for target, values in staged.attributes:
                self._effects.set_attributes(target, values)
            for old, new in migrations:
                migrate = functools.partial(new.__hot_reload__, old)
                self._effects.run(new.__hot_reload__, migrate, budget, f"{new.__name__}.__hot_reload__")
            for bound in staged.callbacks:
                self._effects.run(bound.callback, self._calling(bound), budget, _name_of(bound.callback))
            if checks:
                self._verify(checks, budget)

    def release(self, before: Callable[[Exchange], object]) -> Generation:
        """Make the new modules and routes the live ones. Nothing here can fail: whatever could was done before.

        ``before`` is called with what will be taken away, just before it is.
        """
        loader = self._preparation.loader
        assert loader is not None
        assert self.next is not None
        self.committed = True
        self._exchange = exchange = loader.commit(before)
        self._end_preview()
        self.next.afterlife.inherit(self.current.afterlife, replaced=exchange.displaced.modules)
        self._host.publish(self.next, self.joined)
        return self.next

    def quote(self) -> None:
        """Let tracebacks quote what is served now; no hurry, once the gate is open."""
        if self._exchange is not None:
            self._exchange.quote()
            self._exchange = None

    def open(self) -> None:
        """Open the gate and let the held requests in."""
        self._lock.open(self._gate)
        if self._closed_at is not None:
            self._milliseconds["pause_ms"] = (perf_counter() - self._closed_at) * 1000
            self._closed_at = None
            self.drained = Drain(self.drained.in_flight, self.drained.stragglers, self._gate.held)

    def abort(self) -> None:
        """Undo in reverse, then open. What goes wrong in foreign code is a warning: the others run all the same."""
        try:
            self._effects.restore(seconds=self._limits.apply_timeout)
        finally:
            self.open()

    def close(self) -> None:
        """Let go of the thread and, unless committed, of everything staged: a generation that never served ends here,
        with its ``on_retire`` callbacks. If it was parked, that is when the last request has left it.
        """
        self._end_threads()
        if self._parked is not None and not self.hung:
            self._forget_once_left()
        elif not self.hung:
            if not self.committed:
                self._forget()
            self._effects.close()
        self.stop_clock()

    def stop_clock(self) -> None:
        """What is done from now on is not told as time that it took."""
        self._milliseconds.setdefault("total_ms", (perf_counter() - self._started) * 1000)

    def let_go(self) -> None:
        """Hold no generation any more: an error's traceback keeps this alive for long.

        Nor do the local variables of the functions in such a traceback.
        """
        del self.current
        self._preparation.let_go()

    # What can be told ------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The sources that are read, as far as it has come."""
        return self._preparation.snapshot

    @property
    def staged(self) -> Staged | None:
        """What new code has made; ``None`` before that, and if nothing differs from what runs."""
        return self._preparation.staged

    @property
    def next(self) -> Generation | None:
        """The generation that is staged; ``None`` once it is let go, too."""
        return self._preparation.next

    @property
    def unchanged(self) -> bool:
        """Whether nothing differs from what runs; then there is nothing more to do than :meth:`close`."""
        return self._preparation.unchanged

    @property
    def digest(self) -> str | None:
        """One digest over the sources that were read; ``None`` when there were none."""
        return self.snapshot.digest if self.snapshot.sources else None

    @property
    def hung(self) -> bool:
        """Whether code of this transaction was given up and is still running."""
        return any(thread.hung for thread in self._threads)

    @property
    def timings(self) -> Timings:
        return Timings(**{name: round(value, 3) for name, value in self._milliseconds.items()})

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.asked.reason, *self._warnings, *self._effects.warnings)

    def undo(self, function: Callable[[], object]) -> None:
        """Run ``function``, a callback's, if this transaction is aborted: within a time limit, as the callback."""
        self._effects.undo_foreign(function)

    # What runs on the transaction's thread ---------------------------------------------------------------------

    def _stage(self) -> None:
        pace = Pace(at_most=self._limits.prepare_timeout * _RESTING)
        self._preparation.make(pace.give_way)
        self._find_namespaces()

    def _find_namespaces(self) -> None:
        """Here, where nobody is held."""
        staged = self.staged
        if staged is not None and (staged.callbacks or self._preparation.migrations):
            self._effects.namespaces = self._host.namespaces()

    def _calling(self, bound: BoundCallback) -> Callable[[], object]:
        return lambda: bound.callback(self._host.server, bound.module, bound.dispatcher)

    def _verify(self, checks: list[Check], budget: Deadline) -> None:
        for check in checks:
            try:
                self._bounded(functools.partial(self._host.verify, check), budget)
            except Overrun as overrun:
                where = shown(*place_of_overrun(overrun, self.snapshot))
                raise CheckFailed(f"{where}check of {check} {overran(overrun)}") from None

    def _bounded(
        self, function: Callable[[], Result], budget: Deadline, *, generation: Generation | None = None
    ) -> Result:
        """Run ``function`` in the staged world, as a reader of ``generation``, or the staged one.

        Raise :class:`Overrun`.
        """
        read, loader = generation or self.next, self._preparation.loader
        assert read is not None

        def in_world() -> Result:
            assert loader is not None
            with loader.world.staging(), self._lock.passing(read), self._host.context(read):
                return function()

        return self._thread().run(in_world, seconds=budget.remaining() or 0.0)

    def _bounded_in_old(self, function: Callable[[], Result], budget: Deadline) -> Result:
        return self._bounded(function, budget, generation=self.current)

    def _thread(self) -> BoundedThread:
        if not self._threads or self._threads[-1].given_up:
            thread = BoundedThread(f"{THREAD_PREFIX}{self.document.id}", on_late_end=self._end_late)
            thread.context.run(joining.set, self.joined)
            self._threads.append(thread)
        return self._threads[-1]

    # Afterwards ------------------------------------------------------------------------------------------------

    def _end_late(self) -> None:
        """Code that was given up has ended: what it did since is undone."""
        for thread in self._threads:
            thread.close()
        loader = self._preparation.loader
        staged = loader.staged.values() if loader is not None else ()
        self._effects.restore_late([value for module in staged for value in vars(module).values()])
        self._effects.close()
        self._forget()

    def _end_threads(self) -> None:
        self._turns.end()
        for thread in self._threads:
            thread.close()

    def _forget_once_left(self) -> None:
        """Nobody enters what was parked any more; whoever is inside finds it as it is until the end."""
        reference = weakref.ref(self.next) if self.next is not None else _gone
        self._preparation.next = None
        inside = reference()
        if inside is None:
            self._end_left()
        else:
            # Not on the thread that drops it: that one may hold any lock.
            weakref.finalize(inside, _thread.start_new_thread, self._end_left, ()).atexit = False

    def _end_left(self) -> None:
        try:
            self._effects.restore(seconds=self._limits.apply_timeout)
            self._effects.close()
        finally:
            self._forget()
            forget_types()

    def _end_preview(self) -> None:
        """Contexts that are pinned to what was parked find what is live, or what their generation has become."""
        parked, self._parked = self._parked, None
        if parked is not None and parked.world is not None:
            world, parked.world = parked.world, None
            world.uninstall()

    def _forget(self) -> None:
        self._end_preview()
        if self._preparation.loader is not None:
            self._preparation.loader.abort()
        run_endings(self.joined.endings, self.number)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self._milliseconds[name] = (perf_counter() - started) * 1000


def _at_once() -> None:
    """In the place of a rest, where no new code runs."""


def _gone() -> Generation | None:
    return None


def _straggler(reader: Reader) -> Straggler:
    return Straggler(reader.method, reader.path, round(reader.age_ms, 3))


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))

"""One reload in one process, step by step.

==========  ====================================================================================================
step        promise
==========  ====================================================================================================
prepare     The new code is compiled, imported and bound beside the running code, within its time limit. Nothing
            live has changed, whatever it raised or however long it took.
check       Checks ran against the staged generation. Nothing live has changed.
drain       The gate is closed. Requests that are still inside are known by name.
apply       Callbacks, migrations and applied checks ran, within their time limit. Each namespace change has its undo.
release     Requests that enter from now on get the new generation. This step cannot fail.
abort       After any of the steps before release: what was applied is undone, the gate is open.
close       The thread of the transaction has ended, or is known to be hung.
==========  ====================================================================================================

A step that fails raises a :class:`~flask_hotreload.errors.ReloadError`; whoever runs the steps then aborts.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from flask_hotreload.blame import hanging_import, overran, place_of, place_of_overrun, shown
from flask_hotreload.bounded import BoundedThread, Overrun
from flask_hotreload.deadline import Deadline
from flask_hotreload.errors import ApplyError, CheckFailed, DrainTimeout, LoadError
from flask_hotreload.generation import Afterlife, Generation
from flask_hotreload.interpreter import interpreter
from flask_hotreload.loader import Exchange, ModuleLoader
from flask_hotreload.namespaces import Namespace, NamespaceGuard
from flask_hotreload.pace import Pace, ShortTurns
from flask_hotreload.report import Drain, Straggler, Timings, Trigger, utc_now
from flask_hotreload.rwlock import Gate, Reader, ReadersWriterLock
from flask_hotreload.side_effects import THREAD_PREFIX, Census
from flask_hotreload.sources import Roots, Snapshot, Source
from flask_hotreload.staging import BoundCallback, Joining, Staged, Stager, joining

if TYPE_CHECKING:
    from flask_hotreload.dispatch import DispatchTable
    from flask_hotreload.document import Check, Document

Result = TypeVar("Result")

#: How much of the time for preparing may be spent on letting requests have their turn.
_RESTING = 0.25


class Host(Protocol):
    """What a transaction needs of the application that it changes."""

    def script(self, path: str | None) -> str:
        """The absolute path of a script of the document; ``None``: the application's own."""

    def stager(self, table: DispatchTable, loader: ModuleLoader, joined: Joining) -> Stager: ...
    def routes(
        self,
        table: DispatchTable,
        current: Generation,
        undo: Callable[[Callable[[], object]], None],
        *,
        give_way: Callable[[], object],
    ) -> Any:
        """The URL map for ``table``. Raise :class:`ReloadInvalid` for a collision."""

    def explain(self, error: LoadError) -> LoadError:
        """A better error for what a framework raised in new code, or ``error``."""

    def publish(self, generation: Generation) -> None:
        """Make the routes of ``generation`` the application's. Cannot fail."""

    def context(self) -> AbstractContextManager[object]:
        """The context in which callbacks run."""

    def verify(self, check: Check) -> None:
        """Run ``check`` in the calling context. Raise :class:`CheckFailed`."""

    def namespaces(self) -> list[Namespace]:
        """The globals of every live project module."""

    @property
    def server(self) -> object:
        """The first argument of callbacks."""


class Limits(Protocol):
    """Seconds."""

    @property
    def timeout(self) -> float: ...
    @property
    def prepare_timeout(self) -> float: ...
    @property
    def apply_timeout(self) -> float: ...
    @property
    def max_hold(self) -> float: ...


class Asked(NamedTuple):
    """Who or what asked for a reload."""

    trigger: Trigger
    actor: str | None = None


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
        roots: Roots,
        asked: Asked,
        number: int,
        sources: dict[str, Source] | None = None,
    ) -> None:
        """``number`` will be the generation's. ``sources``: what others have read already, real path → source."""
        self.document = document
        self.current = current
        self.previous = current.number
        self.number = number
        self.asked = asked
        self.started_at = utc_now()
        self.committed = False
        self.snapshot = Snapshot(roots.resolve(), sources)
        self._host = host
        self._lock = lock
        self._limits = limits
        self._gate = Gate()
        self._closed_at: float | None = None
        self._hold = Deadline(None)
        self._started = perf_counter()
        self._milliseconds: dict[str, float] = {}
        self._turns = ShortTurns()
        self._census = Census()
        self._namespaces: list[Namespace] = []
        self._guards: list[NamespaceGuard] = []
        self._undo: list[Callable[[], object]] = []
        self._undoing = Deadline(None)
        self._aborted = False
        self._migrations: list[tuple[ModuleType, ModuleType]] = []  # (old, new)
        self._joined = Joining(host.server)
        self._threads: list[BoundedThread] = []  # all but the last were given up
        self._loader: ModuleLoader | None = None
        self.staged: Staged | None = None
        self.next: Generation | None = None
        self.drained = Drain()
        self.warnings: list[str] = []

    # Steps -----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Raise :class:`LoadError` or :class:`ReloadInvalid`."""
        with self._timed("prepare_ms"):
            try:
                self.staged, self.next = self._thread().run(self._stage, seconds=self._limits.prepare_timeout)
            except Overrun as overrun:
                raise hanging_import(overrun, self.snapshot) from None
            except LoadError as error:
                explained = self._host.explain(error)
                if explained is error:
                    raise
                raise explained from error.original
            finally:
                self.warnings += self._census.differences()
        self.warnings += self._not_taken()

    def check(self) -> None:
        """Raise :class:`CheckFailed`."""
        checks = [check for check in self.document.checks if not check.applied]
        if checks:
            with self._timed("check_ms"):
                self._verify(checks, Deadline(self._limits.prepare_timeout))

    def drain(self) -> None:
        """Raise :class:`DrainTimeout` if requests are inside at the time-out and the document says ``abort``."""
        document = self.document
        timeout = self._limits.timeout if document.timeout is None else document.timeout
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
        staged = self.staged
        if not (checks or staged.callbacks or staged.attributes or self._migrations):
            return
        with self._timed("apply_ms"):
            budget = Deadline(min(self._limits.apply_timeout, self._hold.remaining() or 0.0))
            for target, values in staged.attributes:
                self._set_attributes(target, values)
            for old, new in self._migrations:
                migrate = functools.partial(new.__hot_reload__, old)
                self._guarded(new.__hot_reload__, migrate, budget, f"{new.__name__}.__hot_reload__")
            for bound in staged.callbacks:
                self._guarded(bound.callback, self._calling(bound), budget, _name_of(bound.callback))
            if checks:
                self._verify(checks, budget)

    def release(self) -> tuple[Generation, Exchange]:
        """Make the new modules and routes the live ones. Nothing here can fail: whatever could was done before."""
        assert self._loader is not None
        assert self.next is not None
        self.committed = True
        exchange = self._loader.commit()
        self.next.afterlife.inherit(self.current.afterlife, replaced=exchange.displaced.modules)
        self._host.publish(self.next)
        return self.next, exchange

    def open(self) -> None:
        """Open the gate and let the held requests in."""
        self._lock.open(self._gate)
        if self._closed_at is not None:
            self._milliseconds["pause_ms"] = (perf_counter() - self._closed_at) * 1000
            self._closed_at = None
            self.drained = Drain(self.drained.in_flight, self.drained.stragglers, self._gate.held)

    def abort(self) -> None:
        """Undo in reverse, then open. What goes wrong in foreign code is a warning: the others run all the same."""
        self._undoing = Deadline(self._limits.apply_timeout)
        try:
            while self._undo:
                self._undo.pop()()
        finally:
            self._aborted = True
            self.open()

    def close(self) -> None:
        """Let go of the thread and, unless committed, of everything staged."""
        self._turns.end()
        for thread in self._threads:
            thread.close()
        if not self.committed and not self.hung and self._loader is not None:
            self._loader.abort()
        self._milliseconds["total_ms"] = (perf_counter() - self._started) * 1000

    @property
    def digest(self) -> str | None:
        """One digest over the sources that were read; ``None`` when there were none."""
        sources = sorted((source.path, source.digest) for source in self.snapshot.sources.values())
        return "sha256:" + hashlib.sha256(repr(sources).encode()).hexdigest() if sources else None

    @property
    def hung(self) -> bool:
        """Whether code of this transaction was given up and is still running."""
        return any(thread.hung for thread in self._threads)

    @property
    def timings(self) -> Timings:
        return Timings(**{name: round(value, 3) for name, value in self._milliseconds.items()})

    def undo(self, function: Callable[[], object]) -> None:
        """Run ``function``, a callback's, if this transaction is aborted: within a time limit, as the callback."""
        self._undo.append(functools.partial(self._run_undo, function))

    # What runs on the transaction's thread ---------------------------------------------------------------------

    def _stage(self) -> tuple[Staged, Generation]:
        current, host = self.current, self._host
        pace = Pace(at_most=self._limits.prepare_timeout * _RESTING)
        entries = [entry for entry in self.document.data or () if entry.has_script and not entry.exclusive_module]
        scripts = [host.script(entry.script_path) for entry in entries]
        self._loader = loader = ModuleLoader(self.snapshot, scripts=scripts, give_way=pace.give_way)
        with loader.world.staging():
            staged = host.stager(current.table, loader, self._joined).stage(self.document)
            self._migrations = [
                (interpreter.live[name], module)
                for name, module in loader.staged.items()
                if callable(vars(module).get("__hot_reload__")) and name in interpreter.live
            ]
        generation = Generation(
            number=self.number,
            table=staged.table,
            routes=host.routes(staged.table, current, self._undo.append, give_way=pace.give_way),
            wsgi_app=current.wsgi_app,
            label=self.document.label,
            modules={**current.modules, **self._digests(loader)},
            afterlife=Afterlife(callbacks=self._joined.retire_callbacks),
        )
        if staged.callbacks or self._migrations:
            self._namespaces = host.namespaces()  # found here, where nobody is held
        return staged, generation

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

        def in_world() -> Result:
            assert self._loader is not None
            reading = self._lock.passing(generation or self.next)
            with self._loader.world.staging(), reading, self._host.context():
                return function()

        return self._thread().run(in_world, seconds=budget.remaining() or 0.0)

    def _thread(self) -> BoundedThread:
        if not self._threads or self._threads[-1].given_up:
            thread = BoundedThread(f"{THREAD_PREFIX}{self.document.id}", on_late_end=self._end_late)
            thread.context.run(joining.set, self._joined)
            self._threads.append(thread)
        return self._threads[-1]

    # Applying --------------------------------------------------------------------------------------------------

    def _guarded(self, foreign: Callable[..., Any], call: Callable[[], object], budget: Deadline, what: str) -> None:
        """Run foreign code whose assignments to globals are undone by an abort."""
        namespaces = {id(namespace): namespace for namespace in self._namespaces}
        own = getattr(inspect.unwrap(foreign), "__globals__", None)
        if own is not None:
            namespaces[id(own)] = own
        guard = NamespaceGuard(namespaces.values())
        self._guards.append(guard)
        self._undo.append(guard.restore)

        try:
            error = self._bounded(functools.partial(_error_of, call), budget)
        except Overrun as overrun:
            file, line = place_of_overrun(overrun, self.snapshot, foreign)
            raise ApplyError(f"{shown(file, line)}{what} {overran(overrun)}", file=file, line=line) from None
        finally:
            guard.settle()
        if error is not None:
            file, line = place_of(error, foreign)
            raise ApplyError(
                f"{shown(file, line)}{what} raised {type(error).__name__}: {error}",
                file=file,
                line=line,
                original=error,
            ) from error

    def _run_undo(self, function: Callable[[], object]) -> None:
        try:
            error = self._bounded(functools.partial(_error_of, function), self._undoing, generation=self.current)
        except Overrun as overrun:
            self.warnings.append(
                f"{shown(*place_of_overrun(overrun, self.snapshot, function))}undo {overran(overrun)}"
            )
        else:
            if error is not None:
                file, line = place_of(error, function)
                self.warnings.append(f"{shown(file, line)}undo raised {type(error).__name__}: {error}")

    def _set_attributes(self, target: object, values: Any) -> None:
        for name, value in values.items():
            before = getattr(target, name, _MISSING)
            try:
                setattr(target, name, value)
            except (AttributeError, TypeError) as error:
                raise ApplyError(f"{target!r} takes no attribute {name!r}: {error}", original=error) from error
            self._undo.append(functools.partial(_put_attribute, target, name, before))

    def _digests(self, loader: ModuleLoader) -> dict[str, str]:
        sources = {source.path: source.digest for source in self.snapshot.sources.values()}
        files = {name: getattr(module, "__file__", None) or "" for name, module in loader.staged.items()}
        return {name: sources[file] for name, file in files.items() if file in sources}

    # Afterwards ------------------------------------------------------------------------------------------------

    def _end_late(self) -> None:
        """Code that was given up has ended: what it did since is undone."""
        while self._aborted and self._undo:
            self._undo.pop()()
        for thread in self._threads:
            thread.close()
        if self._loader is None:
            return
        staged = [value for module in self._loader.staged.values() for value in vars(module).values()]
        for guard in reversed(self._guards):
            guard.restore_late(staged)
        self._loader.abort()

    def _not_taken(self) -> list[str]:
        assert self.staged is not None
        if not self._joined.registrations:
            return []
        served = {id(dispatcher.function) for dispatcher in self.staged.table}
        instances = {id(dispatcher.group.instance) for dispatcher in self.staged.table if dispatcher.group}
        return [
            f"{registration.name or registration.function!r} is registered at {registration.path!r} by the new code, "
            "but the document does not name it: it is not served"
            for registration in self._joined.registrations
            if id(registration.function) not in served | instances
        ]

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self._milliseconds[name] = (perf_counter() - started) * 1000


def _straggler(reader: Reader) -> Straggler:
    return Straggler(reader.method, reader.path, round(reader.age_ms, 3))


def _error_of(call: Callable[[], object]) -> BaseException | None:
    """What foreign code raises. Returned, so that its SystemExit or KeyboardInterrupt is not the asker's."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # as said
        return error
    return None


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))


def _put_attribute(target: object, name: str, value: object) -> None:
    if value is _MISSING:
        delattr(target, name)
    else:
        setattr(target, name, value)


_MISSING = object()

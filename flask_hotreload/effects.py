"""What a transaction does to live state under the writer lock, and the way back.

Each effect is recorded with its undo before the next one begins. :meth:`Effects.restore` undoes them in reverse; what
goes wrong in a foreign undo is a warning, and the others run all the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from flask_hotreload.blame import overran, place_of, place_of_overrun, shown
from flask_hotreload.bounded import Overrun
from flask_hotreload.deadline import Deadline
from flask_hotreload.errors import ApplyError
from flask_hotreload.namespaces import Namespace, NamespaceGuard
from flask_hotreload.sources import Snapshot

Result = TypeVar("Result")


class RunsBounded(Protocol):
    def __call__(self, function: Callable[[], Result], budget: Deadline, /) -> Result:
        """What ``function`` returns, run as foreign code of the transaction. Raise :class:`Overrun`."""


class Effects:
    """``apply`` runs callbacks and migrations, ``undo`` what they asked to have undone.

    ``snapshot()``: the sources whose lines are to blame.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], *, apply: RunsBounded, undo: RunsBounded) -> None:
        self._snapshot = snapshot
        self._apply = apply
        self._run_in_old = undo
        self._undo: list[Callable[[], object]] = []
        self._undoing = Deadline(None)
        self._guards: list[NamespaceGuard] = []
        self.restored = False
        self.warnings: list[str] = []
        #: The globals that foreign code may have assigned to; found before anybody is held.
        self.namespaces: list[Namespace] = []

    def undo(self, function: Callable[[], object]) -> None:
        """Run ``function``, our own and certain not to fail, if the transaction is aborted."""
        self._undo.append(function)

    def undo_foreign(self, function: Callable[[], object]) -> None:
        """Run ``function``, a callback's, if the transaction is aborted: within a time limit, as the callback."""
        self._undo.append(functools.partial(self._run_undo, function))

    def run(self, foreign: Callable[..., Any], call: Callable[[], object], budget: Deadline, what: str) -> None:
        """Run foreign code whose assignments to globals are undone by an abort. Raise :class:`ApplyError`."""
        namespaces = {id(namespace): namespace for namespace in self.namespaces}
        own = getattr(inspect.unwrap(foreign), "__globals__", None)
        if own is not None:
            namespaces[id(own)] = own
        guard = NamespaceGuard(namespaces.values())
        self._guards.append(guard)
        self._undo.append(guard.restore)
        try:
            error = self._apply(functools.partial(_error_of, call), budget)
        except Overrun as overrun:
            file, line = place_of_overrun(overrun, self._snapshot(), foreign)
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

    def set_attributes(self, target: object, values: Mapping[str, Any]) -> None:
        """Set them on a live object. Raise :class:`ApplyError` if it takes one of them not."""
        for name, value in values.items():
            before = getattr(target, name, _MISSING)
            try:
                setattr(target, name, value)
            except (AttributeError, TypeError) as error:
                raise ApplyError(f"{target!r} takes no attribute {name!r}: {error}", original=error) from error
            self._undo.append(functools.partial(_put_attribute, target, name, before))

    def restore(self, *, seconds: float) -> None:
        """Undo in reverse. Foreign undos have ``seconds`` together."""
        self._undoing = Deadline(seconds)
        try:
            self._run_undos()
        finally:
            self.restored = True

    def restore_late(self, staged: Iterable[object]) -> None:
        """Code that was given up has ended: undo what it did since. ``staged``: objects that only it can have."""
        if self.restored:
            self._run_undos()
        objects = list(staged)
        for guard in reversed(self._guards):
            guard.restore_late(objects)

    def close(self) -> None:
        """Let go of the transaction: no code of it runs any more, and a circle would keep its generation alive."""
        self._apply = self._run_in_old = self._snapshot = _closed
        self._undo.clear()
        self._guards.clear()
        self.namespaces = []

    def _run_undos(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _run_undo(self, function: Callable[[], object]) -> None:
        try:
            error = self._run_in_old(functools.partial(_error_of, function), self._undoing)
        except Overrun as overrun:
            where = shown(*place_of_overrun(overrun, self._snapshot(), function))
            self.warnings.append(f"{where}undo {overran(overrun)}")
        else:
            if error is not None:
                where = shown(*place_of(error, function))
                self.warnings.append(f"{where}undo raised {type(error).__name__}: {error}")


def _closed(*_: Any) -> Any:
    raise RuntimeError("this transaction is over")


def _error_of(call: Callable[[], object]) -> BaseException | None:
    """What foreign code raises. Returned, so that its SystemExit or KeyboardInterrupt is not the asker's."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # as said
        return error
    return None


def _put_attribute(target: object, name: str, value: object) -> None:
    if value is _MISSING:
        delattr(target, name)
    else:
        setattr(target, name, value)


_MISSING = object()

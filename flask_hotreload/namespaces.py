"""Undoing what a callback did to the globals of modules.

Before a callback runs, the namespaces are copied; after it, each difference is recorded with the value that the
callback left. A restore puts the earlier value back only where that value still stands: what somebody else has
assigned in the meantime is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

Namespace = dict[str, Any]

#: What a module is, as opposed to what it holds; a callback that copies a whole module over another must not move it.
IDENTITY = ("__name__", "__builtins__", "__spec__", "__loader__", "__file__", "__package__")

_MISSING: Any = object()


class _Change(NamedTuple):
    namespace: Namespace
    key: str
    before: Any
    after: Any

    def restore(self) -> None:
        if self.namespace.get(self.key, _MISSING) is self.after:
            _put(self.namespace, self.key, self.before)


class NamespaceGuard:
    """Watches ``namespaces`` from its making on; :meth:`settle` ends that."""

    def __init__(self, namespaces: Iterable[Namespace]) -> None:
        self._before = [(namespace, namespace.copy()) for namespace in namespaces]
        self._changes: list[_Change] = []

    def settle(self) -> None:
        """Record what has changed. What makes a module that module is put back at once."""
        for namespace, before in self._before:
            for key in IDENTITY:
                if namespace.get(key, _MISSING) is not before.get(key, _MISSING):
                    _put(namespace, key, before.get(key, _MISSING))
            after = namespace.copy()
            for key in before.keys() | after.keys():
                old, new = before.get(key, _MISSING), after.get(key, _MISSING)
                if old is not new:
                    self._changes.append(_Change(namespace, key, old, new))

    def restore(self) -> None:
        """Undo, newest first, what still is as the callback left it."""
        for change in reversed(self._changes):
            change.restore()

    def restore_late(self, staged: Iterable[object]) -> None:
        """Undo once more what code that was given up has done since :meth:`restore`.

        Nobody can tell its assignments from those of requests for certain. Taken for its own are the names that it
        had changed before, and those that now hold one of the ``staged`` objects, which nobody else can have.
        """
        foreign = {id(value) for value in staged}
        touched = {(id(change.namespace), change.key) for change in self._changes}
        for namespace, before in self._before:
            for key, value in namespace.copy().items():
                old = before.get(key, _MISSING)
                if value is not old and (id(value) in foreign or (id(namespace), key) in touched):
                    _put(namespace, key, old)


def _put(namespace: Namespace, key: str, value: Any) -> None:
    if value is _MISSING:
        namespace.pop(key, None)
    else:
        namespace[key] = value

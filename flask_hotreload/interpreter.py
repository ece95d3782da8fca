"""Which world the calling context is in, and the interpreter's hooks that ask.

While at least one :meth:`Interpreter.install` has no :meth:`~Interpreter.uninstall` yet, the attribute
``sys.modules`` is a :class:`~flask_hotreload.modules_view.ModulesView`, ``builtins.__import__`` is a wrapper, a
finder stands first on ``sys.meta_path``, and shared packages have the types of
:class:`~flask_hotreload.modules_view.SharedPackages`. All of them pass a context without a world straight on. The
last ``uninstall`` puts back what was there, except where somebody else has put something of theirs on top: that
stays. An ``__import__`` wrapper of others that calls ours is then called first and ours last, which makes no
difference to a context without a world.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from flask_hotreload.modules_view import Bindings, ModulesView, SharedPackages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class ContextModules(Bindings, Protocol):
    """What a world offers to the hooks."""

    committed: bool
    """That its modules are the live ones now, and contexts in it live contexts."""

    @property
    def modules(self) -> MutableMapping[str, ModuleType]:
        """``sys.modules`` as this world sees it."""

    def import_statement(
        self, name: str, namespace: Mapping[str, Any] | None, names: Sequence[str] | None, level: int
    ) -> ModuleType | None:
        """What ``__import__`` returns; ``None``: import it as always."""

    def find_spec(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """The spec of a module that this world has of its own; ``None``: ask the next finder."""


staging_world: ContextVar[ContextModules | None] = ContextVar("flask_hotreload.staging", default=None)


def _never_pinned() -> ContextModules | None:
    return None


_pinned: Callable[[], ContextModules | None] = _never_pinned


def set_pinned(pinned: Callable[[], ContextModules | None]) -> None:
    """Say who knows the world of the generation that the calling context is pinned to.

    ``pinned`` returns ``None`` for a context that is not pinned, or whose generation is the current one. It is asked
    at every look-up while a world is installed, so it must be quick, and must not import.
    """
    global _pinned  # noqa: PLW0603  # one interpreter has one sys.modules, hence one rule
    _pinned = pinned


def current() -> ContextModules | None:
    """The world of the calling context; ``None``: the live modules."""
    world = staging_world.get()
    if world is not None and not world.committed:
        return world
    return _pinned()


class Interpreter:
    """The hooks. There is one object of this, as there is one ``sys.modules``.

    ``live``
        The interpreter's own dictionary of modules, whatever the calling context is.
    """

    def __init__(self) -> None:
        self.live: dict[str, ModuleType] = sys.modules
        # The built-in one, or what others had put in its place before the first install.
        self._original_import: Callable[..., ModuleType] = builtins.__import__
        self._hook = self._import
        self._buried = False
        self._shared = SharedPackages(current)
        # Protects the count and the exchange of the hooks. Nobody waits for anything else with it held.
        self._lock = threading.Lock()
        self._installs = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        # The thread that held the lock does not exist in the child. A child keeps hooks that were installed.
        self._lock = threading.Lock()

    @property
    def installs(self) -> int:
        """How many installs have no uninstall yet."""
        return self._installs

    def install(self) -> None:
        """Let the context decide from now on. Any thread may."""
        with self._lock:
            self._installs += 1
            if self._installs > 1:
                return
            if not isinstance(sys.modules, ModulesView):
                self.live = sys.modules
                sys.modules = ModulesView(self.live, _visible)
            # The list is exchanged and not changed: another thread may be half through it.
            sys.meta_path = [self, *sys.meta_path]
            if builtins.__import__ is self._hook:
                return
            if not self._buried or builtins.__import__ is self._original_import:
                self._buried = False
                self._original_import = builtins.__import__
                builtins.__import__ = self._hook

    def uninstall(self) -> None:
        """Take back one :meth:`install`."""
        with self._lock:
            if not self._installs:
                raise RuntimeError("uninstall() without install()")
            self._installs -= 1
            if self._installs:
                return
            self._shared.restore()
            if isinstance(sys.modules, ModulesView):
                sys.modules = self.live
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
            self._buried = builtins.__import__ is not self._hook
            if not self._buried:
                builtins.__import__ = self._original_import

    def share(self, package: ModuleType, name: str) -> None:
        """Let the context decide about a submodule of a package that several worlds share, while installed."""
        with self._lock:
            if self._installs:
                self._shared.share(package, name)

    def import_live(self, name: str) -> ModuleType:
        """Import a module that all worlds share, by its absolute name, and return it and not its top package."""
        return self._original_import(name, None, None, ("__name__",), 0)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        world = current() if self._installs else None
        if world is not None:
            module = world.import_statement(name, globals, fromlist, level)
            if module is not None:
                return module
        return self._original_import(name, globals, locals, fromlist, level)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As a finder on ``sys.meta_path``."""
        world = current() if self._installs else None
        return None if world is None else world.find_spec(name, path)


def _visible() -> MutableMapping[str, ModuleType] | None:
    world = current()
    return None if world is None else world.modules


interpreter = Interpreter()

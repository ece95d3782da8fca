"""Worlds of project modules in one interpreter, chosen by context.

A :class:`World` holds modules of its own under names that the live modules have too. A context that is staging in a
world, or pinned to a generation that is no longer current, finds that world's modules wherever it looks: statement
imports, ``importlib``, ``sys.modules``, ``pkg.submodule``. Every other context finds the live ones, undisturbed:

* while some world is installed, the hooks of :mod:`flask_hotreload.interpreter` ask the context's world first;
* statement imports of a world take none of importlib's locks, which are per name and so would be shared with the live
  modules: an import that hangs while staging delays nobody else. (``importlib.import_module`` neither, from Python
  3.11 on; before, it takes the lock of a name that the world has not loaded yet);
* names that are not the project's are shared by all worlds; importing one while staging is an ordinary import.

The limits: C code that keeps the interpreter's own dictionary (the C pickler, ``PyImport_GetModule``) sees live
modules only, and so does code that kept a reference to ``sys.modules`` from before.
"""

from __future__ import annotations

import importlib._bootstrap
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, resolve_name
from types import ModuleType
from typing import Any

from flask_hotreload.circles import stand_in, takes_names
from flask_hotreload.interpreter import current, interpreter, set_pinned, staging_world
from flask_hotreload.modules_view import ABSENT
from flask_hotreload.overlay import Displaced, Finder, Overlay, put

__all__ = ["ABSENT", "Displaced", "Finder", "World", "current", "live_modules", "set_pinned"]

# importlib asks sys.modules with this default when it is about to import, and with no other. Where it does not, its
# own machinery imports, by World.find_spec.
_NEEDS_LOADING: object = getattr(importlib._bootstrap, "_NEEDS_LOADING", ABSENT)


def live_modules() -> dict[str, ModuleType]:
    """The interpreter's own dictionary of modules, whatever the calling context is."""
    return interpreter.live


@dataclass(eq=False)
class _Loading:
    thread: int
    hidden: bool  # that the name was marked ABSENT before, and is again if the import fails
    done: threading.Event = field(default_factory=threading.Event)


class World(Overlay):
    """Project modules of one generation, and how code in it imports.

    ``fallback``
        True (the world of a dispatcher reload): project names that the world does not have, and that are loaded live,
        are the live modules; it has the finder's targets and what they are the first to import.
        False (a whole generation): every project name is the world's own.
    ``give_way``
        Called before each module is compiled and before its body runs, so that the caller can pace the import.

    ``committed`` turns true when the world's modules have become the live ones: contexts in it are live contexts from
    then on. Once ``closed``, a world imports nothing more and holds nothing.
    """

    def __init__(self, finder: Finder, *, fallback: bool = True, give_way: Callable[[], None] | None = None) -> None:
        super().__init__(finder, fallback=fallback)
        self._give_way = give_way
        # Protects _loading and _waiting, and the step from "not there" to "being loaded". Never held while foreign
        # code runs. Who waits for a module waits for its _Loading.done: set when its body has ended, or on close().
        self._lock = threading.Lock()
        self._loading: dict[str, _Loading] = {}
        self._waiting: dict[int, _Loading] = {}
        _worlds.add(self)

    # -- the life of a world

    @contextmanager
    def staging(self) -> Iterator[World]:
        """The calling context is in this world; the world is installed meanwhile. May be nested."""
        self.install()
        token = staging_world.set(self)
        try:
            yield self
        finally:
            staging_world.reset(token)
            self.uninstall()

    @contextmanager
    def installed(self) -> Iterator[World]:
        """Contexts can be in this world meanwhile, by :func:`set_pinned`."""
        self.install()
        try:
            yield self
        finally:
            self.uninstall()

    def install(self) -> None:
        """Make look-ups depend on the context. Any thread may; each call needs its :meth:`uninstall`."""
        interpreter.install()
        self.share((*self._attributes.copy(), *self._finder.targets))

    def uninstall(self) -> None:
        """With the last one of all worlds, the interpreter is as it was before."""
        interpreter.uninstall()

    def again(self) -> World:
        """Another world of the same modules: one to be committed, while contexts stay in this one."""
        other = World(self._finder, fallback=self.fallback, give_way=self._give_way)
        other._own = self._own.copy()
        other._attributes = self._attributes.copy()
        return other

    def close(self) -> None:
        """Let go of all modules. Contexts that are still in this world can import nothing more into it."""
        with self._lock:
            self.closed = True
            waited_for = list(self._loading.values())
            self._loading.clear()
        self._let_go()
        for loading in waited_for:
            loading.done.set()

    def __repr__(self) -> str:
        state = "committed" if self.committed else "closed" if self.closed else "open"
        return f"<World {state}, {len(self._own)} modules{', with fallback' if self.fallback else ''}>"

    # -- what the hooks ask

    def get(self, name: str, default: Any = None) -> Any:
        if default is _NEEDS_LOADING and self.stages(name):
            return self.load(name)
        try:
            return self[name]
        except KeyError:
            return default

    def bound(self, name: str) -> object:
        if name in self._finder.targets and name not in self._attributes and not self.closed:
            self.load(name)  # a target that nobody has imported yet must not be the live one
        return super().bound(name)

    def find_spec(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        if self.stages(name):
            return self._finder.find_spec(name, path)
        if not self.committed and name not in interpreter.live:  # else somebody reloads what is there
            self._finder.refuse_unread(name, path)
        return None

    def import_statement(
        self, name: str, namespace: Mapping[str, Any] | None, names: Sequence[str] | None, level: int
    ) -> ModuleType | None:
        """What ``__import__`` returns to a context in this world; ``None``: it is no matter of this world."""
        absolute = _absolute(name, namespace, level)
        if absolute is None or not self._concerns(absolute, names or ()):
            return None
        module = self.load(absolute)
        if names:
            self._load_names(module, names)
            early = any(self._is_early(module, child) for child in names)
            return stand_in(module, self) if early and takes_names(namespace) else module
        head, *below = name.split(".")
        if not below:
            return module
        top = absolute[: len(absolute) - (len(name) - len(head))]
        return self._top(top, below, namespace)

    def _top(self, name: str, below: Sequence[str], namespace: Mapping[str, Any] | None) -> ModuleType:
        """The package of this name; ``import`` has loaded what the names ``below`` say, one below the other."""
        top = self[name]
        package: Any = top
        for at, child in enumerate(below):
            if self._is_early(package, child) and takes_names(namespace):
                return stand_in(top, self, below[1:])
            if at + 1 < len(below):
                name = f"{name}.{child}"
                package = self.get(name)
        return top

    def _is_early(self, module: ModuleType, child: str) -> bool:
        """Whether the submodule is there, but its package does not show it yet: its import has not ended."""
        name = f"{getattr(module, '__name__', '')}.{child}"
        shown = self._attributes.get(name, NotImplemented)
        if shown is NotImplemented:
            shown = getattr(module, "__dict__", {}).get(child, ABSENT)
        return shown is ABSENT and name in self

    def _concerns(self, absolute: str, names: Sequence[str]) -> bool:
        end = absolute.find(".")
        while end != -1:
            if self.owns(absolute[:end]):
                return True
            end = absolute.find(".", end + 1)
        return self.owns(absolute) or any(f"{absolute}.{child}" in self._finder.targets for child in names)

    def _load_names(self, module: ModuleType, names: Sequence[str]) -> None:
        """Import the submodules among the names of ``from module import names``."""
        if not hasattr(module, "__path__"):
            return
        for child in names:
            if child == "*":
                exported = getattr(module, "__all__", None)
                if exported is not None and "*" not in exported:
                    self._load_names(module, exported)
            elif not hasattr(module, child):
                name = f"{module.__name__}.{child}"
                try:
                    self.load(name)
                except ModuleNotFoundError as error:
                    if error.name != name:
                        raise
                    if name in interpreter.live:
                        # The statement would look there next, and find what this world does not have.
                        text = f"cannot import name {child!r} from {module.__name__!r}"
                        raise ImportError(text, name=module.__name__) from None

    # -- importing

    def load(self, name: str) -> ModuleType:
        """The module of an absolute name, imported if need be, its packages first.

        A module's body runs once in a world, however many threads ask. Raises what the body raises, and
        ``ImportError``.
        """
        with self._lock:
            own = None if self.closed or name in self._loading else self._own.get(name, ABSENT)
        if isinstance(own, ModuleType):
            return own  # whatever its name seems to say: an alias may have no package
        parent_name, _, child = name.rpartition(".")
        parent = self.load(parent_name) if parent_name else None
        if self.stages(name):
            return self._load_own(name, parent)
        module = interpreter.live.get(name)
        if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
            module = interpreter.import_live(name)
        if isinstance(parent, ModuleType) and parent_name in self._own and child not in vars(parent):
            setattr(parent, child, module)  # as the live package got it when the live world imported the submodule
        return module

    def _load_own(self, name: str, parent: ModuleType | None) -> ModuleType:
        me = threading.get_ident()  # looked up late: gevent may have replaced it since the import
        module: ModuleType | None = None
        while True:
            with self._lock:
                if self.closed:
                    raise ImportError(f"{name}: the reload that this code was staged for is over", name=name)
                loading = self._loading.get(name)
                if loading is None:
                    own = self._own.get(name, ABSENT)
                    if own is not ABSENT:
                        return _not_blocked(name, own)
                    if module is not None:
                        loading = self._loading[name] = _Loading(me, hidden=name in self._own)
                        self._own[name] = module
                        break
                elif loading.thread == me or self._closes_circle(loading, me):
                    return self[name]  # a circular import sees the module as far as it has come
                else:
                    self._waiting[me] = loading
            if loading is None:
                module = self._create(name, parent)
                continue
            try:
                loading.done.wait()
            finally:
                with self._lock:
                    self._waiting.pop(me, None)
        return self._execute(name, parent, module, loading)

    def _closes_circle(self, loading: _Loading, me: int) -> bool:
        """Whether waiting for this import would wait for ourselves; called with the lock held."""
        seen = set()
        while loading.thread not in seen:
            seen.add(loading.thread)
            following = self._waiting.get(loading.thread)
            if following is None:
                return False
            if following.thread == me:
                return True
            loading = following
        return False

    def _create(self, name: str, parent: ModuleType | None) -> ModuleType:
        path = None
        if parent is not None:
            path = getattr(parent, "__path__", None)
            if path is None and name not in self._finder.targets:
                text = f"No module named {name!r}; {parent.__name__!r} is not a package"
                raise ModuleNotFoundError(text, name=name)
        spec = self._finder.find_spec(name, path)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = module_from_spec(spec)
        vars(module).pop("__cached__", None)  # no bytecode file belongs to what is staged
        return module

    def _execute(self, name: str, parent: ModuleType | None, module: ModuleType, loading: _Loading) -> ModuleType:
        unshow = self._show(name, parent, module)
        try:
            final = self._run_body(name, module)
        except BaseException:
            if loading.hidden:
                self._own[name] = ABSENT
            else:
                self._own.pop(name, None)
            unshow()
            raise
        else:
            self._bind(name, parent, final)  # as importlib does, over what the package bound meanwhile
            self._take_over(name, final)
            return final
        finally:
            with self._lock:
                self._loading.pop(name, None)
            loading.done.set()

    def _run_body(self, name: str, module: ModuleType) -> ModuleType:
        """Run it, and return the module that is known by the name afterwards: a body may put another in its place."""
        spec = module.__spec__
        if self._give_way is not None:
            self._give_way()
            if spec is not None and isinstance(spec.loader, InspectLoader):
                spec.loader.get_code(name)  # compiled in a turn of its own; the body's begins after it
                self._give_way()
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module(module)
        final = self._own.get(name, ABSENT)
        if final is ABSENT:
            raise ImportError(f"{name!r} is not in sys.modules after its import", name=name)
        return final

    def _bind(self, name: str, parent: ModuleType | None, module: ModuleType) -> None:
        """Bind a module that is imported on its package."""
        if isinstance(parent, ModuleType) and name.rpartition(".")[0] in self._own:
            put(parent, name, module)
        else:
            self._show(name, parent, module)

    def _show(self, name: str, parent: ModuleType | None, module: ModuleType) -> Callable[[], None]:
        """Let a package that is shared with other worlds show a module here, and return what takes that back.

        Before the body runs: it may ask the package, which would show it the live module. A package of this world's
        own has nothing to show until the body has ended.
        """
        if not isinstance(parent, ModuleType) or name.rpartition(".")[0] in self._own:
            return lambda: None
        live = interpreter.live.get(name)
        if live is not None and vars(parent).get(name.rpartition(".")[2], live) is not live:
            return lambda: None  # the package uses the name for something else, and still does in this world
        bound = self._attributes.get(name, NotImplemented)
        self._attributes[name] = module
        interpreter.share(parent, name)

        def unshow() -> None:
            if bound is NotImplemented:
                self._attributes.pop(name, None)
            else:
                self._attributes[name] = bound

        return unshow

    def _take_over(self, name: str, package: ModuleType) -> None:
        """Bind what is loaded below a package that is imported anew: an import that finds it loaded would not."""
        if not hasattr(package, "__path__"):
            return
        prefix = f"{name}."
        for child_name in [*interpreter.live.copy(), *self._own.copy()]:
            child = child_name[len(prefix) :]
            if child_name.startswith(prefix) and "." not in child and child not in vars(package):
                module = self.get(child_name)
                if module is not None:
                    vars(package)[child] = module


def _absolute(name: str, namespace: Mapping[str, Any] | None, level: int) -> str | None:
    """The absolute name of an import; ``None``: it has none, and the interpreter shall say so in its own words."""
    if not level:
        return name
    if namespace is None:
        return None
    package = namespace.get("__package__")
    if package is None:
        package = namespace.get("__name__", "")
        if "__path__" not in namespace:
            package = package.rpartition(".")[0]
    try:
        return resolve_name("." * level + name, package)
    except (ImportError, TypeError):
        return None


def _not_blocked(name: str, module: ModuleType | None) -> ModuleType:
    if module is None:
        raise ModuleNotFoundError(f"import of {name} halted; None in sys.modules", name=name)
    return module


_worlds: weakref.WeakSet[World] = weakref.WeakSet()


def _renew_locks() -> None:
    # The thread that held a lock does not exist in the child.
    for world in _worlds:
        world._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)

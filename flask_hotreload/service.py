"""All that belongs to one Flask application: configuration, reloader, middleware, dispatchers, routes.

The application's extension object and every handle on it share one service.
"""

from __future__ import annotations

import _thread
import functools
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flask_hotreload import boot, checks, record_filter, signals
from flask_hotreload.config import Config
from flask_hotreload.dispatch import DispatchTable
from flask_hotreload.drift import Drift, Known, State, changed, state_of
from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.finder import is_kept
from flask_hotreload.generation import Generation
from flask_hotreload.interpreter import interpreter
from flask_hotreload.late_imports import LateImports
from flask_hotreload.membership import Membership
from flask_hotreload.metrics import Metrics
from flask_hotreload.middleware import HotReloadMiddleware
from flask_hotreload.mount import Mount
from flask_hotreload.mutex import Mutex
from flask_hotreload.on_probation import OnProbation
from flask_hotreload.origin import Origin, of_caller
from flask_hotreload.project import project_at_start, read_project
from flask_hotreload.recipe import Recipe
from flask_hotreload.reloader import Reloader
from flask_hotreload.remaking import make_again
from flask_hotreload.sources import Roots
from flask_hotreload.staging import Joining, Stager, joining
from flask_hotreload.watcher import Watcher, require_watching

if TYPE_CHECKING:
    from types import ModuleType

    from _typeshed.wsgi import WSGIApplication
    from flask import Flask
    from werkzeug.routing import Map

    from flask_hotreload.document import Check, Document
    from flask_hotreload.host import Asked
    from flask_hotreload.loader import ModuleLoader
    from flask_hotreload.namespaces import Namespace
    from flask_hotreload.probation import Probation
    from flask_hotreload.probation_watch import Siblings
    from flask_hotreload.report import ReloadReport
    from flask_hotreload.sources import Place, ResolvedRoots, Snapshot, Source

_log = logging.getLogger("flask_hotreload")

#: Seconds after a rollback at which it is looked for what the disk has: the answer has been sent by then.
_DRIFT_AFTER = 1.0


class Service:
    """``server`` is the extension object; callbacks get it as their first argument."""

    def __init__(self, app: Flask, config: Config, server: object) -> None:
        if config.watch:
            require_watching()
        self.config = config
        self.server = server
        self.script_path = _script_path(app)
        self.roots = Roots(config.roots or [_default_root(app, self.script_path)])
        self._origin = Origin.read(config.application) if config.application else of_caller()
        self._drift = Drift(self.roots)
        self._told_of_outer = False
        self._late = LateImports(config.keep)
        weakref.finalize(self, self._late.serve, None).atexit = False
        self._kept: dict[str, Any] = {}
        self._kept_sources: dict[str, Source] = {}  # of modules that are kept; real path → source
        self._keeping = Mutex(reentrant=True)  # protects _kept; factories run under it, each once; one may keep more
        base = project_at_start(self.roots.resolve())
        first = Generation(0, DispatchTable(), app.url_map, app.wsgi_app, Recipe(base))
        self.reloader = Reloader(self, config, first, keep=config.keep_generations)
        record_filter.remember(self.reloader)
        self.release = base.digest
        mount = self._mount_of(app, changed=self._set_up)
        self.reloader.current = replace(first, routes=app.url_map, mount=mount, wsgi_app=mount.wsgi_app)
        self.membership = Membership(self)
        self._watcher = Watcher(self) if config.watch else None
        self.metrics = Metrics(self)
        self.probation = OnProbation(self)
        self.middleware: Any = app.wsgi_app  # a WSGI application
        _services.add(self)

    def install(self, control: WSGIApplication | None) -> None:
        """Put the middleware around the application as it is now."""
        self.middleware = HotReloadMiddleware(
            self.reloader, control=control, prefix=self.config.url_prefix, exempt=self.config.exempt
        )
        outermost: Any = self.middleware
        if self._watcher is not None:
            outermost = self._watcher.at_first_request(outermost)
        self.app.wsgi_app = outermost  # type: ignore[method-assign]  # the documented way to wrap it

    def arrange(self) -> None:
        """Have the process that will serve do what it must before: join its deployment, then watch."""
        self.membership.arrange()
        if self._watcher is not None:
            self._watcher.arrange()

    @property
    def pinned(self) -> Generation:
        return self.reloader.pinned

    @property
    def current(self) -> Mount:
        mount: Mount = self.reloader.current.mount
        return mount

    @property
    def app(self) -> Flask:
        """The application of the current generation."""
        return self.current.app

    def _mount_of(self, app: Flask, **options: Any) -> Mount:
        return Mount(
            app,
            lock=self.reloader.lock,
            pinned=lambda: self.reloader.pinned,
            max_batch=self.config.max_batch,
            prefix=self.config.url_prefix if self.config.http else "",
            header=self.config.header,
            documented=self.config.openrpc,
            **options,
        )

    def _set_up(self) -> None:
        """Registrations change generation 0 while its application is set up."""
        current = self.reloader.current
        mount: Mount = current.mount
        self.reloader.current = replace(current, table=mount.table, routes=mount.app.url_map)

    def began_with(self, sources: Mapping[str, Source]) -> None:
        """Generation 0 was made from these, real path → source, whatever lies on the disk."""
        current = self.reloader.current
        snapshot = current.recipe.snapshot.with_sources(sources)
        self.reloader.current = replace(current, recipe=replace(current.recipe, snapshot=snapshot))

    # What the reloader asks of the application -----------------------------------------------------------------

    @property
    def keep(self) -> Collection[str]:
        return self.config.keep

    def script(self, path: str | None) -> str:
        return self.script_path if path is None else os.path.join(self.app.root_path, path)

    def project(self, roots: ResolvedRoots, known: Mapping[str, Source], give_way: Callable[[], object]) -> Snapshot:
        return read_project(roots, known, give_way=give_way)

    def differs(self, snapshot: Snapshot, running: Snapshot) -> bool:
        if snapshot.roots.real != running.roots.real:
            return True  # another release's folder, with other templates and data perhaps
        return changed(running, snapshot, self._kept_files(snapshot.roots))

    def _kept_files(self, roots: ResolvedRoots) -> set[Place | None]:
        """Where the files of those modules lie that ``HOTRELOAD_KEEP`` names and that are loaded."""
        return {
            roots.place(file)
            for name, module in interpreter.live.copy().items()
            if is_kept(name, self.keep) and isinstance(file := getattr(module, "__file__", None), str)
        }

    def mount(self, app: Flask, config: Config) -> Mount:
        """A handle's ``init_app`` comes here while a reload of the whole source runs new code."""
        mount = self._mount_of(app, before=self.reloader.current.table, other_settings=self.config.differing(config))
        app.wsgi_app = self.middleware  # type: ignore[method-assign]  # the documented way to wrap it
        return mount

    def make_again(self, loader: ModuleLoader, joined: Joining) -> Mount:
        self._refuse_shared_roots()
        self._remember_kept_sources()
        mount = make_again(loader, joined, running=self.app, origin=self._origin, script=self.script_path)
        mount.seal()
        if not self._told_of_outer and mount.app.wsgi_app is not self.middleware:
            self._told_of_outer = True
            _log.info(
                "what stands around app.wsgi_app after HotRPC(app), %r, belongs to the process: it is applied once, "
                "and stays as it is until a restart. Put it there before HotRPC(app) to have it reloaded",
                type(mount.app.wsgi_app).__name__,
            )
        return mount

    def _refuse_shared_roots(self) -> None:
        """Raise :class:`ReloadInvalid` if the module of another application would be imported anew for this one."""
        other = self._sharing()
        if other is not None:
            gc.collect()  # it may be one that nobody serves any more
            other = self._sharing()
        if other is not None:
            raise ReloadInvalid(
                f"{other.script_path}, under the roots of {self.app.name!r}, makes another application of this "
                f"process, {other.app.name!r}, which would go on with old modules: give each its own folders by "
                "HOTRELOAD_ROOTS, or serve each by a process of its own"
            )

    def _sharing(self) -> Service | None:
        mine = self.roots.resolve()
        for other in list(_services):
            same = other.app.import_name == self.app.import_name
            # One that the same code has made, and that has answered nothing: app = create_app() in a module whose
            # create_app() the server has called.
            spare = same and not other.app._got_first_request
            if other is not self and not spare and mine.place(other.script_path) is not None:
                return other
        return None

    def stager(
        self, mount: Mount, table: DispatchTable, loader: ModuleLoader, joined: Joining, *, restaged: bool
    ) -> Stager:
        # Flask refuses to be set up once it serves; nor may new code set up the live application before that.
        mount.app._got_first_request = True
        live = loader.world.modules if restaged else interpreter.live
        return Stager(
            table, loader, mount, joined, script_path=self.script, live=functools.partial(_live_callable, live)
        )

    def routes(
        self,
        mount: Mount,
        table: DispatchTable,
        current: DispatchTable,
        undo: Callable[[Callable[[], object]], None],
        *,
        give_way: Callable[[], object],
    ) -> Map:
        return mount.routes(table, current, undo, give_way=give_way)

    def explain(self, error: LoadError) -> LoadError:
        """Flask refuses ``@app.route`` once it serves; only a reload of the whole source can take in such a file.

        prometheus-client refuses a second metric of one name.
        """
        if isinstance(error.original, AssertionError) and "setup method" in str(error.original):
            return LoadError(
                f"{error.file}:{error.line}: this file sets up the running application (a route, a hook), "
                "which a reload of dispatchers cannot do; put dispatchers into a file of their own, or reload the "
                "whole source",
                file=error.file,
                line=error.line,
                original=error.original,
            )
        if isinstance(error.original, ValueError) and "Duplicated timeseries" in str(error.original):
            return LoadError(
                f"{error}. A metric of prometheus-client is made once per process: keep it, as in "
                "rpc.keep('orders', lambda: Counter('orders', '…')), or in a module that HOTRELOAD_KEEP names",
                file=error.file,
                line=error.line,
                original=error.original,
            )
        return error

    def warnings(self, modules: Mapping[str, ModuleType], mount: Mount) -> list[str]:
        with self._keeping.lock:
            kept = [(f"the kept object {name!r}", type(value)) for name, value in self._kept.items()]
        stale = [
            f"{what} is of the class {cls.__qualname__} of {cls.__module__}, and the new generation has its own: "
            "the object stays one of the old class. Define the class in a module that HOTRELOAD_KEEP names, or keep "
            "plain data"
            for what, cls in kept
            if cls.__module__ in modules and not _is_of(cls, modules[cls.__module__])
        ]
        others = [
            f"{name} is another one in the new code: settings belong to the process and stay until it is restarted"
            for name in mount.other_settings
        ]
        return stale + others

    def lasts(self, module: str) -> bool:
        """Whether no reload of the whole source executes the module of this name again."""
        if is_kept(module, self.keep):
            return True
        file = getattr(interpreter.live.get(module), "__file__", None)
        return module != "__main__" and isinstance(file, str) and self.roots.resolve().place(file) is None

    def publish(self, generation: Generation, joined: Joining) -> None:
        generation.mount.app.url_map = generation.routes
        generation.mount.forget_before()
        self._kept.update(joined.kept)
        self._late.serve(generation.recipe.snapshot if generation.made_by_reload else None)

    def context(self, generation: Generation) -> AbstractContextManager[object]:
        mount: Mount = generation.mount
        return mount.app.app_context()

    def verify(self, check: Check) -> None:
        checks.verify(check, self.middleware)

    def namespaces(self) -> list[Namespace]:
        roots = self.roots.resolve()
        return [
            vars(module)
            for name, module in interpreter.live.copy().items()
            if module is not None
            and (
                name == "__main__" or ((file := getattr(module, "__file__", None)) and roots.place(file) is not None)
            )
        ]

    def committed(self, generation: Generation, document: Document, asked: Asked) -> None:
        self.probation.committed(generation, document, asked)

    def caught_up(self, probation: Probation | None, identity: str, began: float) -> None:
        self.probation.resume(probation, identity, began)

    @property
    def siblings(self) -> Siblings | None:
        return self.membership.agent

    def notify(self, event: str, **keywords: Any) -> None:
        if event == "reload_committed":
            self.probation.start()
        try:
            getattr(signals, event).send(self.app, **keywords)
        except Exception:  # noqa: BLE001  # a receiver's fault is not the reload's
            _log.exception("a receiver of the signal %s failed", event)

    def awaits(self, event: str) -> bool:
        return bool(getattr(signals, event).receivers) or (event == "reload_committed" and self.probation.is_to_start)

    def attempted(self, report: ReloadReport) -> None:
        self.metrics.observe(report)
        if report.status == "committed" and report.restores is not None:
            # What is on disk is what has just been left. To read all of it takes longer than the rollback.
            timer = threading.Timer(_DRIFT_AFTER, self._warn_of_drift)
            timer.name, timer.daemon = "hotreload-drift", True
            try:
                _thread.start_new_thread(timer.start, ())  # which waits for that thread to run, and the answer not
            except RuntimeError as error:  # too many threads
                _log.warning("what lies on disk is not compared with what runs: %s", error)

    def pending(self) -> list[dict[str, str]]:
        """What lies on disk and does not run: see :class:`~flask_hotreload.drift.Drift`."""
        return self._drift.pending(self._runs())

    def _runs(self) -> Snapshot:
        return self.reloader.current.recipe.snapshot.with_sources(self._kept_sources)

    def _remember_kept_sources(self) -> None:
        """What kept modules were made from: they go on running it whatever a reload of the whole source reads."""
        if self.keep:
            running = self.reloader.current.recipe.snapshot
            kept = self._kept_files(running.roots)
            sources = {real: source for real, source in running.sources.items() if running.roots.place(real) in kept}
            self._kept_sources = sources | self._kept_sources

    # What the watcher asks of it -------------------------------------------------------------------------------

    def disk(self) -> State:
        """What lies on disk now."""
        return self._drift.disk()

    def running(self) -> State:
        """What the current generation was made from."""
        return state_of(self.reloader.current.recipe.snapshot)

    def asks_for_all(self) -> bool:
        """Whether it is this process that asks for reloads, of all that serve the same deployment."""
        return self.membership.leads

    def drift(self) -> str | None:
        """The same in a line for people; ``None``: a restart would load what runs."""
        current = self.reloader.current
        known = [Known(each.number, each.label, each.recipe.snapshot) for each in self.reloader.kept.values()]
        return self._drift.described(Known(current.number, current.label, self._runs()), known)

    def warn_when_started(self) -> None:
        """Have a worker that starts, and then serves what was committed, warn if that is not what lies on disk."""
        this = weakref.ref(self)

        def look(place: object) -> None:
            service = this()
            if service is not None and service.reloader.current.number > 0:
                service._warn_of_drift()

        if self.membership.expected:
            boot.before_serving(look)

    def _warn_of_drift(self) -> None:
        """Cannot fail."""
        try:
            drift = self.drift()
        except Exception:  # noqa: BLE001  # whatever is wrong with the disk, the reload is over
            _log.exception("what lies on disk cannot be compared with what runs")
            return
        if drift is not None:
            _log.warning("%s", drift)

    # Kept objects ----------------------------------------------------------------------------------------------

    def kept(self, name: str, factory: Callable[[], Any]) -> Any:
        """The object of that name. New code's are the process's once its reload is committed, or live code asks."""
        joined = joining.get() or self.reloader.parking.joined_by(self.pinned)
        with self._keeping.lock:
            if name in self._kept:
                return self._kept[name]
            for staged in self.reloader.staged if joined is None else ():
                if name in staged.kept:
                    return self._kept.setdefault(name, staged.kept[name])
            mine = self._kept if joined is None else joined.kept
            if name not in mine:
                mine[name] = factory()
            return mine[name]


_services: weakref.WeakSet[Service] = weakref.WeakSet()


def _live_callable(modules: Mapping[str, ModuleType], name: str) -> Callable[..., Any]:
    """``"package.module:function"`` in ``modules``. Raise :class:`ReloadInvalid`."""
    module_name, _, function_name = name.partition(":")
    value: Any = modules.get(module_name)
    if value is None:
        raise ReloadInvalid(f"{name!r}: no module {module_name!r} is loaded")
    for part in function_name.split("."):
        value = getattr(value, part, None)
    if not callable(value):
        raise ReloadInvalid(f"{name!r}: {module_name!r} has no callable {function_name!r}")
    function: Callable[..., Any] = value
    return function


def _is_of(cls: type, module: ModuleType) -> bool:
    """Whether a module's class, as far as its name can tell."""
    value: object = module
    for part in cls.__qualname__.split("."):
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    return value is cls


def _script_path(app: Flask) -> str:
    """The file in which the application was made; its root path when that is not known."""
    module = sys.modules.get(app.import_name)
    return os.path.abspath(getattr(module, "__file__", None) or app.root_path)


def _default_root(app: Flask, script_path: str) -> str:
    """The folder of the application's top-level package, or of its module."""
    package = sys.modules.get(app.import_name.partition(".")[0])
    file = getattr(package, "__file__", None) if hasattr(package, "__path__") else script_path
    if file is None or os.path.isdir(file):  # nobody knows the file in which the application was made
        return app.root_path
    folder = os.path.dirname(os.path.abspath(file))
    return folder if os.path.isdir(folder) else app.root_path

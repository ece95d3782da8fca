"""This process among the workers of its deployment: in which store they meet, when it joins, and as which release."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flask_hotreload import boot
from flask_hotreload.boot_sources import boot_sources
from flask_hotreload.coordination.agent import Agent, member_of
from flask_hotreload.coordination.conductor import Conductor
from flask_hotreload.coordination.meeting_place import folder_for
from flask_hotreload.coordination.reports import Reports
from flask_hotreload.coordination.signing import Signer, key_beside
from flask_hotreload.coordination.sqlite import SQLiteStore
from flask_hotreload.coordination.worker import Worker
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.portable import portable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

    from flask_hotreload.config import Config
    from flask_hotreload.coordination.records import Member
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.on_probation import OnProbation
    from flask_hotreload.reloader import Reloader
    from flask_hotreload.sources import Roots, Source
_log = logging.getLogger("flask_hotreload")
_SQLITE = "sqlite:///"


class Serves(Protocol):
    """What a membership needs of the service that it is for."""

    @property
    def app(self) -> Flask: ...
    @property
    def config(self) -> Config: ...
    @property
    def reloader(self) -> Reloader: ...
    @property
    def release(self) -> str: ...
    @property
    def roots(self) -> Roots: ...
    @property
    def probation(self) -> OnProbation: ...
    def script(self, path: str | None) -> str: ...
    def began_with(self, sources: Mapping[str, Source]) -> None: ...


class Membership:
    """Joins ``service`` to its deployment before it serves, as its configuration says.

    ``"local"``, and ``"auto"`` outside of gunicorn: not at all. ``"auto"`` under gunicorn: with the workers of the
    same master, in a store of the master's own. ``"sqlite:///path"``: with whoever names the same file.
    """

    def __init__(self, service: Serves) -> None:
        self._service = service
        self._agent: Agent | None = None
        #: Whether a process that serves this application takes part, or will before it serves.
        self.expected = False

    def arrange(self) -> None:
        """Have the worker join before its first request."""
        coordinator = self._service.config.coordinator
        if coordinator == "local":
            return
        self.expected = boot.before_serving(_weak(self._join), afterwards=_weak(self._leave))
        if not self.expected and coordinator.startswith(_SQLITE):
            self.expected = True
            health = f"{self._service.config.url_prefix}/health"
            self._service.app.wsgi_app = _FirstRequest(  # type: ignore[method-assign]  # the documented way to wrap it
                self._service.app.wsgi_app, lambda: self._join(None), health=health
            )

    @property
    def agent(self) -> Agent | None:
        return self._agent

    @property
    def joined(self) -> bool:
        """Whether this process serves what its deployment has committed; always true for a process of its own."""
        return not self.expected or (self._agent is not None and self._agent.joined)

    @property
    def release(self) -> str | None:
        """The release that this worker belongs to; ``None`` if it is alone."""
        return self._agent.release if self._agent is not None else None

    @property
    def leads(self) -> bool:
        """Whether it is this process that does what one of the workers has to do for all."""
        try:
            return not self.expected or (self._agent is not None and self._agent.leads)
        except StoreUnavailable:
            return False

    def now(self) -> float:
        """Seconds on the clock by which members tell when they were seen."""
        return self._agent.now() if self._agent is not None else 0.0

    def members(self) -> tuple[Member, ...]:
        """Every living worker of the deployment; none if this process is alone."""
        return self._agent.members() if self._agent is not None else ()

    def _join(self, place: boot.Place | None) -> None:
        service = self._service
        try:
            store, signer = self._open(place)
            release = self._release(store, place)
        except StoreUnavailable as error:
            _log.error("this worker cannot reach its store and serves the code on disk: %s", error)
            service.reloader.conductor = _Unavailable(str(error))
            return
        member = member_of(store.member_id, release, service.reloader.current.number)
        deployment = service.config.deployment or service.app.import_name
        worker = Worker(service.reloader, store, signer, deployment=deployment, release=release)
        reports = Reports(store, signer, member=member, deployment=deployment)
        conductor = Conductor(
            store,
            worker,
            signer,
            reports,
            member=member,
            deployment=deployment,
            timeouts=service.config,
            keep=service.config.keep_generations,
            portable=lambda document: portable(document, service.script),
        )
        lock = service.reloader.lock
        self._agent = Agent(
            store,
            worker,
            conductor,
            reports,
            member=member,
            in_doubt=service.config.in_doubt,
            load=lambda: (lock.in_flight, lock.held),
            tell=service.reloader.tell,
            tally=service.probation.tally,
        )
        service.reloader.conductor = self._agent
        if place is None or place.in_master or service.config.coordinator.startswith(_SQLITE):
            self._agent.start()
        else:
            self._start_on_base(self._agent, store, signer, deployment, release)

    def _start_on_base(self, agent: Agent, store: Store, signer: Signer, deployment: str, release: str) -> None:
        """Start as one whose successors are to import the same, see :mod:`flask_hotreload.boot_sources`."""
        service = self._service
        service.began_with(boot_sources.served(service.roots))
        found = boot_sources.imported(store, service.roots, release)
        agent.start()
        if boot_sources.differs(store, signer, release):
            _log.info("this worker imported the disk before a reload was committed; another one takes its place")
            self._leave()
            raise SystemExit(0)
        if found is not None:
            boot_sources.keep(store, signer, found, deployment=deployment, release=release)

    def _leave(self) -> None:
        if self._agent is not None:
            self._service.probation.stop()
            self._agent.stop()

    def _open(self, place: boot.Place | None) -> tuple[Store, Signer]:
        config = self._service.config
        if config.coordinator.startswith(_SQLITE):
            path = Path("/" + config.coordinator.removeprefix(_SQLITE).lstrip("/"))  # also sqlite:////path
        else:
            assert place is not None
            path = folder_for(self._service.app.import_name, place.master_pid) / "store.sqlite"
        key = config.signing_key.encode() if config.signing_key is not None else key_beside(path)
        return SQLiteStore(path), Signer(key)

    def _release(self, store: Store, place: boot.Place | None) -> str:
        """The release that this worker's code belongs to, made known to the store if it is new."""
        config = self._service.config
        told = place.release if place is not None else None
        if config.coordinator.startswith(_SQLITE):
            told = config.release or self._service.release
        while True:
            current = store.view("").release
            if told is None or told == current:
                return current
            if config.coordinator.startswith(_SQLITE):
                if store.new_release(told, only_if=current) or store.view("").release == current:
                    return told
            elif not boot.supersedes(told, current):
                return told  # a later HUP was quicker: this worker belongs to one that is being replaced
            elif store.new_release(told, only_if=current):
                return told


def _weak(method: Callable[..., object]) -> Callable[..., object]:
    """``method``, which does nothing once its object is gone: an application that nobody serves need not join."""
    reference = weakref.WeakMethod(method)

    def call(*args: object) -> object:
        alive = reference()
        return None if alive is None else alive(*args)

    return call


class _Unavailable:
    """What stands for the deployment when its store could not even be opened."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def conduct(self, document: object, asked: object) -> Any:
        raise StoreUnavailable(self._reason)

    def remember(self, report: object) -> None:
        """There is nowhere to keep it."""

    def history(self) -> Any:
        raise StoreUnavailable(self._reason)

    def earlier(self, identity: str) -> Any:
        raise StoreUnavailable(self._reason)

    def discard(self, identity: str) -> Any:
        raise StoreUnavailable(self._reason)


class _FirstRequest:
    """Joins when the first request comes, and then gets out of the way.

    Requests wait until it has joined, but for those of ``health``, which would tell nothing if they did.
    """

    def __init__(self, wsgi_app: WSGIApplication, join: Callable[[], object], *, health: str) -> None:
        self._wsgi_app = wsgi_app
        self._join = join
        self._health = health
        self._lock = threading.Lock()  # protects _joining
        self._joining: threading.Thread | None = None
        self._joined = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._joined:
            with self._lock:
                if self._joining is None:
                    self._joining = threading.Thread(target=self._run, name="hotreload-join", daemon=True)
                    self._joining.start()
            if environ.get("PATH_INFO", "") != self._health:
                self._joining.join()
        return self._wsgi_app(environ, start_response)

    def _run(self) -> None:
        try:
            self._join()
        except Exception:  # noqa: BLE001  # whatever it is, the code that was loaded can be served
            _log.exception("this worker could not join its deployment; it serves the code on disk, alone")
        self._joined = True

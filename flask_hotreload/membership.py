"""This process among the workers of its deployment: in which store they meet, when it joins, and as which release."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flask_hotreload import boot
from flask_hotreload.boot_sources import boot_sources
from flask_hotreload.config import NETWORK
from flask_hotreload.coordination.agent import Agent, member_of
from flask_hotreload.coordination.conductor import Conductor
from flask_hotreload.coordination.meeting_place import folder_for
from flask_hotreload.coordination.positions import told_script
from flask_hotreload.coordination.refused import STATE as REFUSED
from flask_hotreload.coordination.refused import Refused
from flask_hotreload.coordination.reports import Reports
from flask_hotreload.coordination.signing import SignatureInvalid, Signer, key_beside
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
#: What names a store explicitly: then whoever names the same belongs together.
_EXPLICIT = (_SQLITE, *NETWORK)
#: Seconds between two attempts to reach a store that could not be reached when the worker started.
_RETRY = 1.0


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
    @property
    def middleware(self) -> Any: ...
    def script(self, path: str | None) -> str: ...
    def began_with(self, sources: Mapping[str, Source]) -> None: ...


class Membership:
    """Joins ``service`` to its deployment before it serves, as its configuration says.

    ``"local"``, and ``"auto"`` outside of gunicorn: not at all. ``"auto"`` under gunicorn: with the workers of the
    same master, in a store of the master's own. ``"sqlite:///path"``, ``"redis://…"``: with whoever names the same.

    A worker that cannot reach its store when it starts serves the code on disk, and joins when it can. So does one
    whose signing key is another than its deployment's, for as long as a worker with the deployment's key lives.
    """

    def __init__(self, service: Serves) -> None:
        self._service = service
        self._agent: Agent | None = None
        self._store: Store | None = None
        self._refused: Refused | None = None
        self._problem: str | None = None  # why it has not joined
        self._stopped = threading.Event()
        #: Whether a process that serves this application takes part, or will before it serves.
        self.expected = False

    def arrange(self) -> None:
        """Have the worker join before its first request."""
        coordinator = self._service.config.coordinator
        if coordinator == "local":
            return
        self.expected = boot.before_serving(_weak(self._join), afterwards=_weak(self._leave))
        if not self.expected and coordinator.startswith(_EXPLICIT):
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
    def state(self) -> str:
        """Of this worker, in a word."""
        if self._refused is not None:
            return REFUSED
        if not self.joined:
            return "behind"
        return "serving" if self.store_away is None else "without store"

    @property
    def problem(self) -> str | None:
        """Why this process should get no requests; ``None``: it should."""
        if self.joined:
            return None
        return self._problem or "this worker does not serve what is committed yet; ask again"

    @property
    def store_away(self) -> str | None:
        """Why the store cannot be reached, while this worker serves on; ``None``: it can."""
        return None if self._agent is None else self._agent.away

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
        if not self._try(place, late=False):
            threading.Thread(target=self._keep_trying, args=(place,), name="hotreload-join", daemon=True).start()

    def _keep_trying(self, place: boot.Place | None) -> None:
        while not self._stopped.wait(_RETRY):
            try:
                if self._refused is not None:
                    self._refused.show()
                if self._try(place, late=True):
                    _log.warning("the store of this worker is back, and it takes part again")
                    return
            except Exception:  # noqa: BLE001  # whatever it is, the code that was loaded is served
                _log.exception("this worker could not join its deployment; it tries again")

    def _try(self, place: boot.Place | None, *, late: bool) -> bool:
        """Return whether this worker has joined, or its agent will have it join. ``late``: it serves already."""
        try:
            store, signer = self._open(place)
            self._seal(store, signer)
            release = self._release(store, place)
            self._verify_journal(store, signer, release)
        except StoreUnavailable as error:
            self._serve_alone(error)
            return False
        self._refused = self._problem = None
        self._begin(place, store, signer, release, late=late)
        return True

    def _serve_alone(self, error: StoreUnavailable) -> None:
        reason = str(error)
        if isinstance(error, SignatureInvalid) and self._store is not None and self._refused is None:
            member = member_of(self._store.member_id, "", self._service.reloader.current.number)
            self._refused = Refused(self._store, member)
        if reason != self._problem:
            _log.error("this worker serves the code on disk, and takes part in no reload: %s", reason)
        self._problem = reason
        self._service.reloader.conductor = _Unavailable(reason)

    def _begin(self, place: boot.Place | None, store: Store, signer: Signer, release: str, *, late: bool) -> None:
        service = self._service
        member = member_of(store.member_id, release, service.reloader.current.number)
        deployment = self._deployment
        worker = Worker(
            service.reloader,
            store,
            signer,
            deployment=deployment,
            release=release,
            leaves_beginning=service.config.coordinator != "auto" and _is_own(service),
        )
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
            portable=lambda document: portable(document, _script_of(service)),
        )
        lock = service.reloader.lock
        self._agent = agent = Agent(
            store,
            worker,
            conductor,
            reports,
            member=member,
            in_doubt=service.config.in_doubt,
            load=lambda: (lock.in_flight, lock.held + agent.lease.waiting),
            tell=service.reloader.tell_apart,
            tally=service.probation.tally,
            gate=lambda lease: setattr(service.middleware, "enter", lease.gated(lock)),
            longest_wait=service.config.max_hold,
            may_lose=service.config.coordinator.startswith(NETWORK),
            introduce=lambda: self._introduce(store, signer, release),
        )
        service.reloader.conductor = self._agent
        if late or place is None or place.in_master or self._is_explicit:
            self._agent.start()
        else:
            self._start_on_base(self._agent, store, signer, deployment, release)

    @property
    def _is_explicit(self) -> bool:
        return self._service.config.coordinator.startswith(_EXPLICIT)

    @property
    def _deployment(self) -> str:
        return self._service.config.deployment or self._service.app.import_name

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
        self._stopped.set()
        if self._agent is not None:
            self._service.probation.stop()
            self._agent.stop()

    def _open(self, place: boot.Place | None) -> tuple[Store, Signer]:
        config = self._service.config
        if config.coordinator.startswith(NETWORK):
            assert config.signing_key is not None
            if self._store is None:
                self._store = _redis_store(config.coordinator, self._deployment)
            return self._store, Signer(config.signing_key.encode())
        if config.coordinator.startswith(_SQLITE):
            path = Path("/" + config.coordinator.removeprefix(_SQLITE).lstrip("/"))  # also sqlite:////path
        else:
            assert place is not None
            path = folder_for(self._service.app.import_name, place.master_pid) / "store.sqlite"
        key = config.signing_key.encode() if config.signing_key is not None else key_beside(path)
        if self._store is None:
            self._store = SQLiteStore(path)
        return self._store, Signer(key)

    def _seal(self, store: Store, signer: Signer) -> None:
        """Raise :class:`SignatureInvalid` if the deployment has another key."""
        if self._is_explicit:
            seal = signer.sign(self._deployment.encode())
            signer.verify(store.put_seal(seal), what="the seal of this deployment")

    def _verify_journal(self, store: Store, signer: Signer, release: str) -> None:
        """Raise :class:`SignatureInvalid` if what was committed was signed with a key that nobody has any more."""
        if self._is_explicit:
            for record in store.journal(release)[-1:]:
                signer.verify(
                    record.payload,
                    what=f"what was committed in release {release} (another HOTRELOAD_RELEASE begins without it)",
                )

    def _introduce(self, store: Store, signer: Signer, release: str) -> None:
        """Make key and release known to a store that has lost them. Raise :class:`StoreUnavailable`."""
        self._seal(store, signer)
        current = store.view("").release
        if release != current:
            store.new_release(release, only_if=current)

    def _release(self, store: Store, place: boot.Place | None) -> str:
        """The release that this worker's code belongs to, made known to the store if it is new."""
        told = place.release if place is not None else None
        if self._is_explicit:
            sources = self._service.release
            told = self._service.config.release or store.release_of(sources) or sources
        while True:
            current = store.view("").release
            if told is None or told == current:
                return current
            if self._is_explicit:
                if store.new_release(told, only_if=current) or store.view("").release == current:
                    return told
            elif not boot.supersedes(told, current):
                return told  # a later HUP was quicker: this worker belongs to one that is being replaced
            elif store.new_release(told, only_if=current):
                return told


def _is_own(service: Serves) -> bool:
    """Whether the application can be made from the project's sources: else it is always what was imported."""
    return service.roots.resolve().place(service.script(None)) is not None


def _script_of(service: Serves) -> Callable[[str | None], str]:
    """How a script of a document is told to the workers of all hosts."""
    roots = functools.cache(service.roots.resolve)  # once for all scripts, and not if there are none
    return lambda path: told_script(roots(), service.script(path))


def _redis_store(url: str, deployment: str) -> Store:
    from flask_hotreload.coordination.redis import RedisStore  # noqa: PLC0415  # it needs an extra

    return RedisStore(url, deployment)


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

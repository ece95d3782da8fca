"""What reloading needs of the application that it changes, of who conducts it, and what it is given to start from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flask_hotreload.progress import Progress, untold
from flask_hotreload.report import Trigger

if TYPE_CHECKING:
    from types import ModuleType

    from flask_hotreload.dispatch import DispatchTable
    from flask_hotreload.document import Check, Document
    from flask_hotreload.errors import LoadError
    from flask_hotreload.generation import Generation, Kept
    from flask_hotreload.loader import ModuleLoader
    from flask_hotreload.namespaces import Namespace
    from flask_hotreload.probation import Probation
    from flask_hotreload.recipe import Recipe
    from flask_hotreload.report import ReloadReport
    from flask_hotreload.sources import ResolvedRoots, Roots, Snapshot, Source
    from flask_hotreload.staging import Joining, Stager


class Host(Protocol):
    """What a transaction needs of the application that it changes."""

    @property
    def server(self) -> object:
        """The first argument of callbacks."""

    @property
    def keep(self) -> Collection[str]:
        """Names of modules that no reload of the whole source imports anew."""

    def script(self, path: str | None) -> str:
        """The absolute path of a script of the document; ``None``: the application's own."""

    def project(self, roots: ResolvedRoots, known: Mapping[str, Source], give_way: Callable[[], object]) -> Snapshot:
        """All sources as they are on disk now. Raise :class:`ReloadInvalid`, :class:`LoadError`."""

    def differs(self, snapshot: Snapshot, running: Snapshot) -> bool:
        """Whether serving ``snapshot`` would change anything."""

    def mount(self, app: Any, config: Any) -> Any:
        """The mount of an application that new code has made, with the settings that it gives."""

    def make_again(self, loader: ModuleLoader, joined: Joining) -> Any:
        """Import the project and make its application; return its mount. Raise :class:`LoadError`."""

    def stager(
        self, mount: Any, table: DispatchTable, loader: ModuleLoader, joined: Joining, *, restaged: bool
    ) -> Stager: ...
    def routes(
        self,
        mount: Any,
        table: DispatchTable,
        current: DispatchTable,
        undo: Callable[[Callable[[], object]], None],
        *,
        give_way: Callable[[], object],
    ) -> Any:
        """The URL map for ``table`` in the place of ``current``. Raise :class:`ReloadInvalid` for a collision."""

    def explain(self, error: LoadError) -> LoadError:
        """A better error for what a framework raised in new code, or ``error``."""

    def warnings(self, modules: Mapping[str, ModuleType], mount: Any) -> list[str]:
        """What becomes doubtful when these are the modules that run, and ``mount`` is the next generation's."""

    def publish(self, generation: Generation, joined: Joining) -> None:
        """Make its routes the application's, and keep what new code asked to be kept. Cannot fail."""

    def context(self, generation: Generation) -> AbstractContextManager[object]:
        """The context in which callbacks run."""

    def verify(self, check: Check) -> None:
        """Run ``check`` in the calling context. Raise :class:`CheckFailed`."""

    def namespaces(self) -> list[Namespace]:
        """The globals of every live project module."""


class Application(Host, Protocol):
    """What the reloader needs of the application besides what each transaction needs."""

    @property
    def roots(self) -> Roots:
        """From where code may be loaded."""

    def notify(self, event: str, **keywords: Any) -> None:
        """Send the signal ``event``. Cannot fail."""

    def awaits(self, event: str) -> bool:
        """Whether anybody is waiting for that signal now."""

    def attempted(self, report: ReloadReport) -> None:
        """An attempt that this process was asked for has ended so. Cannot fail."""

    def committed(self, generation: Generation, document: Document, asked: Asked) -> None:
        """``generation`` is served as soon as the lock opens. Cannot fail."""

    def caught_up(self, probation: Probation | None, identity: str, began: float) -> None:
        """What the transaction ``identity`` made elsewhere is served here, too; it ``began`` then, on the store's
        clock.
        """


class Conductor(Protocol):
    """Runs all steps of a transaction."""

    def conduct(self, document: Document, asked: Asked) -> ReloadReport:
        """Raise :class:`ReloadError` with its ``report``; then nothing has changed."""

    def remember(self, report: ReloadReport) -> None:
        """Keep the report of an attempt, for all processes. Cannot fail."""

    def history(self) -> list[ReloadReport]:
        """The reports of all processes, newest first. Raise :class:`StoreUnavailable`."""

    def earlier(self, identity: str) -> ReloadReport | None:
        """The report of a transaction with this id that any process asked for, or its error raised."""

    def discard(self, identity: str) -> bool:
        """Let go of what is staged under this id, everywhere; return whether it was. Raise as :meth:`history`."""


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
    @property
    def stage_seconds(self) -> float: ...


class Asked(NamedTuple):
    """Who or what asked for a reload, and whom to tell how far it has come.

    ``reason``: why, if there is more to say than that: warnings of the report.
    """

    trigger: Trigger
    actor: str | None = None
    reason: tuple[str, ...] = ()
    progress: Progress = untold

    @property
    def is_watched(self) -> bool:
        """Whether somebody is told."""
        return self.progress is not untold

    def phase(self, name: str) -> None:
        """Tell that a phase begins."""
        self.progress("phase", {"phase": name})


class Given(NamedTuple):
    """What a transaction starts from, where it is not the disk.

    ``snapshot``
        What others have read already: all there is, if it is sealed.
    ``recipe``
        For a rollback: what to make the generation from, unless it is ``kept`` and can be served as it is.
    ``parent``, ``label``
        For a rollback: the generation that a further one leads to, and the label of the one that is restored.
    ``must_differ``
        False: the whole source is reloaded even if nothing differs from what runs here, since it does elsewhere.
    """

    snapshot: Snapshot | None = None
    recipe: Recipe | None = None
    kept: Kept | None = None
    parent: int | None = None
    must_differ: bool = True
    label: str | None = None

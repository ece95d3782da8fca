"""What a transaction stages beside the running code: its modules, its dispatchers, and the generation made of them.

All of it happens on the transaction's thread, and nothing live changes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flask_hotreload.generation import Afterlife, Generation, Kept
from flask_hotreload.interpreter import interpreter
from flask_hotreload.loader import KeptModules, ModuleLoader
from flask_hotreload.recipe import Recipe
from flask_hotreload.side_effects import Census
from flask_hotreload.staging import BoundCallback, Joining, Staged, changes_between

if TYPE_CHECKING:
    from flask_hotreload.dispatch import DispatchTable
    from flask_hotreload.document import Document
    from flask_hotreload.host import Given, Host
    from flask_hotreload.sources import Snapshot


class Preparation:
    """The next generation of ``current``, from a document, or from what the transaction was ``given`` to start from.

    ``loader``, ``staged``, ``next``
        What has been made so far; ``None`` before that, and if nothing is to be made.
    ``migrations``
        Live modules, each with the new one in its place that wants to see it.
    ``unchanged``
        That nothing differs from what runs; then nothing is made.
    """

    def __init__(
        self,
        document: Document,
        current: Generation,
        *,
        host: Host,
        given: Given,
        snapshot: Snapshot,
        joined: Joining,
        number: int,
        label: str | None,
        undo: Callable[[Callable[[], object]], None],
    ) -> None:
        """``number`` and ``label`` will be the generation's; ``undo``: run that function if it never serves."""
        self.snapshot = snapshot
        self.loader: ModuleLoader | KeptModules | None = None
        self.staged: Staged | None = None
        self.next: Generation | None = None
        self.migrations: list[tuple[ModuleType, ModuleType]] = []  # (old, new)
        self.unchanged = False
        self._document = document
        self._replaced: Generation | None = current
        self._host = host
        self._given = given
        self._joined = joined
        self._number = number
        self._label = label
        self._undo = undo
        self._census: Census | None = None  # from before anything was executed
        kept = given.kept
        self._as_it_is = kept if document.data is None and kept is not None and kept.is_alive(current) else None

    @property
    def executes(self) -> bool:
        """Whether making it runs new code: what is in memory is served as it is."""
        return self._as_it_is is None

    def make(self, give_way: Callable[[], None]) -> None:
        """Once. Raise :class:`LoadError` or :class:`ReloadInvalid`; ``give_way()`` lets requests have their turn."""
        try:
            if self._as_it_is is not None:
                self._make_of_kept(self._as_it_is)
                return
            self._census = Census()
            if self._document.data is not None:
                self._make_of_entries(give_way)
            else:
                self._make_of_whole(give_way)
        finally:
            self._replaced = None  # it retires when the last request has left it, however long this is there

    def find_migrations(self) -> None:
        """Find once more which new modules take the place of live ones that they want to see."""
        if isinstance(self.loader, ModuleLoader):
            self.migrations = _migrations(self.loader)

    def side_effects(self) -> list[str]:
        """Warnings of what new code has left behind, also if it failed."""
        return [] if self._census is None else self._census.differences()

    def doubts(self) -> list[str]:
        """Warnings of what may not be as it was meant, once all is made."""
        if self.staged is None:
            return []
        warnings = []
        if isinstance(self.loader, ModuleLoader) and self._census is not None:
            warnings += self._census.opened(self.loader.staged)
        warnings += _not_taken(self._joined, self.staged)
        if self._document.data is None and self.next is not None:
            assert self.loader is not None
            warnings += self._host.warnings(self.loader.staged, self.next.mount)
        return warnings

    def let_go(self) -> None:
        """Hold no generation any more."""
        self._replaced = self.next = None

    @property
    def _current(self) -> Generation:
        assert self._replaced is not None
        return self._replaced

    # From where ------------------------------------------------------------------------------------------------

    def _make_of_entries(self, give_way: Callable[[], None]) -> None:
        """Dispatchers of the document in the place of live ones, or beside them."""
        host, mount, table, document = self._host, self._current.mount, self._current.table, self._document
        entries = [entry for entry in document.data or () if entry.has_script and not entry.exclusive_module]
        scripts = [host.script(entry.script_path) for entry in entries]
        self.loader = loader = ModuleLoader(self.snapshot, scripts=scripts, give_way=give_way)
        with loader.world.staging():
            stager = host.stager(mount, table, loader, self._joined, restaged=False)
            self.staged = staged = stager.stage(document)
            self.migrations = _migrations(loader)
        self.next = Generation(
            number=self._number,
            table=staged.table,
            routes=host.routes(mount, staged.table, table, self._undo, give_way=give_way),
            wsgi_app=self._current.wsgi_app,
            recipe=self._current.recipe.followed_by(document, self.snapshot.sources),
            mount=mount,
            label=self._label,
            parent=self._current.number,
            made_by_reload=self._current.made_by_reload,
            afterlife=Afterlife(endings=self._joined.endings),
        )

    def _make_of_whole(self, give_way: Callable[[], None]) -> None:
        """Make the application anew: from the disk, from what others have read of it, or from a recipe."""
        host, recipe = self._host, self._given.recipe
        if recipe is not None:
            self.snapshot = recipe.snapshot
        elif not self.snapshot.sealed:
            self.snapshot = host.project(self.snapshot.roots, self._current.recipe.snapshot.sources, give_way)
            differs = host.differs(self.snapshot, self._current.recipe.snapshot)
            self.unchanged = self._given.must_differ and not differs
            if self.unchanged:
                return
        self.loader = loader = ModuleLoader(self.snapshot, whole=True, keep=host.keep, give_way=give_way)
        with loader.world.staging():
            mount = host.make_again(loader, self._joined)
            self.staged = staged = self._follow(recipe, mount, loader)
            self.migrations = _migrations(loader)
            loader.survey()
        restores = self._document.restores
        self.next = Generation(
            number=self._number,
            table=staged.table,
            routes=host.routes(mount, staged.table, mount.table, self._undo, give_way=give_way),
            wsgi_app=mount.wsgi_app,
            recipe=Recipe(self.snapshot) if recipe is None else recipe,
            mount=mount,
            label=self._label,
            parent=self._current.number if restores is None else self._given.parent,
            restores=restores,
            made_by_reload=True,
            afterlife=Afterlife(endings=self._joined.endings),
        )

    def _follow(self, recipe: Recipe | None, mount: Any, loader: ModuleLoader) -> Staged:
        """What new code registers by itself, and then what the recipe's documents say."""
        table: DispatchTable = mount.table
        callbacks: list[BoundCallback] = []
        attributes: list[tuple[object, Mapping[str, Any]]] = []
        for document in recipe.documents if recipe is not None else ():
            stager = self._host.stager(mount, table, loader, self._joined, restaged=True)
            staged = stager.stage(document)
            table = staged.table
            callbacks += staged.callbacks
            attributes += staged.attributes
        return Staged(
            table=table,
            changes=changes_between(self._current.table, table),
            callbacks=tuple(callbacks),
            attributes=tuple(attributes),
            modules=tuple(loader.staged),
        )

    def _make_of_kept(self, kept: Kept) -> None:
        """A generation that is still in memory is served once more as it is."""
        self.snapshot = kept.recipe.snapshot
        self.loader = KeptModules(kept.world, self.snapshot, self._host.keep, quoted=self._current.recipe.snapshot)
        self.staged = Staged(kept.table, changes_between(self._current.table, kept.table), (), (), ())
        self.next = Generation(
            number=self._number,
            table=kept.table,
            routes=kept.routes,
            wsgi_app=kept.wsgi_app,
            recipe=kept.recipe,
            mount=kept.mount,
            label=self._label,
            parent=kept.parent,
            restores=kept.number,
            # Once the whole source was reloaded the disk holds another generation's.
            made_by_reload=kept.made_by_reload or not kept.world.fallback,
        )


def _migrations(loader: ModuleLoader) -> list[tuple[ModuleType, ModuleType]]:
    return [
        (interpreter.live[name], module)
        for name, module in loader.staged.items()
        if callable(vars(module).get("__hot_reload__")) and name in interpreter.live
    ]


def _not_taken(joined: Joining, staged: Staged) -> list[str]:
    if not joined.registrations:
        return []
    served = {id(dispatcher.function) for dispatcher in staged.table}
    instances = {id(dispatcher.group.instance) for dispatcher in staged.table if dispatcher.group}
    return [
        f"{registration.name or registration.function!r} is registered at {registration.path!r} by the new code, "
        "but the document does not name it: it is not served"
        for registration in joined.registrations
        if id(registration.function) not in served | instances
    ]

"""A generation: one committed, immutable state of the code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_hotreload.dispatch import DispatchTable
    from flask_hotreload.recipe import Recipe
    from flask_hotreload.worlds import World

_log = logging.getLogger("flask_hotreload")


@dataclass(eq=False)
class Ending:
    """An ``on_retire`` callback, and the name of the module that registered it."""

    callback: Callable[[], object]
    module: str


def run_endings(endings: list[Ending], number: int) -> None:
    """Run each once, the last one first; none is left. ``number`` is the generation's. Cannot fail."""
    while endings:
        callback = endings.pop().callback
        try:
            callback()
        except Exception:  # noqa: BLE001  # foreign code; the other callbacks run all the same
            _log.exception("on_retire callback %r of generation %d failed", callback, number)


@dataclass(eq=False)
class Afterlife:
    """What happens to a generation's own things once its last request has left."""

    #: The last one registered runs first.
    endings: list[Ending] = field(default_factory=list)
    #: Where its requests find its modules while it is no longer current; ``None`` as long as it is.
    world: World | None = None
    #: Whether a callback was run.
    ended: bool = False

    def inherit(self, before: Afterlife, *, replaced: Container[str]) -> None:
        """Take over from the generation before what belongs to modules that are not ``replaced``: they live on."""
        staying = [ending for ending in before.endings if ending.module not in replaced]
        self.endings[:0] = staying
        before.endings = [ending for ending in before.endings if ending not in staying]


@dataclass(frozen=True, eq=False)
class Generation:
    """What one request sees from its start to its end.

    A request keeps hold of its generation, and nothing else does but the service while it is current. So when the
    last request of an old one has left the object goes away, and that retires it. What stays for a rollback is
    :class:`Kept`.
    """

    number: int
    table: DispatchTable
    routes: Any  # the URL map; opaque here
    wsgi_app: WSGIApplication
    recipe: Recipe
    mount: Any = None  # the Flask application and its views; opaque here
    label: str | None = None
    #: The generation that a rollback from this one restores; ``None``: there is none before it.
    parent: int | None = None
    #: The generation that this one restores; ``None``: it is none that a rollback made.
    restores: int | None = None
    #: Whether its application was made, or restored, by a reload: what it imports late comes from its recipe, not
    #: from the disk.
    made_by_reload: bool = False
    afterlife: Afterlife = field(default_factory=Afterlife, repr=False)


@dataclass(frozen=True, eq=False)
class Kept:
    """What stays of a generation for a rollback: all but the object that its requests hold."""

    number: int
    table: DispatchTable
    routes: Any
    wsgi_app: WSGIApplication
    recipe: Recipe
    mount: Any
    label: str | None
    parent: int | None
    made_by_reload: bool
    world: World
    endings: tuple[Ending, ...]
    afterlife: Afterlife

    @classmethod
    def of(cls, old: Generation, world: World, endings: Iterable[Ending]) -> Kept:
        """``endings``: those of ``old`` before the next generation has inherited some of them."""
        return cls(
            old.number,
            old.table,
            old.routes,
            old.wsgi_app,
            old.recipe,
            old.mount,
            old.label,
            old.parent,
            old.made_by_reload,
            world,
            tuple(endings),
            old.afterlife,
        )

    def is_alive(self, current: Generation) -> bool:
        """Whether it can be served as it is: nothing of it has been ended, or will be while it is served."""
        if self.afterlife.ended or self.afterlife.endings:  # a request that stayed inside may have added some
            return False
        return all(ending in current.afterlife.endings for ending in self.endings)


def worth_keeping(current: int, parents: Mapping[int, int | None], last: int) -> set[int]:
    """Of the generations in ``parents`` (number → parent), those to keep: the ``last`` ones before ``current``, and
    as many to which rollbacks, one after the other, would lead.
    """
    kept = {number for number in parents if current - last <= number < current}
    ahead, steps = parents.get(current), 0
    while ahead is not None and steps < last:
        kept.add(ahead)
        ahead, steps = parents.get(ahead), steps + 1
    return kept & parents.keys()

"""A generation: one committed, immutable state of the code."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_hotreload.dispatch import DispatchTable
    from flask_hotreload.worlds import World


@dataclass(eq=False)
class Afterlife:
    """What happens to a generation's own things once its last request has left."""

    #: ``on_retire`` callbacks; the last one registered runs first.
    callbacks: list[Callable[[], object]] = field(default_factory=list)
    #: Where its requests find its modules while it is no longer current; ``None`` as long as it is.
    world: World | None = None

    def inherit(self, before: Afterlife, *, replaced: Container[str]) -> None:
        """Take over from the generation before what belongs to modules that are not ``replaced``: they live on."""
        staying = [callback for callback in before.callbacks if getattr(callback, "__module__", None) not in replaced]
        self.callbacks[:0] = staying
        before.callbacks = [callback for callback in before.callbacks if callback not in staying]


@dataclass(frozen=True, eq=False)
class Generation:
    """What one request sees from its start to its end.

    A request keeps hold of its generation, and nothing else does but the service while it is current. So when the
    last request of an old one has left the object goes away, and that retires it.
    """

    number: int
    table: DispatchTable
    routes: Any  # the URL map; opaque here
    wsgi_app: WSGIApplication
    label: str | None = None
    modules: Mapping[str, str] = field(default_factory=dict)  # module → digest of its source
    afterlife: Afterlife = field(default_factory=Afterlife, repr=False)

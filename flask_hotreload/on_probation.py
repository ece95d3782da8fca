"""The generation of a service that is on probation, or was last: begun by a commit, ended by its time or the next.

A generation that is committed on top ends the probation of the one before, which is neither passed nor rolled back
by it then: the new one has a probation of its own, or none.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from flask_hotreload.error_count import ErrorCount
from flask_hotreload.errors import ReloadError, StoreUnavailable
from flask_hotreload.probation import ACTOR, Probation, Tally
from flask_hotreload.probation_watch import Alone, Siblings, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from flask_hotreload.document import Document
    from flask_hotreload.generation import Generation
    from flask_hotreload.host import Asked
    from flask_hotreload.reloader import Reloader

_log = logging.getLogger("flask_hotreload")


class Serves(Protocol):
    """What a probation needs of the service that it is of."""

    @property
    def app(self) -> Flask: ...
    @property
    def reloader(self) -> Reloader: ...
    @property
    def siblings(self) -> Siblings | None:
        """The other workers, if there are any."""


class OnProbation:
    """Of ``service``, which it does not keep alive: its threads end with it."""

    def __init__(self, service: Serves) -> None:
        self._service = weakref.ref(service)
        self._watch: Watch | None = None
        self._started: Watch | None = None
        weakref.finalize(service, _end, self.__dict__).atexit = False

    def committed(self, generation: Generation, document: Document, asked: Asked) -> None:
        """``generation`` is about to be served. Cannot fail."""
        self._end_before(generation.number, asked.actor)
        # What a worker catches up with has been served by others for a while.
        if document.probation is not None and asked.trigger != "catch-up":
            try:
                self._begin(document.probation, document.id, generation.number)
            except Exception:  # noqa: BLE001  # what is committed is served, watched or not
                _log.exception("generation %d cannot be put on probation here", generation.number)

    def resume(self, probation: Probation | None, identity: str, began: float) -> None:
        """What is committed elsewhere is served here from now on; it ``began`` about then, on the shared clock."""
        service = self._service()
        if service is None:
            return
        number = service.reloader.current.number
        self._end_before(number, None)
        if probation is not None and (self._watch is None or self._watch.generation != number):
            watch = self._begin(probation, identity, number, began=began)
            try:
                # Also what the dead have told, whose traces go when this worker joins.
                watch.look_around()
            except StoreUnavailable:
                pass  # it looks again
            self.start()

    def start(self) -> None:
        """Watch what was committed. Apart from :meth:`committed`, which nothing may delay."""
        watch = self._watch
        if watch is not None and self.is_to_start:
            self._started = watch
            watch.start()

    @property
    def is_to_start(self) -> bool:
        """Whether :meth:`start` would do anything."""
        watch = self._watch
        return watch is not None and watch.running and self._started is not watch

    def stop(self) -> None:
        """This process leaves the others. They go on watching."""
        _end(self.__dict__)

    def tally(self) -> Tally | None:
        """What this worker has counted; ``None``: nothing is on probation, or was since the last commit."""
        watch, service = self._watch, self._service()
        if watch is None or service is None or watch.generation != service.reloader.current.number:
            return None
        return watch.own()

    def status(self) -> dict[str, Any] | None:
        """The probation that runs, or the last one; sums over all workers."""
        watch = self._watch
        if watch is None:
            return None
        if watch.running:
            try:
                watch.look_around()
            except StoreUnavailable:
                pass  # what they have told last is told
        probation, total = watch.probation, watch.total()
        return {
            "generation": watch.generation,
            "state": watch.state,
            "seconds": probation.seconds,
            "max_errors": probation.max_errors,
            "error_ratio": probation.error_ratio,
            "min_requests": probation.min_requests,
            "left_ms": round(watch.left * 1000),
            "requests": total.requests,
            "errors": total.errors,
            "kinds": [{"type": kind.type, "place": kind.place, "count": kind.count} for kind in total.kinds],
            "error": watch.error,
        }

    def _end_before(self, number: int, actor: str | None) -> None:
        watch = self._watch
        if watch is not None and watch.generation != number:
            watch.end("rolled-back" if actor == ACTOR else "replaced")

    def _begin(self, probation: Probation, identity: str, number: int, *, began: float | None = None) -> Watch:
        service = self._service()
        assert service is not None
        siblings = service.siblings or Alone()
        now = siblings.now()
        self._watch = watch = Watch(
            probation,
            number,
            # A clock that began anew with the host does not lengthen it.
            until=(now if began is None else min(began, now)) + probation.seconds,
            siblings=siblings,
            roll_back=_rolling_back(self._service, number, identity),
            joined_late=began is not None,
        )
        current = service.reloader.current
        sources = current.recipe.snapshot.sources.values()
        watch.counted = ErrorCount(
            service.app,
            number,
            serving=_serving(self._service),
            project=frozenset(source.path for source in sources),
            noted=watch.wake,
        )
        return watch


def _end(state: dict[str, Any]) -> None:
    """Nobody serves any more."""
    watch: Watch | None = state["_watch"]
    if watch is not None:
        watch.end("replaced")


def _serving(reference: weakref.ref[Serves]) -> Callable[[], int]:
    def serving() -> int:
        service = reference()
        return -1 if service is None else service.reloader.pinned.number

    return serving


def _rolling_back(
    reference: weakref.ref[Serves], generation: int, identity: str
) -> Callable[[tuple[str, ...], int], object]:
    """``identity``: of the reload that made the generation. Attempts have ids that all workers make alike."""

    def roll_back(reason: tuple[str, ...], attempt: int) -> object:
        service = reference()
        if service is None:
            raise ReloadError("nobody serves any more")
        return service.reloader.rollback(
            None, actor=ACTOR, expect=generation, id=f"{identity}-rollback-{attempt}", reason=reason
        )

    return roll_back

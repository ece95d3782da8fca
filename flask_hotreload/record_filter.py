"""A filter for log records that says which generation they come from."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from flask_hotreload.generation import Generation
from flask_hotreload.rwlock import current_slot

if TYPE_CHECKING:
    from flask_hotreload.reloader import Reloader


class GenerationFilter(logging.Filter):
    """Gives each record ``generation``, a number, and ``generation_label``; lets every record pass.

    Put it on handlers; it needs no argument, so that ``dictConfig`` can make it before there is an application::

        "filters": {"generation": {"()": "flask_hotreload.GenerationFilter"}}

    A record that a request makes is of the generation that the request runs. Any other is of what the process serves;
    where that cannot be told, because the process holds no application or several, both are ``None``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        generation = _of_context() or _of_process()
        record.generation = None if generation is None else generation.number
        record.generation_label = None if generation is None else generation.label
        return True


def remember(reloader: Reloader) -> None:
    """Records from outside of requests are of what ``reloader`` serves, as long as it is the only one."""
    _reloaders.add(reloader)


def _of_context() -> Generation | None:
    slot = current_slot.get()
    while slot is not None:
        if isinstance(slot.pin, Generation):
            return slot.pin
        slot = slot.outer
    return None


def _of_process() -> Generation | None:
    reloaders = list(_reloaders)
    return reloaders[0].current if len(reloaders) == 1 else None


_reloaders: weakref.WeakSet[Reloader] = weakref.WeakSet()

"""A reload asked for until there is an answer: what breaks on the way is asked again, with the same id.

The service knows the id: it reloads nothing twice, and tells what the first attempt came to. Nothing is asked again
when the service could not be reached at all, since then nothing has begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask_hotreload.cli.connection import SILENCE, Answer, Connection, Silent
from flask_hotreload.cli.events import Event
from flask_hotreload.cli.outcome import TIMED_OUT, Broken, Failure, Unreachable

#: Seconds between a connection that broke and the next one, each time; a service that is restarted needs some.
PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)


def ask_until_answered(
    connection: Connection,
    route: str,
    document: dict[str, Any],
    *,
    patience: float,
    tell: Callable[[Event], object],
) -> Answer:
    """Post ``document``, which has an ``id``, and tell each event. Raise :class:`Failure`.

    ``patience``: seconds for all of it.
    """
    deadline = time.monotonic() + patience
    pauses = iter(PAUSES)
    begun = False
    while True:
        try:
            for event in connection.follow(route, document, seconds=min(SILENCE, _left(deadline))):
                if isinstance(event, Answer):
                    return event
                tell(event)
                _left(deadline)
        except (Broken, Unreachable) as error:
            begun = begun or isinstance(error, Broken)
            pause = next(pauses, None)
            if not begun:
                raise
            if isinstance(error, Silent) and time.monotonic() >= deadline:
                raise _too_late(patience, document["id"]) from None
            if pause is None or time.monotonic() + pause >= deadline:
                raise _unknown(error, document["id"]) from None
            tell(Event("again", {"reason": error.message}))
            time.sleep(pause)
        except _TooLate:
            raise _too_late(patience, document["id"]) from None


class _TooLate(Exception):
    pass


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _TooLate
    return left


def _too_late(patience: float, identity: str) -> Failure:
    message = f"there is no answer after {patience:g} s. What has begun goes on in the service. "
    return Failure(TIMED_OUT, message + _how_to_ask(identity))


def _unknown(error: Failure, identity: str) -> Failure:
    return Failure(error.code, f"{error.message}. Whether it was reloaded is unknown. {_how_to_ask(identity)}")


def _how_to_ask(identity: str) -> str:
    return f"What has become of it: flask-hotreload history {identity}"


def interrupted(identity: str) -> str:
    """What is told whoever presses Ctrl-C."""
    return f"interrupted. What has begun goes on in the service. {_how_to_ask(identity)}"

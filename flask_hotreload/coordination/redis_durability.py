"""Whether a Redis server keeps what it has acknowledged: what it is set to, and how many replicas it has.

The guarantees need ``appendonly yes`` and ``appendfsync always``, and that nothing is removed to make room:
``maxmemory-policy noeviction``. A server that is set otherwise is not refused, since to lose a test's data does no
harm; it is said in the log.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_hotreload.coordination.redis_server import Server

_log = logging.getLogger("flask_hotreload")

#: Asks a server for its replicas; to be read by :func:`replicas_in`.
REPLICATION = ("INFO", "replication")
#: Seconds that a commit waits for replicas.
PATIENCE = 0.1
_SETTINGS = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
_ONLINE = re.compile(rb"^slave\d+:.*state=online", re.MULTILINE)


def warn_unless_kept(server: Server) -> None:
    """Raise :class:`~flask_hotreload.errors.StoreUnavailable`."""
    answers = server.ask(*(("CONFIG", "GET", name) for name in _SETTINGS), required=0)
    if None in answers:
        _log.warning(
            "it cannot be read whether the Redis server %s keeps what it acknowledges (CONFIG GET is refused); see "
            "that it has appendonly yes, appendfsync always and maxmemory-policy noeviction",
            server.address.text,
        )
        return
    told = [text.decode() for answer in answers for text in answer]
    settings = dict(zip(told[::2], told[1::2], strict=True))
    wanted = {"appendonly": "yes", "appendfsync": "always"}
    if settings.get("maxmemory", "0") != "0":
        wanted["maxmemory-policy"] = "noeviction"
    wrong = [f"{name} {value}" for name, value in wanted.items() if settings.get(name) != value]
    if wrong:
        _log.warning(
            "the Redis server %s may lose what it has acknowledged, and with it committed reloads; set %s",
            server.address.text,
            ", ".join(wrong),
        )


def replicas_in(replication: bytes | None) -> int:
    """How many replicas follow the server; 0 if it does not tell."""
    return len(_ONLINE.findall(replication or b""))


def warn_unless_replicated(server: Server, generation: int, *, reached: int | None, replicas: int) -> None:
    """The decision stands, however many have it."""
    if (reached or 0) < replicas:
        _log.warning(
            "generation %d is committed, but of the %d replicas of the Redis server %s only %d have said within %g s "
            "that they have it; it could be lost with the master",
            generation,
            replicas,
            server.address.text,
            reached or 0,
            PATIENCE,
        )

"""One process's calls of a Redis server: scripts and commands, one round trip each, and what can go wrong with them.

No call lasts longer than the time-out, but for one more when it has to connect. None is repeated: if its answer is
lost it may have taken effect.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask_hotreload.coordination.redis_scripts import SCRIPTS
from flask_hotreload.errors import StoreUnavailable

if TYPE_CHECKING:
    from flask_hotreload.coordination.redis_address import Address

#: Seconds after which a connection that nobody has used is not trusted: what lies between may have forgotten it.
_IDLE = 60.0

Argument = str | bytes | int | float


class Server:
    """Any thread may call. Everything raises :class:`StoreUnavailable`, with the remedy and without any secret.

    ``state``: the key that is given to scripts.
    """

    def __init__(self, address: Address, state: str) -> None:
        self.address = address
        self._state = state
        self._free: deque[Any] = deque()  # connections that nobody uses; the last one used is the next one taken
        self._all: weakref.WeakSet[Any] = weakref.WeakSet()
        self._offset: float | None = None  # of the server's clock from this process's monotonic one
        #: Whether the last call has failed.
        self.is_lost = False
        #: Since when, on ``time.monotonic``, calls succeed again; minus infinity if none has failed.
        self.back_since = float("-inf")

    # Time --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The server's time, as of the last call and by this process's clock since then. Never raises.

        Before the first one, this host's: then nothing that was read can be compared with it.
        """
        offset = self._offset
        return time.time() if offset is None else time.monotonic() + offset

    # Calls -------------------------------------------------------------------------------------------------------

    def run(self, script: str, *arguments: Argument) -> list[Any]:
        """What a script answers, without the time."""
        (answer,) = self.ask(self.call_of(script, *arguments))
        return self.told(answer)

    def call_of(self, script: str, *arguments: Argument) -> tuple[Argument, ...]:
        """A script as a command for :meth:`ask`, if the server has seen it."""
        return "EVALSHA", SCRIPTS[script].digest, 1, self._state, *arguments

    def told(self, answer: Any) -> list[Any]:
        rest: list[Any]
        seconds, microseconds, *rest = answer
        self._offset = int(seconds) + int(microseconds) / 1e6 - time.monotonic()
        return rest

    def ask(self, *commands: Sequence[Argument], required: int | None = None) -> list[Any]:
        """The answers, in one round trip. Those after the first ``required`` may be refused, and answer ``None``."""
        connection = self._take()
        try:
            answers = _exchange(connection, commands)
            if any(_is_unknown_script(answer) for answer in answers):
                answers = _exchange(connection, [_in_full(command) for command in commands])
        except BaseException as error:
            connection.disconnect()
            if not _is_of_redis(error):
                raise
            raise self._failed(error) from error
        errors = [answer for answer in answers[:required] if isinstance(answer, Exception)]
        if errors:
            connection.disconnect()  # it may lead to a server that is not the master any more
            raise self._failed(errors[0]) from errors[0]
        connection.used_at = time.monotonic()
        self._free.append(connection)
        self._succeeded()
        return [None if isinstance(answer, Exception) else answer for answer in answers]

    def connect(self) -> Any:
        """A connection of its own for the caller."""
        connection = self.address.connection()
        self._all.add(connection)
        try:
            connection.connect()
        except BaseException as error:
            connection.disconnect()
            if not _is_of_redis(error):
                raise
            raise self._failed(error) from error
        return connection

    def _take(self) -> Any:
        while True:
            try:
                connection = self._free.pop()
            except IndexError:
                return self.connect()
            if is_usable(connection):
                return connection
            connection.disconnect()
            self.is_lost = True  # perhaps it was away, and others have noticed

    def _succeeded(self) -> None:
        if self.is_lost:
            self.back_since = time.monotonic()
            self.is_lost = False

    def _failed(self, error: BaseException) -> StoreUnavailable:
        self.is_lost = True
        return StoreUnavailable(f"the Redis server {self.address.text} {_explanation(error)}")

    def close(self) -> None:
        """Disconnect. In a forked child: let go of the parent's connections, which do not notice it."""
        self._free = deque()
        for connection in list(self._all):
            connection.disconnect()


def _exchange(connection: Any, commands: Sequence[Sequence[Argument]]) -> list[Any]:
    """The answers; an error is one, too."""
    from redis.exceptions import ResponseError  # noqa: PLC0415  # an extra

    connection.bounded.ends = time.monotonic() + connection.seconds
    if len(commands) == 1:
        connection.send_packed_command(connection.pack_command(*commands[0]), check_health=False)
    else:
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def is_usable(connection: Any) -> bool:
    """Whether it was used lately, and nothing waits to be read: an end, or an answer to something else."""
    from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

    try:
        connection.bounded.ends = time.monotonic() + connection.seconds
        return time.monotonic() < connection.used_at + _IDLE and not connection.can_read(timeout=0)
    except (RedisError, OSError):
        return False


def _is_of_redis(error: BaseException) -> bool:
    from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

    return isinstance(error, RedisError | OSError)


def _is_unknown_script(answer: Any) -> bool:
    from redis.exceptions import NoScriptError  # noqa: PLC0415  # an extra

    return isinstance(answer, NoScriptError)


def _in_full(command: Sequence[Argument]) -> Sequence[Argument]:
    if command[0] != "EVALSHA":
        return command
    (source,) = (script.source for script in SCRIPTS.values() if script.digest == command[1])
    return "EVAL", source, *command[2:]


_REMEDIES = (
    ("Authentication required", "wants a password; put it into the URL, redis://user:password@host:port"),
    ("NOAUTH", "wants a password; put it into the URL, redis://user:password@host:port"),
    ("WRONGPASS", "refuses the user or the password; correct the URL"),
    ("invalid username", "refuses the user or the password; correct the URL"),
    ("NOPERM", "does not let this user do it; give it all commands on the keys and channels hotreload:*"),
    ("No permissions", "does not let this user do it; give it all commands on the keys and channels hotreload:*"),
    ("OOM", "has no memory left; raise its maxmemory"),
    ("MISCONF", "cannot write to its disk; see its log"),
    ("READONLY", "is a replica; name the master, or the Sentinels"),
    ("read only", "is a replica; name the master, or the Sentinels"),
    ("oading", "is reading its data; wait until it has"),
    ("MOVED", "is part of a cluster, which is not supported; name a server of its own, or Sentinels"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "has a certificate that is not trusted here; let ssl_ca_certs in the URL name its CA",
    ),
    ("imeout", "does not answer in time; see that it runs and that the network leads to it"),
    ("No master", "is not known to the Sentinels; see that they watch this service and that it runs"),
)
_AWAY = "cannot be reached; see that it runs and that the network leads to it"


def _explanation(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    for part, remedy in _REMEDIES:
        if part in text:
            return f"{remedy} ({text})"
    return f"{_AWAY} ({text})"

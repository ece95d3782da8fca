"""Where a Redis server is: the forms of its URL, and the connections that redis-py makes from it.

``redis://[[user]:password@]host[:port][/database]``, ``rediss://…`` (TLS), ``unix://[user@]/path[?db=…]``, all with
the options that redis-py takes after ``?``; and through Sentinels, which tell who is the master now,
``redis+sentinel://[[user]:password@]host[:port],host[:port]…/service[?db=…]`` or ``rediss+sentinel://…``, where
``sentinel_username`` and ``sentinel_password`` are options of the Sentinels' own.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

INSTALL = "redis-py is not installed: pip install 'flask-hotreload[redis]'"
#: Seconds for each call, and for each connection that is made, unless the URL has ``socket_timeout`` and
#: ``socket_connect_timeout``.
TIMEOUT = 1.0
#: They have to be below this: the time in which every worker notices that the store is back.
LONGEST_TIMEOUT = 2.0
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_FORM = (
    "write redis://host:6379/0, rediss://user:password@host:6379, unix:///path/to/socket, or "
    "redis+sentinel://host1:26379,host2:26379/service; in a password, escape what is not a letter or digit as %XX"
)
_SENTINEL_PORT = 26379
_SENTINEL_TIMEOUT = 0.5
_OF_SENTINELS = ("sentinel_username", "sentinel_password")


class BoundedSocket:
    """A socket whose reads and writes together end by :attr:`ends`, on ``time.monotonic``, however little arrives at
    a time. redis-py itself bounds each of them alone.
    """

    def __init__(self, connected: Any, ends: float) -> None:
        self._socket = connected
        self._seconds: float | None = connected.gettimeout()
        self.ends = ends

    def settimeout(self, seconds: float | None) -> None:
        self._seconds = seconds

    def gettimeout(self) -> float | None:
        return self._seconds

    def recv(self, *arguments: Any) -> bytes:
        self._bound()
        received: bytes = self._socket.recv(*arguments)
        return received

    def recv_into(self, *arguments: Any) -> int:
        self._bound()
        received: int = self._socket.recv_into(*arguments)
        return received

    def sendall(self, data: bytes) -> None:
        self._bound()
        self._socket.sendall(data)

    def _bound(self) -> None:
        if self._seconds == 0.0:
            self._socket.settimeout(0.0)
            return
        left = self.ends - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("the time of the call is over")
        self._socket.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _Bounded:
    """Before one of redis-py's classes of connections. ``bounded``: its socket, while it is connected."""

    bounded: BoundedSocket
    seconds = TIMEOUT

    def _connect(self) -> BoundedSocket:
        self.bounded = BoundedSocket(super()._connect(), time.monotonic() + self.seconds)  # type: ignore[misc]
        return self.bounded


class Address:
    """``url`` in one of the forms above. Raise ``ValueError`` for any other, and ``RuntimeError`` without redis-py.

    ``text``: where the server is, without any secret.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis.sentinel  # noqa: F401, PLC0415  # an extra
        except ImportError as error:
            raise RuntimeError(INSTALL) from error
        try:
            self.text = _without_secrets(url)
            self._pool = _pool(url)
            self.timeout = float(self._pool.connection_kwargs["socket_timeout"])
            timeouts = self.timeout, float(self._pool.connection_kwargs["socket_connect_timeout"])
            bases = (_Bounded, self._pool.connection_class)
            self._class = type("BoundedConnection", bases, {"seconds": self.timeout})
            self.connection()  # knows whether it takes all these options
        except (ValueError, TypeError) as error:
            # What redis-py says may contain the password.
            known = str(error) if isinstance(error, _Refused) else "it is not a URL of a Redis server"
            raise ValueError(f"{known}; {_FORM}") from None
        if not all(0 < seconds < LONGEST_TIMEOUT for seconds in timeouts):
            raise ValueError(
                f"socket_timeout and socket_connect_timeout of {self.text} have to be above 0 and below "
                f"{LONGEST_TIMEOUT:g} seconds"
            )

    @property
    def database(self) -> int:
        """The number of the database. Channels are the same in all of them, keys are not."""
        return int(self._pool.connection_kwargs.get("db") or 0)

    def connection(self) -> Any:
        """A connection of redis-py's, not connected yet."""
        return self._class(**self._pool.connection_kwargs)


class _Refused(ValueError):
    """Its text contains no secret."""


#: What a URL may not choose: a call is never repeated behind our back, since it may have taken effect.
_FIXED = {"decode_responses": False, "protocol": 2}
_NOT_TAKEN = ("retry", "retry_on_timeout", "retry_on_error", "health_check_interval", "max_connections")


def _pool(url: str) -> Any:
    """It holds no connections: it knows how one is made."""
    from redis.backoff import NoBackoff  # noqa: PLC0415  # an extra
    from redis.connection import ConnectionPool  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    through_sentinels = urlsplit(url).scheme.endswith("+sentinel")
    options = _of_master(url) if through_sentinels else _parsed(url)
    options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, **options, **_FIXED}
    for each in _NOT_TAKEN:
        options.pop(each, None)
    options["retry"] = Retry(NoBackoff(), 0)
    if "path" not in options:
        options.setdefault("socket_keepalive", True)
    return _through_sentinels(url, options) if through_sentinels else ConnectionPool(**options)


def _parsed(url: str) -> dict[str, Any]:
    from redis.connection import parse_url  # noqa: PLC0415  # an extra

    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    return options


def _of_master(url: str) -> dict[str, Any]:
    """What belongs to the server itself is written as in any other URL."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in _OF_SENTINELS]
    options = _parsed(f"redis://{credentials}{at}localhost?{urlencode(query)}")
    options.pop("host", None)
    return options


def _through_sentinels(url: str, options: dict[str, Any]) -> Any:
    from redis.sentinel import Sentinel, SentinelConnectionPool  # noqa: PLC0415  # an extra

    parts = urlsplit(url)
    service = unquote(parts.path.strip("/"))
    if not service:
        raise _Refused("a URL of Sentinels names the service that they watch")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    query = dict(parse_qsl(parts.query))
    own = {name.removeprefix("sentinel_"): query[name] for name in _OF_SENTINELS if name in query}
    limits = {"socket_timeout": _SENTINEL_TIMEOUT, "socket_connect_timeout": _SENTINEL_TIMEOUT, "protocol": 2}
    addresses = [_host_and_port(each) for each in hosts]
    sentinels = Sentinel(addresses, sentinel_kwargs={**limits, **own})  # type: ignore[no-untyped-call]
    options["ssl"] = parts.scheme == "rediss+sentinel"
    return SentinelConnectionPool(service, sentinels, **options)  # type: ignore[no-untyped-call]


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise _Refused("the URL of the Redis server names no host")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise _Refused("the coordinator is not a URL of a Redis server")
    sign, _, hosts = parts.netloc.rpartition("@")
    # What is not escaped in a password ends the host too early: then nothing of it may be shown.
    if parts.fragment or "@" in parts.path or ("@" in parts.query and not sign and parts.scheme != "unix"):
        raise _Refused("the URL of the Redis server cannot be read")
    if parts.scheme == "unix":
        if not parts.path:
            raise _Refused("the URL of the Redis server names no socket")
        return f"unix://{parts.path}"
    through_sentinels = parts.scheme.endswith("+sentinel")
    for each in hosts.split(",") if through_sentinels else [hosts]:
        _host_and_port(each)
    database = parts.path.strip("/")
    if database and not through_sentinels and not database.isdigit():
        raise _Refused("the URL of the Redis server has a path that is not a database's number")
    return f"{parts.scheme}://{hosts}{parts.path}"

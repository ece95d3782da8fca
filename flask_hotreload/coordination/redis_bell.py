"""Wake-ups through a Redis server, by its channels: hints, which may be lost.

One member is rung on a channel of its own; of several every member of the deployment is woken, since a message that
named them would be sent to each with all the names. A member's own process is woken without the server.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask_hotreload.coordination.hint import read, written
from flask_hotreload.coordination.redis_server import is_usable
from flask_hotreload.errors import StoreUnavailable

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import News
    from flask_hotreload.coordination.redis_server import Server

_NUDGE = b"!"
#: Seconds within which a ring is sent, or given up.
_RING = 0.1
#: Seconds after which the server is asked whether it still sends what is rung.
_SILENCE = 5.0


class Bell:
    """Rings other members, and is rung as ``member``."""

    def __init__(self, server: Server, prefix: str, member: str) -> None:
        self._server = server
        self._me = member
        self._all, self._one = f"{prefix}ring", f"{prefix}ring:"
        self._closed = False
        # Not imported by name: under gevent they are gevent's, and waiting lets other greenlets run.
        self._nudged, self._nudging = socket.socketpair()
        for end in (self._nudged, self._nudging):
            end.setblocking(False)
        self._own_news: deque[News] = deque(maxlen=1)  # from this process
        self._waiting = threading.Lock()  # held by the thread that waits; protects what follows
        self._ear: Any = None
        self._poll: Any = None  # of both, while there is an ear
        self._news: News | None = None
        self._has_more = False  # whether the parser may hold more than what was taken from it
        self._heard_at = 0.0
        self._asked_at: float | None = None  # when the server was asked whether it is there, until it says so
        self._sending = threading.Lock()  # protects what follows
        self._hand: Any = None

    # Ringing ---------------------------------------------------------------------------------------------------

    def ring(self, members: Iterable[str], news: News | None = None) -> None:
        """Never raises. Waits no longer than ``_RING``, or once to connect; not while the server is away."""
        names = set(members)
        if self._me in names:
            names.discard(self._me)
            self._nudge(news)
        if not names or not self._sending.acquire(timeout=_RING):
            return
        try:
            self._publish(names, written(self._me, news))
        finally:
            self._sending.release()

    def _publish(self, names: set[str], hint: bytes) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

        channel = self._one + next(iter(names)) if len(names) == 1 else self._all
        hand = self._connected_hand()
        if hand is None:
            return
        try:
            hand.bounded.ends = time.monotonic() + _RING
            packed = hand.pack_command("PUBLISH", channel, hint)
            hand.send_packed_command(packed, check_health=False)
        except (RedisError, OSError):
            hand.disconnect()
            self._hand = None

    def _connected_hand(self) -> Any:
        """A connection on which the server answers nothing: what is rung is sent, and that is all."""
        from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

        if self._hand is not None and not is_usable(self._hand):
            self._hand.disconnect()
            self._hand = None
        if self._hand is None and not self._server.is_lost:
            try:
                hand = self._server.connect()
                hand.send_command("CLIENT", "REPLY", "OFF", check_health=False)
            except (StoreUnavailable, RedisError, OSError):
                return None
            self._hand = hand
        if self._hand is not None:
            self._hand.used_at = time.monotonic()
        return self._hand

    def _nudge(self, news: News | None = None) -> None:
        if news is not None:
            self._own_news.append(news)
        try:
            self._nudging.send(_NUDGE)
        except OSError:
            pass  # there are enough hints to read already, or it is closed

    # Being rung ------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear rings from now on, if the server is there; else from when it is, see :meth:`wait`."""
        with self._waiting:
            try:
                self._subscribe()
            except StoreUnavailable:
                return
        if self._sending.acquire(timeout=_RING):
            try:
                self._connected_hand()
            finally:
                self._sending.release()

    def wait(self, seconds: float | None) -> News | None:
        """Until somebody rings or has rung, or this is closed; at most ``seconds``. Return the last news, if any.

        Raise :class:`StoreUnavailable` if the server cannot be heard.
        """
        with self._waiting:
            self._await_ring(None if seconds is None else time.monotonic() + seconds)
            news, self._news = self._news, None
            return news

    def _await_ring(self, until: float | None) -> None:
        if self._ear is None and not self._closed:
            if not self._is_nudged():
                self._subscribe()
            return  # what was rung before was perhaps not heard
        if self._has_more and self._is_rung():
            return
        while not self._closed:
            left = None if until is None else max(0.0, until - time.monotonic()) * 1000
            readable = {descriptor for descriptor, _ in self._poll.poll(left)}
            if not readable:
                self._ask_whether_it_is_there()
                return
            nudged = self._nudged.fileno() in readable and self._is_nudged()
            rung = bool(readable - {self._nudged.fileno()}) and self._is_rung()
            if nudged or rung:
                return

    def _subscribe(self) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

        ear = self._server.connect()
        try:
            ear.bounded.ends = time.monotonic() + ear.seconds
            ear.send_command("SUBSCRIBE", self._all, self._one + self._me, check_health=False)
            ear.read_response()
            ear.read_response()
        except (RedisError, OSError) as error:
            ear.disconnect()
            raise StoreUnavailable(
                f"the Redis server {self._server.address.text} does not let this worker hear the channels hotreload:*"
                f" ({error})"
            ) from error
        self._ear, self._asked_at, self._heard_at = ear, None, time.monotonic()
        self._poll = select.poll()
        self._poll.register(self._nudged.fileno(), select.POLLIN)
        self._poll.register(ear.bounded.fileno(), select.POLLIN)

    def _is_nudged(self) -> bool:
        try:
            while self._nudged.recv(4096) == _NUDGE * 4096:
                continue
        except OSError:
            return False
        while self._own_news:
            self._news = self._own_news.popleft()
        return True

    def _is_rung(self) -> bool:
        """Read what there is to be read, up to news; one look at the store serves all the hints there are."""
        from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

        rung, ear, self._has_more = False, self._ear, False
        ear.bounded.ends = time.monotonic() + ear.seconds
        try:
            while ear.can_read(timeout=0):
                ear.bounded.ends = time.monotonic() + ear.seconds
                rung = self._takes(ear.read_response()) or rung
                self._heard_at, self._asked_at = time.monotonic(), None
                if rung and self._news is not None:
                    self._has_more = True  # perhaps: that is found out when there is time
                    return True
        except (RedisError, OSError):
            self._drop()
            return True
        return rung

    def _takes(self, message: Any) -> bool:
        """Return whether it is for this member: whoever rings all and means itself, too, has been woken before."""
        if message[0] != b"message":
            return False
        hint = read(message[2])
        self._news = hint.news or self._news
        return hint.by != self._me

    def _ask_whether_it_is_there(self) -> None:
        """A connection that has been cut somewhere between ends only for whoever sends something."""
        from redis.exceptions import RedisError  # noqa: PLC0415  # an extra

        now = time.monotonic()
        if self._asked_at is not None:
            if now >= self._asked_at + self._server.address.timeout:
                self._drop()
        elif now >= self._heard_at + _SILENCE:
            try:
                self._ear.bounded.ends = now + _RING
                self._ear.send_command("PING", check_health=False)
                self._asked_at = now
            except (RedisError, OSError):
                self._drop()

    def _drop(self) -> None:
        self._ear.disconnect()
        self._ear, self._has_more = None, False

    # The end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._closed = True
        self._nudge()
        for lock, end in ((self._waiting, self._nudged), (self._sending, self._nudging)):
            if lock.acquire(timeout=2 * self._server.address.timeout):
                try:
                    end.close()
                finally:
                    lock.release()

    def let_go(self) -> None:
        """In a forked child: the parent goes on with it."""
        self._nudged.close()
        self._nudging.close()

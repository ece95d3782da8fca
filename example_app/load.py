"""Steady load from many HTTP clients, and what each request met, from the client's side.

Each client holds one connection at a time and sends its requests by a timetable that does not wait for answers (open
loop): a request that could only be sent late, because the one before it was held, has waited since it was
*due*. Nothing is retried.

An answer shows by which generations of the code it can have been given. That lets :func:`old_after_new` hold
the rule: once any client has an answer of a generation, no request that starts afterwards is answered by an
older one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import accumulate
from threading import Condition, Event, Thread
from time import monotonic
from typing import NamedTuple


class WrongAnswerError(Exception):
    """An answer that no generation can have given."""


class Generations(NamedTuple):
    """The oldest and the newest generation that can have given an answer."""

    oldest: int
    newest: int


@dataclass(frozen=True)
class Call:
    """One request, and the judge of its answer.

    ``judge(status, body)`` returns the generations that can have answered so, or raises
    :class:`WrongAnswerError`. ``headers`` besides that for JSON.
    """

    path: str
    body: bytes
    judge: Callable[[int, bytes], Generations]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, sent and answered (seconds, monotonic clock); by whom, or what failed.

    ``worker``
        The process that answered, if it told.
    ``port``
        The client's end of the connection; ``None`` if there never was one.
    ``server``
        The port of the server's end.
    ``disconnected``
        It failed because its connection ended.
    """

    path: str
    due: float
    started: float
    ended: float
    generations: Generations | None
    error: str | None = None
    worker: int | None = None
    port: int | None = None
    disconnected: bool = False
    server: int | None = None

    @property
    def wait(self) -> float:
        """Seconds from the moment the request was due until its answer was there."""
        return self.ended - self.due


@dataclass(frozen=True)
class Tally:
    """What a row of a table shows of many samples. ``longest_wait`` in seconds, 0.0 without a sample."""

    requests: int
    failed: int
    longest_wait: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Tally:
        failed = sum(sample.error is not None for sample in samples)
        return cls(len(samples), failed, max((sample.wait for sample in samples), default=0.0))


class Load:
    """A context manager: ``clients`` threads that send ``rate`` requests a second in all until it is left.

    ``address``, ``others``
        Host and port; of several, a client takes the next one with each connection, and passes over those that
        refuse. :attr:`addresses` may change meanwhile.
    ``calls``
        ``calls(client)`` gives the endless row of calls of the client of that number.
    ``timeout``
        Seconds after which an unanswered request has failed.
    ``requests_per_connection``
        After so many a client connects anew, and so meets other workers; ``None``: never.
    """

    def __init__(
        self,
        address: tuple[str, int],
        calls: Callable[[int], Iterator[Call]],
        *,
        others: Sequence[tuple[str, int]] = (),
        clients: int = 8,
        rate: float = 200.0,
        timeout: float = 10.0,
        requests_per_connection: int | None = None,
    ) -> None:
        if clients < 1 or not rate > 0 or not timeout > 0:
            raise ValueError("clients, rate and timeout must be more than nothing")
        self.addresses = [address, *others]
        self._calls = calls
        self._timeout = timeout
        self._requests_per_connection = requests_per_connection
        self._interval = clients / rate
        self._stopping = Event()
        # Guards the samples and the moments that each client has reached; notified after each answer.
        self._answered = Condition()
        self._samples: list[Sample] = []
        self._reached = [monotonic()] * clients
        self._threads = [
            Thread(target=self._run, args=(client,), name=f"client-{client}", daemon=True)
            for client in range(clients)
        ]

    def __enter__(self) -> Load:
        now = monotonic()
        step = self._interval / len(self._reached)
        self._reached = [now + step * client for client in range(len(self._reached))]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def samples(self, since: float = 0.0, until: float = float("inf")) -> list[Sample]:
        """The requests that were due in ``[since, until)`` and have ended."""
        with self._answered:
            return [sample for sample in self._samples if since <= sample.due < until]

    def settle(self, moment: float, *, timeout: float = 30.0) -> bool:
        """Wait until each request due before ``moment`` has ended; false after ``timeout`` seconds."""
        with self._answered:
            return self._answered.wait_for(lambda: min(self._reached) >= moment, timeout)

    def _run(self, client: int) -> None:
        connection = _Connection(self.addresses, first=client, timeout=self._timeout)
        due = self._reached[client]
        try:
            for number, call in enumerate(self._calls(client)):
                if self._stopping.wait(max(0.0, due - monotonic())):
                    return
                if self._requests_per_connection and number % self._requests_per_connection == 0:
                    connection.close()
                sample = send(connection, call, due)
                due += self._interval
                with self._answered:
                    self._samples.append(sample)
                    self._reached[client] = due
                    self._answered.notify_all()
        finally:
            connection.close()


class _Connection(HTTPConnection):
    """To one of several servers, each time to the next one that does not refuse, as a load balancer would give it."""

    def __init__(self, addresses: Sequence[tuple[str, int]], *, first: int, timeout: float) -> None:
        super().__init__(*addresses[0], timeout=timeout)
        self._addresses = addresses
        self._turn = first

    def connect(self) -> None:
        addresses = list(self._addresses)
        for last in reversed(range(len(addresses))):
            self.host, self.port = addresses[self._turn % len(addresses)]
            self._turn += 1
            try:
                super().connect()
            except ConnectionError:
                if not last:
                    raise
            else:
                return


def send(connection: HTTPConnection, call: Call, due: float | None = None) -> Sample:
    """Send one request, have its answer judged, and never raise. ``due``: now, if not given."""
    generations, error, worker, port, disconnected = None, None, None, None, False
    started = monotonic()
    try:
        if connection.sock is None:
            connection.connect()
        port = connection.sock.getsockname()[1]
        connection.request("POST", call.path, call.body, {"Content-Type": "application/json", **call.headers})
        response = connection.getresponse()
        body = response.read()
        ended = monotonic()
        worker = worker_of(response)
        generations = call.judge(response.status, body)
    except (OSError, HTTPException) as failure:
        ended = monotonic()
        connection.close()  # the next request connects anew
        error = f"{call.path}: {type(failure).__name__}: {failure}"
        disconnected = port is not None and isinstance(failure, (ConnectionError, HTTPException))
    except WrongAnswerError as wrong:
        error = f"{call.path}: {wrong}"
    due = started if due is None else due
    return Sample(call.path, due, started, ended, generations, error, worker, port, disconnected, connection.port)


def worker_of(response: HTTPResponse) -> int | None:
    """The process id in the header ``X-Worker``; ``None`` if it is not there."""
    told = response.getheader("X-Worker")
    return int(told) if told is not None else None


def lost_with(samples: Iterable[Sample], ports: Container[int]) -> list[Sample]:
    """The requests that failed because these connections, named by the client's ports, ended: one each at most."""
    lost: dict[int, Sample] = {}
    for sample in sorted(samples, key=lambda sample: sample.started):
        if sample.disconnected and sample.port is not None and sample.port in ports:
            lost.setdefault(sample.port, sample)
    return list(lost.values())


def old_after_new(samples: Sequence[Sample]) -> list[Sample]:
    """The requests answered by a generation although a newer one had answered someone before they started."""
    answered = sorted((s.ended, s.generations.oldest) for s in samples if s.generations is not None)
    times = [ended for ended, _ in answered]
    newest_by_then = list(accumulate((oldest for _, oldest in answered), max))
    late = []
    for sample in samples:
        before = bisect_left(times, sample.started)
        if sample.generations is not None and before and sample.generations.newest < newest_by_then[before - 1]:
            late.append(sample)
    return late

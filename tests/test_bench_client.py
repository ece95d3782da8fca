"""The load client of the benchmarks: a bad answer, a late one and a missing one must show in what it reports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic

import pytest

from bench.client import Load, Sample
from bench.spread import percentile

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"result":1}'
Answer = Callable[[socket.socket, int], None]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, int]]:
    """A server that hands request after request to ``answer(connection, number)``, one connection at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    numbers = iter(range(1_000_000))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while connection.recv(65536):
                        answer(connection, next(numbers))
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def samples_of(answer: Answer, number: int, *, rate: float | None = 200.0) -> list[Sample]:
    """What is reported when ``number`` requests have been answered, or more."""
    enough = threading.Event()

    def counted(connection: socket.socket, index: int) -> None:
        answer(connection, index)
        if index + 1 >= number:
            enough.set()

    with (
        serving(counted) as address,
        Load(address, body=b"{}", connections=1, rate=rate) as load,
    ):
        assert enough.wait(30)
        return load.stop()


def good(connection: socket.socket, number: int) -> None:
    connection.sendall(GOOD)


@pytest.mark.parametrize("rate", [200.0, None], ids=["open loop", "closed loop"])
def test_good_answers_are_no_failures(rate: float | None) -> None:
    samples = samples_of(good, 20, rate=rate)
    assert len(samples) >= 20
    assert not any(sample.failed for sample in samples)
    assert all(0 <= sample.wait < 30 for sample in samples)


@pytest.mark.parametrize(
    "bad",
    [
        b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\n{"result":1}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"error":{}}',
    ],
    ids=["status", "body"],
)
def test_an_answer_that_is_not_the_expected_one_is_a_failure(bad: bytes) -> None:
    samples = samples_of(lambda connection, number: connection.sendall(bad if number == 3 else GOOD), 8)
    assert [index for index, sample in enumerate(samples) if sample.failed] == [3]


def test_a_connection_that_breaks_instead_of_an_answer_is_a_failure_and_nothing_is_sent_twice() -> None:
    asked = []

    def breaking(connection: socket.socket, number: int) -> None:
        asked.append(number)
        if number == 3:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(GOOD)

    samples = samples_of(breaking, 8)
    assert sum(sample.failed for sample in samples) == 1
    assert len(samples) == len(asked)


def test_a_connection_that_is_closed_between_two_requests_is_no_failure() -> None:
    def closing(connection: socket.socket, number: int) -> None:
        connection.sendall(GOOD)
        if number == 3:
            connection.shutdown(socket.SHUT_RDWR)

    assert not any(sample.failed for sample in samples_of(closing, 8, rate=10.0))


def test_requests_that_wait_for_a_free_connection_have_waited_since_they_were_due() -> None:
    stalled: list[float] = []

    def stalling(connection: socket.socket, number: int) -> None:
        if number == 3:
            begun = monotonic()
            threading.Event().wait(0.2)
            stalled.append(monotonic() - begun)
        connection.sendall(GOOD)

    samples = samples_of(stalling, 40, rate=100.0)
    # At 100 a second about twenty came due meanwhile, and each waited until the stall was over.
    during = [sample for sample in samples if 0 <= sample.due - samples[3].due < 0.1]
    assert len(during) == pytest.approx(10, abs=1)
    assert all(sample.wait >= stalled[0] - 0.1 - 0.02 for sample in during)
    intervals = {round(after.due - before.due, 6) for before, after in pairwise(samples)}
    assert intervals == {0.01}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]
    with pytest.raises(ValueError, match="no measurements"):
        percentile([], 0.5)

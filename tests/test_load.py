"""The client that judges every answer of the example service: a bad run must be seen as one."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from threading import Event, Thread
from time import monotonic

import pytest

from example_app.kill import kill
from example_app.load import Call, Generations, Load, Sample, Tally, WrongAnswerError, lost_with, old_after_new, send
from example_app.server import PACKAGE
from example_app.workload import Edition, Workload

pytestmark = pytest.mark.alone

ANY = Generations(0, 0)
NO_CALL = Call("/", b"", lambda status, body: ANY)


# The client that records


def answered(oldest: int, newest: int, started: float, ended: float) -> Sample:
    return Sample("/api", started, started, ended, Generations(oldest, newest))


def test_an_old_answer_is_found_if_its_request_started_after_a_new_answer() -> None:
    new, late = answered(1, 1, 0.0, 1.0), answered(0, 0, 1.1, 1.2)
    assert old_after_new([late, new]) == [late]


def test_an_old_answer_of_another_worker_over_another_connection_counts_as_well() -> None:
    new = Sample("/api", 0.0, 0.0, 1.0, Generations(1, 1), worker=1, port=10)
    late = Sample("/ledger", 1.1, 1.1, 1.2, Generations(0, 0), worker=2, port=20)
    assert old_after_new([new, late]) == [late]


def test_an_old_answer_is_right_if_its_request_started_before_the_new_answer() -> None:
    assert old_after_new([answered(1, 1, 0.0, 1.0), answered(0, 0, 0.9, 5.0)]) == []


def test_an_answer_that_both_generations_give_is_neither_old_nor_new() -> None:
    both = answered(0, 1, 0.0, 1.0)
    assert old_after_new([both, answered(0, 0, 2.0, 3.0), answered(1, 1, 4.0, 5.0), answered(0, 1, 6.0, 7.0)]) == []


def test_a_failed_request_says_nothing_about_generations() -> None:
    failed = Sample("/api", 2.0, 2.0, 3.0, None, "refused")
    assert old_after_new([answered(1, 1, 0.0, 1.0), failed]) == []


class Held(BaseHTTPRequestHandler):
    """Answers every POST with ``{}``, the first one when ``released`` is set."""

    protocol_version = "HTTP/1.1"
    entered: Event
    released: Event

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.entered.set()
        assert self.released.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("X-Worker", "4711")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def holding_server() -> Iterator[tuple[tuple[str, int], type[Held]]]:
    handler = type("Handler", (Held,), {"entered": Event(), "released": Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield ("127.0.0.1", server.server_port), handler
        finally:
            handler.released.set()
            server.shutdown()
            thread.join()


def test_a_request_that_could_only_be_sent_late_has_waited_since_it_was_due() -> None:
    with (
        holding_server() as (address, handler),
        Load(address, lambda _: repeat(NO_CALL), clients=1, rate=100) as load,
    ):
        assert handler.entered.wait(30)
        held_until = monotonic() + 0.1  # ten requests become due meanwhile
        assert not load.settle(held_until, timeout=0.1)
        handler.released.set()
        assert load.settle(held_until)
        first, second = load.samples()[:2]
    assert second.due == pytest.approx(first.due + 0.01)
    assert second.started >= first.ended
    assert second.wait >= first.ended - second.due > 0.05
    assert Tally.of([first, second]).longest_wait == max(first.wait, second.wait)


def test_settle_waits_for_the_requests_that_were_due_and_not_for_later_ones() -> None:
    with holding_server() as (address, handler), Load(address, lambda _: repeat(NO_CALL), clients=2, rate=2) as load:
        moment = monotonic() + 0.001
        assert handler.entered.wait(30)
        assert not load.settle(moment, timeout=0.05)
        handler.released.set()
        assert load.settle(moment)
        assert all(sample.error is None for sample in load.samples())


def test_a_refused_connection_is_a_failed_request_and_the_client_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with Load(address, lambda _: repeat(NO_CALL), clients=1, rate=100) as load:
        assert load.settle(monotonic() + 0.05)
        samples = load.samples()
    assert len(samples) > 1
    assert all("ConnectionRefusedError" in str(sample.error) for sample in samples)
    assert Tally.of(samples).failed == len(samples)


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"rate": 0}, {"rate": float("nan")}, {"timeout": 0}])
def test_a_load_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        Load(("127.0.0.1", 1), lambda _: repeat(NO_CALL), **wrong)  # type: ignore[arg-type]


def test_a_client_connects_anew_after_as_many_requests_as_told_and_knows_who_answered() -> None:
    with holding_server() as (address, handler):
        handler.released.set()
        with Load(address, lambda _: repeat(NO_CALL), clients=1, rate=500, requests_per_connection=3) as load:
            until = monotonic() + 0.1
            assert load.settle(until)
        samples = load.samples()
    ports = [sample.port for sample in samples]
    connections = [port for port, before in zip(ports, [None, *ports], strict=False) if port != before]
    assert len(samples) > 3
    assert len(connections) == -(-len(samples) // 3)
    assert {sample.worker for sample in samples} == {4711}


# Whose fault a failure is


def broken(port: int, started: float, *, disconnected: bool = True) -> Sample:
    return Sample("/api", started, started, started + 1, None, "broken", None, port, disconnected)


def test_a_connection_that_died_with_its_worker_excuses_one_request() -> None:
    mine, again, other = broken(1, 1.0), broken(1, 5.0), broken(2, 1.0)
    assert lost_with([again, other, mine], {1}) == [mine]


def test_a_wrong_answer_or_a_time_out_is_never_excused() -> None:
    assert lost_with([broken(1, 1.0, disconnected=False)], {1}) == []


def test_an_answered_request_is_not_lost() -> None:
    assert lost_with([Sample("/api", 0.0, 0.0, 1.0, ANY, port=1)], {1}) == []


ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
accepted = [listener.accept()[0] for _ in range(2)]
print("accepted", flush=True)
accepted[0].recv(1)
"""


def test_a_killed_process_is_told_with_the_connections_that_it_had_accepted() -> None:
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        connections = [HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(3)]
        for connection in connections:
            connection.connect()
            stack.callback(connection.close)
        assert process.stdout.readline() == "accepted\n"
        mine = [connection.sock.getsockname()[1] for connection in connections[:2]]
        assert kill(process.pid, port) == set(mine), "the third waits in the queue, and is nobody's yet"
        assert process.wait(30) == -signal.SIGKILL
        sample = send(connections[0], NO_CALL)
    assert lost_with([sample], mine) == [sample]


def test_what_cannot_be_stopped_is_no_worker() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    with pytest.raises(ProcessLookupError):
        kill(gone.pid, 1)


# What a right answer is


@pytest.fixture
def workload() -> Workload:
    workload = Workload(PACKAGE / "rates.csv", Edition(0, Decimal(1), "Deposit"))
    workload.announce(Edition(1, Decimal("0.995"), "Receipt no."))
    return workload


def kinds_of_calls(workload: Workload) -> tuple[Call, Call, Call]:
    """A conversion, a deposit and a batch, as a client sends them."""
    calls = workload.calls(0)
    row = [next(calls) for _ in range(8)]
    return row[0], row[3], row[7]


def right_answer(call: Call, factor: str) -> object:
    """What the service answers to a conversion or a batch of them, with the factor of an edition."""
    rates = dict(line.split(",")[:2] for line in (PACKAGE / "rates.csv").read_text().splitlines()[1:])

    def one(request: dict[str, dict[str, str]]) -> dict[str, object]:
        params = request["params"]
        rate = Decimal(rates[params["target"]]) / Decimal(rates[params["base"]])
        result = (Decimal(params["amount"]) * rate * Decimal(factor)).quantize(Decimal("0.01"))
        return {"jsonrpc": "2.0", "id": request["id"], "result": str(result)}

    body = json.loads(call.body)
    return [one(request) for request in body] if isinstance(body, list) else one(body)


@pytest.mark.parametrize(("factor", "generation"), [("1", 0), ("0.995", 1)])
def test_a_right_answer_tells_its_generation(workload: Workload, factor: str, generation: int) -> None:
    conversion, _, batch = kinds_of_calls(workload)
    for call in (conversion, batch):
        answer = json.dumps(right_answer(call, factor)).encode()
        assert call.judge(200, answer) == Generations(generation, generation)


def test_an_answer_that_is_a_cent_off_is_wrong(workload: Workload) -> None:
    conversion, _, _ = kinds_of_calls(workload)
    answer = right_answer(conversion, "1")
    assert isinstance(answer, dict)
    answer["result"] = str(Decimal(answer["result"]) + Decimal("0.01"))
    with pytest.raises(WrongAnswerError, match="no generation answers"):
        conversion.judge(200, json.dumps(answer).encode())


def test_two_generations_in_one_batch_are_wrong(workload: Workload) -> None:
    _, _, batch = kinds_of_calls(workload)
    old, new = right_answer(batch, "1"), right_answer(batch, "0.995")
    assert isinstance(old, list)
    assert isinstance(new, list)
    with pytest.raises(WrongAnswerError, match="two generations"):
        batch.judge(200, json.dumps([old[0], *new[1:]]).encode())


@pytest.mark.parametrize("status", [500, 503, 404])
def test_a_status_other_than_200_is_wrong(workload: Workload, status: int) -> None:
    conversion, _, _ = kinds_of_calls(workload)
    with pytest.raises(WrongAnswerError, match=f"HTTP status {status}"):
        conversion.judge(status, json.dumps(right_answer(conversion, "1")).encode())


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"id": 99, "result": "1.00"}', b'{"id": 1, "error": {}}']
)
def test_an_answer_that_is_no_result_of_this_call_is_wrong(workload: Workload, body: bytes) -> None:
    for call in kinds_of_calls(workload):
        with pytest.raises(WrongAnswerError):
            call.judge(200, body)


def receipt(call: Call, number: int, word: str = "Deposit") -> bytes:
    request = json.loads(call.body)
    text = f"{word} {number}: {request['params']['amount']} {request['params']['currency']}"
    result = {"till": 7, "number": number, "text": text}
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()


def test_a_receipt_that_is_given_out_twice_is_wrong(workload: Workload) -> None:
    _, deposit, _ = kinds_of_calls(workload)
    assert deposit.judge(200, receipt(deposit, 1)) == Generations(0, 0)
    assert deposit.judge(200, receipt(deposit, 2, "Receipt no.")) == Generations(1, 1)
    with pytest.raises(WrongAnswerError, match="given out twice"):
        deposit.judge(200, receipt(deposit, 2))


def test_the_ledger_must_hold_every_receipt_and_every_cent(workload: Workload) -> None:
    _, deposit, _ = kinds_of_calls(workload)
    params = json.loads(deposit.body)["params"]
    for number in (1, 2):
        deposit.judge(200, receipt(deposit, number))
    both = str(Decimal(params["amount"]) * 2)
    right = {"till": 7, "receipts": 2, "balances": {params["currency"]: both}}
    assert workload.check_receipts(right) == []
    assert workload.check_receipts({**right, "receipts": 3}) == ["the till gave out 3 receipts, the clients hold 2"]
    one_lost = {**right, "balances": {params["currency"]: params["amount"]}}
    assert workload.check_receipts(one_lost) == ["the balances of the till are not what the clients brought"]

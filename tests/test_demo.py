"""The example service, its demo, the README, and the client that judges every answer: a bad run must fail."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise, repeat
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest
import requests
from rich.console import Console

from example_app import demo, steps
from example_app.load import Call, Generations, Load, Sample, Tally, WrongAnswerError, old_after_new
from example_app.server import PACKAGE, GunicornServer, ServerError, copy_service
from example_app.story import Outcome, Step, StepError, Story
from example_app.workload import Edition, Workload

ROOT = PACKAGE.parent
ANY = Generations(0, 0)


@contextmanager
def running(module: str, *arguments: str, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """``python -m module arguments`` in a process of its own, with its own folder for temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process prints, up to the line that holds ``text``."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"{text!r} was never printed:\n{seen}")


def refuses_connections(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


# The demo as a user runs it


def test_the_demo_ends_with_status_0_and_a_table_of_its_steps(tmp_path: Path) -> None:
    with running("example_app.demo", "--seconds-per-step", "1", temporary=tmp_path) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    rows = {cells[0]: cells[1:] for cells in table_of(output)}
    generations = ["0", "1", "2", "2", "3"]
    for step, generation in zip(steps.STEPS, generations, strict=True):
        count, failed, _held, wait, _pause, number, outcome = rows[step.title]
        assert int(count) > 50
        assert (failed, number) == ("0", generation)
        assert re.fullmatch(r"\d+\.\d ms", wait)
        assert "FAILED" not in outcome
    assert rows["Broken file"][-1].startswith("refused: 422, rates.py:")
    assert int(rows["Slow request"][2]) > 0, "nobody was held"
    assert int(rows["Total"][0]) == sum(int(rows[step.title][0]) for step in steps.STEPS)
    assert "\x1b" not in output, "escape sequences in a pipe"
    assert list(tmp_path.iterdir()) == []


def table_of(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line[:1] == "│"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupted_demo_leaves_no_server_and_no_folder(tmp_path: Path, number: int, status: int) -> None:
    with running("example_app.demo", temporary=tmp_path) as process:
        seen = read_until(process, "POST /_reload")
        url = re.search(r"http://\S+:\d+", seen)
        assert url is not None
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == status
    assert list(tmp_path.iterdir()) == []
    assert refuses_connections(url[0])


def test_the_lines_that_run_prints_work_as_they_stand(tmp_path: Path) -> None:
    with running("example_app.run", "--port", "0", temporary=tmp_path) as process:
        printed = read_until(process, "Ctrl-C ends it")
        answers = [send_line(line) for line in printed.splitlines() if line.startswith("  curl ")]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    call, batch, direct, deposit, reload_rates, reload_ledger, status = answers
    assert call == {"jsonrpc": "2.0", "id": 1, "result": "16288.00"}
    assert batch[0] == call
    assert batch[1]["result"] == {"base": "EUR", "target": "USD", "rate": "1.078600"}
    assert direct == "16288.00"
    assert (deposit["number"], deposit["text"]) == (1, "Deposit 1: 100.00 EUR")
    assert (reload_rates["status"], reload_rates["generation"]) == ("committed", 1)
    assert (reload_ledger["status"], reload_ledger["generation"]) == ("committed", 2)
    assert status["generation"] == 2


def send_line(line: str) -> object:
    """Send what a printed curl line says, and return the parsed answer."""
    words = shlex.split(line)
    options: dict[str, list[str]] = {"-H": [], "-d": []}
    for option, value in pairwise(words):
        if option in options:
            options[option].append(value)
    (url,) = [word for word in words if word.startswith("http")]
    headers = dict(header.split(": ", 1) for header in options["-H"])
    method = "POST" if options["-d"] else "GET"
    answer = requests.request(method, url, headers=headers, data="".join(options["-d"]) or None, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


# The README as it stands


def blocks_of_the_readme(language: str) -> list[str]:
    pattern = rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, (ROOT / "README.rst").read_text("utf-8"), re.M)]


def test_the_five_lines_of_the_readme_are_served_and_reloaded_as_it_says(tmp_path: Path) -> None:
    shop = tmp_path / "shop.py"
    shop.write_text(blocks_of_the_readme("python")[0], encoding="utf-8")
    start, call, reload = blocks_of_the_readme("sh")
    make_token = re.search(r"\$\(python (.*)\)\n", start)
    assert make_token is not None
    token = subprocess.check_output([sys.executable, *shlex.split(make_token[1])], text=True).strip()
    with GunicornServer(tmp_path, application="shop:app", token=token, log=tmp_path / "log") as server:

        def answers(block: str) -> list[object]:
            ready = block.replace("http://127.0.0.1:8000", server.url).replace("$HOTRELOAD_TOKEN", token)
            return [send_line(line) for line in ready.strip().splitlines()]

        assert answers(call) == [{"jsonrpc": "2.0", "id": 1, "result": 3}, 3]
        shop.write_text(shop.read_text(encoding="utf-8").replace('"tea": 3', '"tea": 5'), encoding="utf-8")
        assert answers(call) == [{"jsonrpc": "2.0", "id": 1, "result": 3}, 3]
        (report,) = answers(reload)
        assert isinstance(report, dict)
        assert (report["status"], report["generation"], report["drain"]["held"]) == ("committed", 1, 0)
        assert report["timings"]["pause_ms"] >= 0
        assert answers(call) == [{"jsonrpc": "2.0", "id": 1, "result": 5}, 5]


def test_the_document_of_the_readme_is_one_that_the_example_service_takes(tmp_path: Path) -> None:
    copy_service(tmp_path)
    document = json.loads(blocks_of_the_readme("json")[0])
    with GunicornServer(tmp_path, log=tmp_path / "log") as server:
        for changes, status in (({"dryRun": True}, "checked"), ({}, "committed")):
            answer = requests.post(
                f"{server.url}/_reload",
                json={**document, **changes},
                headers={"Authorization": f"Bearer {server.token}"},
                timeout=10,
            )
            assert (answer.status_code, answer.json()["status"]) == (200, status), answer.text


# A run that goes wrong has the exit status 1


def perform(*acts: Callable[[Story], Outcome]) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    story = [Step(f"Step {number}", "as told", act) for number, act in enumerate(acts)]
    status = demo.perform(story, console, seconds=0.6, clients=4, rate=100)
    return status, console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above


def test_a_step_that_does_not_do_what_it_should_fails_the_demo() -> None:
    def fail(story: Story) -> Outcome:
        raise StepError("the bureau is closed")

    status, output = perform(steps.calm, fail, steps.calm)
    assert status == 1
    assert "✗ the bureau is closed" in output
    assert "FAILED" in output


def test_a_reload_that_no_client_noticed_fails_the_demo() -> None:
    status, output = perform(lambda story: Outcome(1, "committed, allegedly"))
    assert status == 1
    assert "nobody was answered by generation 1" in output


def test_an_answer_that_no_announced_edition_gives_fails_the_demo() -> None:
    def unannounced(story: Story) -> Outcome:
        story.edit("rates.py", steps.EXCHANGE, steps.WITH_MARGIN)
        return Outcome(1, "committed", story.commit(steps.rates("silently")))

    status, output = perform(unannounced)
    assert status == 1
    assert "no generation answers" in output


def test_a_ledger_that_forgets_fails_the_demo() -> None:
    def forget(story: Story) -> Outcome:
        story.workload.announce(Edition(1, Decimal(1), "Deposit"))
        story.watch(0.5)
        document = steps.ledger("without a callback")
        del document["data"][0]["overload"]
        return Outcome(1, "committed", story.commit(document))

    status, output = perform(forget)
    assert status == 1
    assert "was given out twice" in output


def test_a_broken_reload_is_not_taken_for_a_committed_one() -> None:
    def break_it(story: Story) -> Outcome:
        story.edit("rates.py", steps.EXCHANGE, steps.UNCLOSED)
        return Outcome(1, "committed", story.commit(steps.rates("broken")))

    status, output = perform(break_it)
    assert status == 1
    assert "the reload was answered 422" in output


def test_a_service_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    package = copy_service(tmp_path)
    (package / "app.py").write_text("raise RuntimeError('no money today')\n", encoding="utf-8")
    server = GunicornServer(tmp_path, log=tmp_path / "log")
    with pytest.raises(ServerError, match="no money today"):
        server.__enter__()
    assert not server.running
    assert refuses_connections(server.url)


# The client that records


def answered(oldest: int, newest: int, started: float, ended: float) -> Sample:
    return Sample("/api", started, started, ended, Generations(oldest, newest))


def test_an_old_answer_is_found_if_its_request_started_after_a_new_answer() -> None:
    new, late = answered(1, 1, 0.0, 1.0), answered(0, 0, 1.1, 1.2)
    assert old_after_new([late, new]) == [late]


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
    call = Call("/", b"", lambda status, body: ANY)
    with holding_server() as (address, handler), Load(address, lambda _: repeat(call), clients=1, rate=100) as load:
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
    call = Call("/", b"", lambda status, body: ANY)
    with holding_server() as (address, handler), Load(address, lambda _: repeat(call), clients=2, rate=2) as load:
        moment = monotonic() + 0.001
        assert handler.entered.wait(30)
        assert not load.settle(moment, timeout=0.05)
        handler.released.set()
        assert load.settle(moment)
        assert all(sample.error is None for sample in load.samples())


def test_a_refused_connection_is_a_failed_request_and_the_client_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    call = Call("/", b"", lambda status, body: ANY)
    with Load(address, lambda _: repeat(call), clients=1, rate=100) as load:
        assert load.settle(monotonic() + 0.05)
        samples = load.samples()
    assert len(samples) > 1
    assert all("ConnectionRefusedError" in str(sample.error) for sample in samples)
    assert Tally.of(samples).failed == len(samples)


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"rate": 0}, {"rate": float("nan")}, {"timeout": 0}])
def test_a_load_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        Load(("127.0.0.1", 1), lambda _: repeat(Call("/", b"", lambda status, body: ANY)), **wrong)  # type: ignore[arg-type]


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

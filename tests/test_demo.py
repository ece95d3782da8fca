"""The example service and its demo, which must fail when a run goes wrong; the README as it stands."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from demos import ROOT, read_until, refuses_connections, running, table_of
from rich.console import Console

from example_app import demo, steps
from example_app.server import GunicornServer, ServerError, copy_service
from example_app.story import Outcome, Step, StepError, Story

pytestmark = pytest.mark.alone


# The demo as a user runs it


def test_the_demo_ends_with_status_0_and_a_table_of_its_steps(tmp_path: Path) -> None:
    with running("example_app.demo", "--seconds-per-step", "0.9", temporary=tmp_path) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    rows = table_of(output)
    generations = [0, 1, 11, 12, 12, 13, 13]
    retries = int(rows["Slow request"][-2]) - 13  # on a busy machine the slow request may have been over too soon
    for step, generation in zip(steps.STEPS, generations, strict=True):
        count, failed, _held, wait, _pause, workers, number, outcome = rows[step.title]
        assert int(count) > 50
        assert failed == "0"
        assert int(number) == generation + (retries if generation == 13 else 0)
        assert workers == ("5" if step.title == "Killed worker" else "4"), step.title
        assert re.fullmatch(r"\d+\.\d ms", wait)
        assert "FAILED" not in outcome
    assert rows["Broken file"][-1].startswith("refused: 422, rates.py:")
    told = re.fullmatch(r"\d+ killed, (\d+) of its own requests lost; \d+ began with .*", rows["Killed worker"][-1])
    assert told is not None
    assert (f"{told[1]} requests that were lost" in output) == (told[1] != "0")
    assert int(rows["Slow request"][2]) > 0, "nobody was held"
    assert int(rows["Total"][0]) == sum(int(rows[step.title][0]) for step in steps.STEPS)
    assert "\x1b" not in output, "escape sequences in a pipe"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupted_demo_leaves_no_server_and_no_folder(tmp_path: Path, number: int, status: int) -> None:
    with running("example_app.demo", "--seconds-per-step", "0.3", "--workers", "2", temporary=tmp_path) as process:
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
    options: dict[str, list[str]] = {"-H": [], "-d": [], "-X": []}
    for option, value in pairwise(words):
        if option in options:
            options[option].append(value)
    (url,) = [word for word in words if word.startswith("http")]
    headers = dict(header.split(": ", 1) for header in options["-H"])
    (method,) = options["-X"] or (["POST"] if options["-d"] else ["GET"])
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
    start, call, reload, rollback = blocks_of_the_readme("sh")[:4]
    options = re.search(r"gunicorn -w (\d+) --threads (\d+) shop:app\n", start)
    assert options is not None
    workers, threads = map(int, options.groups())
    make_token = re.search(r"\$\(python (.*)\)\n", start)
    assert make_token is not None
    token = subprocess.check_output([sys.executable, *shlex.split(make_token[1])], text=True).strip()
    with GunicornServer(
        tmp_path, application="shop:app", workers=workers, threads=threads, token=token, log=tmp_path / "log"
    ) as server:

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
        (report,) = answers(rollback)
        assert isinstance(report, dict)
        assert (report["generation"], report["restores"]) == (2, 0)
        assert answers(call) == [{"jsonrpc": "2.0", "id": 1, "result": 3}, 3]


def test_the_document_of_the_readme_is_one_that_the_example_service_takes(tmp_path: Path) -> None:
    copy_service(tmp_path)
    document = json.loads(blocks_of_the_readme("json")[0])
    with GunicornServer(tmp_path, workers=2, log=tmp_path / "log") as server:
        for changes, status in (({"dryRun": True}, "checked"), ({}, "committed")):
            answer = requests.post(
                f"{server.url}/_reload",
                json={**document, **changes},
                headers={"Authorization": f"Bearer {server.token}"},
                timeout=10,
            )
            assert (answer.status_code, answer.json()["status"]) == (200, status), answer.text


# A run that goes wrong has the exit status 1


def perform(*acts: Callable[[Story], Outcome], workers: int = 1) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    story = [Step(f"Step {number}", "as told", act) for number, act in enumerate(acts)]
    status = demo.perform(story, console, seconds=0.3, workers=workers, clients=4, rate=100)
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
        story.edit("rates.py", steps.exchange(Decimal(1)), steps.exchange(Decimal("0.995")))
        return Outcome(1, "committed", (story.commit(steps.rates("silently")),))

    status, output = perform(unannounced)
    assert status == 1
    assert "no generation answers" in output


def test_a_ledger_that_forgets_fails_the_demo() -> None:
    def forget(story: Story) -> Outcome:
        story.ask_each()
        story.announce()
        document = steps.ledger("without a callback")
        del document["data"][0]["overload"]
        report = story.commit(document)
        story.ask_each()
        return Outcome(1, "committed", (report,))

    status, output = perform(forget, workers=2)
    assert status == 1
    assert "was given out twice" in output


def test_a_broken_reload_is_not_taken_for_a_committed_one() -> None:
    def break_it(story: Story) -> Outcome:
        right = steps.exchange(Decimal(1))
        story.edit("rates.py", right, f"({right}")
        return Outcome(1, "committed", (story.commit(steps.rates("broken")),))

    status, output = perform(break_it)
    assert status == 1
    assert "the reload was answered 422" in output


def test_a_worker_that_answers_another_generation_fails_the_demo() -> None:
    def expect_more(story: Story) -> Outcome:
        story.generation += 1
        story.ask_each()
        return Outcome(1, "on every worker, allegedly")

    status, output = perform(expect_more)
    assert status == 1
    assert re.search(r"worker \d+ answers as generation 0 to 0, not 1", output)


def test_a_worker_that_dies_unasked_fails_the_demo() -> None:
    def die(story: Story) -> Outcome:
        story.ask_each()
        victim = min(story.workers.pids)
        os.kill(victim, signal.SIGKILL)
        story.workers.meet(without={victim})
        return Outcome(0, "nothing to see here")

    status, output = perform(die, workers=2)
    assert status == 1
    assert "has gone, and nobody killed it" in output


def test_a_service_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    package = copy_service(tmp_path)
    (package / "app.py").write_text("raise RuntimeError('no money today')\n", encoding="utf-8")
    server = GunicornServer(tmp_path, log=tmp_path / "log")
    with pytest.raises(ServerError, match="no money today"):
        server.__enter__()
    assert not server.running
    assert refuses_connections(server.url)

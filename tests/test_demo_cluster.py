"""The demo of three hosts over one Redis, which must fail when a run goes wrong."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from demos import read_until, refuses_connections, running, table_of
from rich.console import Console

from example_app import demo_cluster
from example_app.cluster_steps import CLUSTER_STEPS
from example_app.story import Outcome, Step, Story

pytestmark = pytest.mark.alone

COMMAND = ("example_app.demo_cluster", "--seconds-per-step", "0.9")


def test_the_demo_of_three_hosts_ends_with_status_0_and_a_table_of_its_steps(tmp_path: Path) -> None:
    with running(*COMMAND, temporary=tmp_path) as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    rows = table_of(output)
    for step, generation in zip(CLUSTER_STEPS, [0, 1, 1, 2, 3, 4, 5, 6], strict=True):
        count, failed, _held, _wait, _pause, workers, number, outcome = rows[step.title]
        assert int(count) > 50
        assert (failed, int(number)) == ("0", generation), step.title
        # Of the killed host's successors, at least one has answered before the step was over.
        assert workers in (("7", "8") if step.title == "Killed host" else ("6",)), step.title
        assert "FAILED" not in outcome
    assert rows["Broken file"][-1].startswith("refused: 422, rates.py:")
    told = re.fullmatch(
        r"2 workers killed, (\d+) of their own requests lost; back, and caught up", rows["Killed host"][-1]
    )
    assert told is not None
    assert (f"{told[1]} requests that were lost" in output) == (told[1] != "0")
    assert list(tmp_path.iterdir()) == []


def test_when_the_demo_of_three_hosts_is_interrupted_no_server_is_left(tmp_path: Path) -> None:
    with running(*COMMAND, temporary=tmp_path) as process:
        seen = read_until(process, "POST /_reload")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    urls = re.findall(r"http://\S+:\d+", seen)
    assert len(urls) == 3
    assert all(refuses_connections(url) for url in urls)
    redis = re.search(r"redis://\S+:\d+", seen)
    assert redis is not None
    assert refuses_connections(redis[0])


def perform(act: Callable[[Story], Outcome]) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    story = [Step("Step", "as told", act)]
    status = demo_cluster.perform(story, console, seconds=0.3, workers=1, clients=4, rate=100)
    return status, console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above


def test_a_host_that_dies_unasked_fails_the_demo_of_three_hosts() -> None:
    def die(story: Story) -> Outcome:
        story.servers[2].kill()
        return Outcome(0, "nothing to see here")

    status, output = perform(die)
    assert status == 1
    assert "gunicorn ended before the demo did" in output


def test_a_generation_that_one_host_lacks_fails_the_demo_of_three_hosts() -> None:
    def expect_more(story: Story) -> Outcome:
        story.generation += 1
        story.ask_each()
        return Outcome(1, "on every host, allegedly")

    status, output = perform(expect_more)
    assert status == 1
    assert re.search(r"worker \d+ answers as generation 0 to 0, not 1", output)

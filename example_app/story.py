"""A run of steps against the service under load: what a step can do, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from difflib import unified_diff
from http.client import HTTPConnection
from threading import Event
from time import monotonic
from typing import Any

import requests
from rich.console import Console
from rich.text import Text

from example_app.load import Call, Generations, Load, Sample, Tally, old_after_new, send
from example_app.server import GunicornServer
from example_app.workload import Edition, Workload

SHOWN_ERRORS = 3


class StepError(Exception):
    """A step of the demo did not do what it should."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to: the generation that is live after it, a line for the table, and the reload's report."""

    generation: int
    text: str
    report: dict[str, Any] | None = None


@dataclass(frozen=True)
class Step:
    """``act(story)`` runs in the middle of the load; raises :class:`StepError` if its own expectations fail."""

    title: str
    story: str
    act: Callable[[Story], Outcome]


@dataclass(frozen=True)
class Row:
    """A step, judged. ``held`` and ``pause_ms`` are the server's, the tally is the clients'."""

    title: str
    tally: Tally
    outcome: Outcome | None
    problems: tuple[str, ...]

    @property
    def held(self) -> int:
        """Requests that came while the lock was closed, and were answered after it opened."""
        return int(self._report("drain", "held") or 0)

    @property
    def pause_ms(self) -> float:
        return float(self._report("timings", "pause_ms") or 0.0)

    def _report(self, part: str, key: str) -> Any:
        return self.outcome.report[part][key] if self.outcome and self.outcome.report else None


class Story:
    """The running service, its load, and the operator who edits and reloads. ``seconds``: how long a step lasts."""

    def __init__(
        self, server: GunicornServer, load: Load, workload: Workload, console: Console, *, seconds: float
    ) -> None:
        self.server = server
        self.load = load
        self.workload = workload
        self.console = console
        self.seconds = seconds
        self.rows: list[Row] = []
        self._alone: list[Sample] = []  # answers outside of the load: a committed reload counts as one, too
        self._never = Event()

    @property
    def generation(self) -> int:
        """The generation that should be live now."""
        return next((row.outcome.generation for row in reversed(self.rows) if row.outcome), 0)

    def play(self, step: Step) -> Row:
        """Run one step under the load and judge every request that was due meanwhile."""
        self.say(f"\n{step.title}: {step.story}", "bold")
        began = monotonic()
        outcome, problems = None, []
        try:
            self.watch(self.seconds / 3)
            outcome = step.act(self)
            self.watch(max(began + self.seconds - monotonic(), self.seconds / 3))
        except StepError as failure:
            problems.append(str(failure))
        ended = monotonic()
        if not self.load.settle(ended):
            problems.append("some clients got no answer")
        samples = self.load.samples(began, ended)
        live = outcome.generation if outcome else None
        problems += judge(samples, [*self.load.samples(), *self._alone], live)
        row = Row(step.title, Tally.of(samples), outcome, tuple(problems))
        self.rows.append(row)
        self._show_verdict(row)
        return row

    def watch(self, seconds: float) -> None:
        """Let the load run on, with a live line where there is a terminal."""
        until = monotonic() + seconds
        with self.console.status("") as status:
            while (left := until - monotonic()) > 0:
                tally = Tally.of(self.load.samples())
                wait = f"longest wait {tally.longest_wait * 1e3:.1f} ms"
                status.update(f"{tally.requests} requests, {tally.failed} failed, {wait}")
                self._never.wait(min(0.1, left))

    def edit(self, name: str, old: str, new: str, edition: Edition | None = None) -> int:
        """Replace ``old`` in a file of the service, show the change, and return the number of its line.

        From now on an answer of ``edition`` is right, too.
        """
        path = self.server.folder / "example_app" / name
        before = path.read_text(encoding="utf-8")
        if before.count(old) != 1:
            raise StepError(f"{name} holds {old!r} {before.count(old)} times, not once")
        after = before.replace(old, new)
        if edition is not None:
            self.workload.announce(edition)
        path.write_text(after, encoding="utf-8")
        self._show_change(name, before, after)
        return before[: before.index(old)].count("\n") + 1

    def reload(self, document: dict[str, Any]) -> requests.Response:
        """``POST /_reload`` with the token, whatever the answer."""
        entries = ", ".join(entry["dispatcher"] for entry in document["data"])
        self.say(f"   POST /_reload  {document['data'][0]['scriptPath']}: {entries}", "cyan")
        started = monotonic()
        answer = self._control("POST", json=document)
        if answer.status_code == 200:
            number = answer.json()["generation"]
            self._alone.append(Sample("/_reload", started, started, monotonic(), Generations(number, number)))
        return answer

    def commit(self, document: dict[str, Any]) -> dict[str, Any]:
        """Reload and return the report; :class:`StepError` unless the next generation is live."""
        answer = self.reload(document)
        if answer.status_code != 200:
            raise StepError(f"the reload was answered {answer.status_code}: {answer.text[:500]}")
        report: dict[str, Any] = answer.json()
        if report["status"] != "committed" or report["generation"] != self.generation + 1:
            raise StepError(f"the reload ended {report['status']} at generation {report['generation']}")
        return report

    def status(self) -> dict[str, Any]:
        """What ``GET /_reload`` answers."""
        return dict(self._control("GET").json())

    def begin(self, call: Call, *, timeout: float = 5.0) -> Future[Sample]:
        """Send one call in the background; return when the service says that it is inside."""
        executor = ThreadPoolExecutor(1, thread_name_prefix="slow-client")
        future = executor.submit(self._send_alone, call)
        executor.shutdown(wait=False)
        until = monotonic() + timeout
        while not any(reader["path"] == call.path for reader in self.status()["readers"]):
            if monotonic() > until or future.done():
                raise StepError(f"{call.path} was never seen in flight")
            self._never.wait(0.02)
        return future

    def say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style))

    def _send_alone(self, call: Call) -> Sample:
        connection = HTTPConnection(*self.server.address, timeout=30.0)
        try:
            sample = send(connection, call)
            self._alone.append(sample)
            return sample
        finally:
            connection.close()

    def _control(self, method: str, **options: Any) -> requests.Response:
        try:
            return requests.request(
                method,
                f"{self.server.url}/_reload",
                headers={"Authorization": f"Bearer {self.server.token}"},
                timeout=30.0,
                **options,
            )
        except requests.RequestException as failure:
            raise StepError(f"{method} /_reload: {failure}") from failure

    def _show_verdict(self, row: Row) -> None:
        waited = f"longest wait {row.tally.longest_wait * 1e3:.1f} ms"
        self.say(f"   {row.tally.requests} requests, {row.tally.failed} failed, {row.held} held, {waited}")
        for problem in row.problems:
            self.say(f"   ✗ {problem}", "bold red")
        if not row.problems and row.outcome:
            self.say(f"   ✓ {row.outcome.text}", "green")

    def _show_change(self, name: str, before: str, after: str) -> None:
        for line in unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="", n=0):
            if line.startswith(("+++", "@@")):
                continue
            style = "red" if line.startswith("-") else "green"
            self.say(f"   {name}" if line.startswith("---") else f"   {line}", "cyan" if line[:3] == "---" else style)


def judge(samples: Sequence[Sample], known: Sequence[Sample], live: int | None) -> list[str]:
    """What is wrong with the requests of a step; nothing, if all is well.

    ``known`` are all samples so far. ``live`` is the generation that somebody must have been answered by.
    """
    errors = [sample.error for sample in samples if sample.error is not None]
    problems = errors[:SHOWN_ERRORS]
    if len(errors) > SHOWN_ERRORS:
        problems.append(f"… and {len(errors) - SHOWN_ERRORS} more requests failed")
    if late := old_after_new(known):
        problems.append(f"{len(late)} requests were answered by old code after new code had answered")
    if live is not None and not any(sample.generations and sample.generations.oldest == live for sample in samples):
        problems.append(f"nobody was answered by generation {live}")
    return problems

"""A run of steps against the service under load: what a step can do, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from difflib import unified_diff
from threading import Event
from time import monotonic
from typing import Any

import requests
from rich.console import Console
from rich.text import Text

from example_app.kill import kill
from example_app.load import Call, Generations, Load, Sample, Tally, lost_with, old_after_new, send
from example_app.server import GunicornServer, ServerError
from example_app.workers import Workers
from example_app.workload import Edition, Workload

SHOWN_ERRORS = 3


class StepError(Exception):
    """A step of the demo did not do what it should."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to: the generation that is live after it, a line for the table, the reports of its reloads."""

    generation: int
    text: str
    reports: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Step:
    """``act(story)`` runs in the middle of the load; raises :class:`StepError` if its own expectations fail."""

    title: str
    story: str
    act: Callable[[Story], Outcome]


@dataclass(frozen=True)
class Row:
    """A step, judged. ``held`` and ``pause_ms`` are the server's, the rest is the clients'.

    ``workers``
        How many processes have answered somebody.
    """

    title: str
    tally: Tally
    workers: int
    outcome: Outcome | None
    problems: tuple[str, ...]

    @property
    def held(self) -> int:
        """Requests that came while the lock was closed, and were answered after it opened."""
        return sum(int(report["drain"]["held"]) for report in self._reports())

    @property
    def pause_ms(self) -> float:
        """The longest of all reloads and workers."""
        return max((float(report["timings"]["pause_ms"]) for report in self._reports()), default=0.0)

    def _reports(self) -> tuple[dict[str, Any], ...]:
        return self.outcome.reports if self.outcome else ()


class Story:
    """The running service, its load, and the operator who edits, reloads and kills. ``seconds``: a step's length.

    ``generation``
        The one that should be live now.
    ``killed``
        The workers that have been killed.
    """

    def __init__(
        self,
        server: GunicornServer,
        workers: Workers,
        load: Load,
        workload: Workload,
        console: Console,
        *,
        seconds: float,
    ) -> None:
        self.server = server
        self.workers = workers
        self.load = load
        self.workload = workload
        self.console = console
        self.seconds = seconds
        self.rows: list[Row] = []
        self.generation = 0
        self.killed: set[int] = set()
        self._killed_ports: frozenset[int] = frozenset()
        self._alone: list[Sample] = []  # answers outside of the load: a committed reload counts as one, too
        self._never = Event()

    @property
    def servers(self) -> Sequence[GunicornServer]:
        """All that should run."""
        return (self.server,)

    @property
    def edition(self) -> Edition:
        """What the code that was announced last answers."""
        return self.workload.editions[-1]

    def play(self, step: Step) -> Row:
        """Run one step under the load and judge every request that was due meanwhile."""
        self.say(f"\n{step.title}: {step.story}", "bold")
        began = monotonic()
        outcome, problems = None, []
        try:
            self.watch(self.seconds / 3)
            outcome = step.act(self)
            self.watch(max(began + self.seconds - monotonic(), self.seconds / 3))
        except (StepError, ServerError) as failure:
            problems.append(str(failure))
        ended = monotonic()
        if not self.load.settle(ended):
            problems.append("some clients got no answer")
        samples = self._survivors(self.load.samples(began, ended))
        asked = [sample for sample in self._alone if sample.started >= began and sample.worker is not None]
        live = outcome.generation if outcome else None
        problems += judge([*samples, *asked], self.samples(), live, self._alike())
        workers = {sample.worker for sample in (*samples, *asked)} - {None}
        row = Row(step.title, Tally.of(samples), len(workers), outcome, tuple(problems))
        self.rows.append(row)
        self._show_verdict(row)
        return row

    def watch(self, seconds: float) -> None:
        """Let the load run on, with a live line where there is a terminal."""
        until = monotonic() + seconds
        with self.console.status("") as status:
            while (left := until - monotonic()) > 0:
                tally = Tally.of(self._survivors(self.load.samples()))
                wait = f"longest wait {tally.longest_wait * 1e3:.1f} ms"
                status.update(f"{tally.requests} requests, {tally.failed} failed, {wait}")
                self._never.wait(min(0.1, left))

    def announce(self, *, factor: Decimal | None = None, receipt: str | None = None) -> Edition:
        """From now on what the next generation answers is right, too: the same as now, but for what is given."""
        edition = replace(
            self.edition,
            generation=self.generation + 1,
            factor=self.edition.factor if factor is None else factor,
            receipt=self.edition.receipt if receipt is None else receipt,
        )
        self.workload.announce(edition)
        return edition

    def edit(self, name: str, old: str, new: str, *, quietly: bool = False) -> int:
        """Replace ``old`` in a file of the service, show the change, and return the number of its line."""
        path = self.server.folder / "example_app" / name
        before = path.read_text(encoding="utf-8")
        if before.count(old) != 1:
            raise StepError(f"{name} holds {old!r} {before.count(old)} times, not once")
        after = before.replace(old, new)
        path.write_text(after, encoding="utf-8")
        if not quietly:
            self._show_change(name, before, after)
        return before[: before.index(old)].count("\n") + 1

    def reload(self, document: dict[str, Any], *, quietly: bool = False) -> requests.Response:
        """``POST /_reload`` with the token to whichever worker takes it, whatever the answer."""
        if not quietly:
            self.say(f"   POST /_reload  {_told(document)}", "cyan")
        return self.ask("/_reload", document)

    def ask(self, path: str, document: dict[str, Any]) -> requests.Response:
        """``POST`` a document with the token to a control route; if it commits, that counts as an answer."""
        started = monotonic()
        try:
            answer = requests.post(
                f"{self.server.url}{path}",
                json=document,
                headers={"Authorization": f"Bearer {self.server.token}"},
                timeout=60.0,
            )
        except requests.RequestException as failure:
            raise StepError(f"POST {path}: {failure}") from failure
        if answer.status_code == 200:
            number = answer.json()["generation"]
            self._alone.append(Sample("/_reload", started, started, monotonic(), Generations(number, number)))
        return answer

    def commit(self, document: dict[str, Any], *, quietly: bool = False) -> dict[str, Any]:
        """Reload and return the report; :class:`StepError` unless the next generation is live on every worker."""
        return self.committed(self.reload(document, quietly=quietly))

    def committed(self, answer: requests.Response) -> dict[str, Any]:
        """The report; :class:`StepError` unless it tells that every worker has the next generation now."""
        if answer.status_code != 200:
            raise StepError(f"the reload was answered {answer.status_code}: {answer.text[:500]}")
        report: dict[str, Any] = answer.json()
        if report["status"] != "committed" or report["generation"] != self.generation + 1:
            raise StepError(f"the reload ended {report['status']} at generation {report['generation']}")
        took_part = {worker["pid"] for worker in report["workers"] if worker["ok"]}
        if took_part != self.workers.pids:
            raise StepError(f"workers {sorted(self.workers.pids)} should have changed, and {sorted(took_part)} did")
        self.generation = report["generation"]
        return report

    def ask_each(self) -> None:
        """Ask each worker for a conversion and a receipt: :class:`StepError` unless they are of what is live."""
        convert = self.workload.conversion("convert", Decimal("4321.00"), "EUR", "JPY")
        deposit = self.workload.deposit(0, "EUR", Decimal("1.00"))
        for pid in sorted(self.workers.pids):
            answers = [self.workers.send(pid, call) for call in (convert, deposit)]
            self._alone += answers
            for answer in answers:
                if answer.generations is None:
                    raise StepError(f"worker {pid}: {answer.error}")
            # An answer that several generations give alike is of any of them; one of the two tells.
            oldest = max(answer.generations.oldest for answer in answers if answer.generations)
            newest = min(answer.generations.newest for answer in answers if answer.generations)
            if newest != self.generation or oldest not in self._alike():
                raise StepError(f"worker {pid} answers as generation {oldest} to {newest}, not {self.generation}")

    def _alike(self) -> set[int]:
        """The generations that answer as the one that is live: after a rollback there are two."""
        live = self.edition
        return {
            each.generation
            for each in self.workload.editions
            if (each.factor, each.receipt) == (live.factor, live.receipt)
        } | {self.generation}

    def settle(self) -> None:
        """Wait until each request that was due by now has its answer."""
        if not self.load.settle(monotonic()):
            raise StepError("some clients got no answer")

    def begin(self, call: Call, *, timeout: float = 30.0) -> Future[Sample]:
        """Send one call in the background; return when the worker that has it says that it is inside."""
        pid = min(self.workers.pids)
        connection = self.workers.connect({pid})[pid]

        def send_alone() -> Sample:
            try:
                sample = send(connection, call)
                self._alone.append(sample)
                return sample
            finally:
                connection.close()

        executor = ThreadPoolExecutor(1, thread_name_prefix="slow-client")
        future = executor.submit(send_alone)
        executor.shutdown(wait=False)
        until = monotonic() + timeout
        while not any(reader["path"] == call.path for reader in self.workers.get(pid, "/_reload")["readers"]):
            if monotonic() > until or future.done():
                raise StepError(f"{call.path} was never seen in flight")
            self._never.wait(0.01)
        return future

    def kill_one(self) -> tuple[int, int]:
        """Kill a worker that serves clients; return its process id and its successor's, which takes part by now."""
        before = self.workers.pids
        served = [sample.worker for sample in self.load.samples() if sample.worker in before]
        victim = served[-1] if served else max(before)
        assert victim is not None
        self._killed_ports |= kill(victim, self.server.address[1])
        self.killed.add(victim)
        self.say(f"   SIGKILL {victim}", "cyan")
        self.workers.meet(without=self.killed)
        (successor,) = self.workers.pids - before
        return victim, successor

    def samples(self) -> list[Sample]:
        """Every request so far, those of :meth:`ask_each` and :meth:`begin` included."""
        return [*self.load.samples(), *self._alone]

    def lost(self) -> list[Sample]:
        """The killed workers' own requests: those that failed because the connection ended with its worker."""
        return lost_with(self.load.samples(), self._killed_ports)

    def say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style))

    def _survivors(self, samples: Sequence[Sample]) -> list[Sample]:
        lost = set(self.lost())
        return [sample for sample in samples if sample not in lost]

    def _show_verdict(self, row: Row) -> None:
        waited = f"longest wait {row.tally.longest_wait * 1e3:.1f} ms"
        by = f"{row.workers} workers" if row.workers != 1 else "1 worker"
        self.say(f"   {row.tally.requests} requests, {row.tally.failed} failed, {row.held} held, {waited}, by {by}")
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


def _told(document: dict[str, Any]) -> str:
    if not document.get("data"):
        return "the whole source"
    return f"{document['data'][0]['scriptPath']}: {', '.join(entry['dispatcher'] for entry in document['data'])}"


def judge(samples: Sequence[Sample], known: Sequence[Sample], live: int | None, alike: Set[int]) -> list[str]:
    """What is wrong with the requests of a step; nothing, if all is well.

    ``known`` are all samples so far. ``live`` is the generation that somebody must have been answered by,
    ``alike`` are those that answer the same.
    """
    errors = [sample.error for sample in samples if sample.error is not None]
    problems = errors[:SHOWN_ERRORS]
    if len(errors) > SHOWN_ERRORS:
        problems.append(f"… and {len(errors) - SHOWN_ERRORS} more requests failed")
    if late := old_after_new(known):
        problems.append(f"{len(late)} requests were answered by old code after new code had answered")
    given = [sample.generations for sample in samples if sample.generations]
    if live is not None and not any(each.oldest in alike and each.newest >= live for each in given):
        problems.append(f"nobody was answered by generation {live}")
    return problems

"""What the demos have in common: their options, the judgement at the end, and the table."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from example_app.server import ServerError, exit_on_sigterm
from example_app.story import Row, Story

WIDTH_OF_A_PIPE = 130
REQUESTS_PER_CONNECTION = 10
PATIENCE = 60.0  # seconds after which a request has failed; a busy machine must not decide


class Perform(Protocol):
    """Plays a demo and returns its exit status."""

    def __call__(self, console: Console, *, seconds: float, workers: int, clients: int, rate: float) -> int: ...


def run(perform: Perform, arguments: Sequence[str] | None, *, name: str, description: str, workers: int) -> int:
    """A demo as a command; its exit status. ``workers``: of each gunicorn, by default."""
    parser = ArgumentParser(prog=f"python -m example_app.{name}", description=description)
    parser.add_argument("--seconds-per-step", type=float, default=2.0, metavar="S", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=workers, metavar="N", help="of gunicorn, default: %(default)s")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=200.0, metavar="R", help="requests/s, default: %(default)s")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_A_PIPE)
    exit_on_sigterm()
    try:
        return perform(
            console,
            seconds=options.seconds_per_step,
            workers=options.workers,
            clients=options.clients,
            rate=options.rate,
        )
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130


def judged(story: Story, console: Console) -> int:
    """When the load has ended: print table and verdict, and where something failed the ends of the logs."""
    status = report(story.rows, closing_problems(story), console, lost=len(story.lost()))
    if status:
        for server in story.servers:
            console.print(f"\nThe end of gunicorn's log:\n{server.log_tail()}", markup=False)
    return status


def closing_problems(story: Story) -> list[str]:
    """Compare each ledger with the receipts that the clients hold, when the load has ended."""
    if not all(server.running for server in story.servers):
        return ["gunicorn ended before the demo did"]
    problems = []
    for pid in sorted(story.workers.pids):
        try:
            problems += story.workload.check_receipts(story.workers.post(pid, "/ledger/summary"))
        except ServerError as failure:
            problems.append(f"the ledger of {pid} does not answer: {failure}")
    gone = set(story.workload.tills) - story.workers.pids - story.killed
    return [*problems, *(f"till {pid} has gone, and nobody killed it" for pid in sorted(gone))]


def report(rows: Sequence[Row], problems: Sequence[str], console: Console, *, lost: int) -> int:
    """Print the table and the verdict; 0 if no row has a problem, no request failed and ``problems`` is empty.

    ``lost``: how many requests ended with the connections of the killed. They are in no row.
    """
    console.print()
    console.print(_table(rows))
    for problem in problems:
        console.print(f"✗ {problem}", style="bold red", markup=False)
    failed = sum(row.tally.failed for row in rows)
    if failed or problems or any(row.problems for row in rows):
        console.print(f"The demo failed: {failed} failed requests, see above.", style="bold red")
        return 1
    console.print(
        "Every answer was right to the cent, none was old after a new one; no ledger lost anything by a reload.",
        style="bold green",
    )
    if lost:
        console.print(f"Not counted above: {lost} requests that were lost with the connections of what was killed.")
    return 0


def _table(rows: Sequence[Row]) -> Table:
    table = Table(show_footer=True)
    waits = [row.tally.longest_wait for row in rows] or [0.0]
    last = rows[-1].outcome if rows else None
    table.add_column("Step", "Total", overflow="fold")
    table.add_column("Requests", str(sum(row.tally.requests for row in rows)), justify="right")
    table.add_column("Failed", str(sum(row.tally.failed for row in rows)), justify="right")
    table.add_column("Held", str(sum(row.held for row in rows)), justify="right")
    table.add_column("Longest wait", f"{max(waits) * 1e3:.1f} ms", justify="right")
    table.add_column("Pause", f"{max([row.pause_ms for row in rows] or [0.0]):.1f} ms", justify="right")
    table.add_column("Workers", "", justify="right")
    table.add_column("Generation", str(last.generation) if last else "–", justify="right")
    table.add_column("Outcome", "", overflow="fold")
    for row in rows:
        reloaded = row.outcome is not None and bool(row.outcome.reports)
        table.add_row(
            row.title,
            str(row.tally.requests),
            str(row.tally.failed),
            str(row.held) if reloaded else "–",
            f"{row.tally.longest_wait * 1e3:.1f} ms",
            f"{row.pause_ms:.1f} ms" if reloaded else "–",
            str(row.workers),
            str(row.outcome.generation) if row.outcome else "?",
            "FAILED" if row.problems or row.outcome is None else row.outcome.text,
            style="red" if row.problems else "",
        )
    return table

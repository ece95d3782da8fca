"""``python -m example_app.demo``: change the code of a service under load, and judge every answer.

A copy of the service runs under a real gunicorn with several workers in a temporary folder. Clients send a steady
load, check every answer to the cent, and watch that no old answer comes after a new one, whoever gives it. Meanwhile
the steps of ``steps.py`` edit its files, reload it, and kill a worker. The exit status is 0 if no request failed but
the killed worker's own, and every step did what it should; else 1.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from example_app.load import Load
from example_app.server import GunicornServer, ServerError, copy_service, exit_on_sigterm
from example_app.steps import FIRST, STEPS
from example_app.story import Row, Step, Story
from example_app.workers import Workers
from example_app.workload import Workload

WIDTH_OF_A_PIPE = 130
REQUESTS_PER_CONNECTION = 10
PATIENCE = 60.0  # seconds after which a request has failed; a busy machine must not decide


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; its exit status."""
    parser = ArgumentParser(prog="python -m example_app.demo", description="Reload a service under load.")
    parser.add_argument("--seconds-per-step", type=float, default=2.0, metavar="S", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="of gunicorn, default: %(default)s")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=200.0, metavar="R", help="requests/s, default: %(default)s")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_OF_A_PIPE)
    exit_on_sigterm()
    try:
        return perform(
            STEPS,
            console,
            seconds=options.seconds_per_step,
            workers=options.workers,
            clients=options.clients,
            rate=options.rate,
        )
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130


def perform(
    steps: Sequence[Step],
    console: Console,
    *,
    seconds: float,
    workers: int = 4,
    clients: int = 8,
    rate: float = 200.0,
) -> int:
    """Play the steps to a fresh copy of the service, print the table, and return the exit status."""
    with TemporaryDirectory(prefix="hotreload-demo-") as temporary:
        folder = Path(temporary)
        package = copy_service(folder)
        workload = Workload(package / "rates.csv", FIRST)
        try:
            with (
                GunicornServer(
                    folder,
                    workers=workers,
                    log=folder / "gunicorn.log",
                    temporary=folder / "temporary",
                    start_timeout=PATIENCE,
                ) as server,
                Workers(server, workers) as each,
            ):
                console.print(f"gunicorn serves a copy of example_app at {server.url}: {workers} workers")
                console.print(f"{clients} clients send {rate:g} requests a second")
                with Load(
                    server.address,
                    workload.calls,
                    clients=clients,
                    rate=rate,
                    timeout=PATIENCE,
                    requests_per_connection=REQUESTS_PER_CONNECTION,
                ) as load:
                    story = Story(server, each, load, workload, console, seconds=seconds)
                    for step in steps:
                        story.play(step)
                status = report(story.rows, closing_problems(story), console, lost=len(story.lost()))
                if status:
                    console.print(f"\nThe end of gunicorn's log:\n{server.log_tail()}", markup=False)
                return status
        except ServerError as failure:
            console.print(str(failure), markup=False)
            return 1


def closing_problems(story: Story) -> list[str]:
    """Compare each ledger with the receipts that the clients hold, when the load has ended."""
    if not story.server.running:
        return ["gunicorn ended before the demo did"]
    problems = []
    for pid in sorted(story.workers.pids):
        try:
            problems += story.workload.check_receipts(story.workers.post(pid, "/ledger/summary"))
        except ServerError as failure:
            problems.append(f"the ledger of {pid} does not answer: {failure}")
    gone = set(story.workload.tills) - story.workers.pids - story.killed
    return [*problems, *(f"till {pid} has gone, and nobody killed it" for pid in sorted(gone))]


def report(rows: Sequence[Row], problems: Sequence[str], console: Console, *, lost: int = 0) -> int:
    """Print the table and the verdict; 0 if no row has a problem, no request failed and ``problems`` is empty.

    ``lost``: how many requests ended with the killed worker's connections. They are in no row.
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
        console.print(f"Not counted above: {lost} requests that were lost with the connections of the killed worker.")
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


if __name__ == "__main__":
    sys.exit(main())

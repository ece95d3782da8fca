"""``python -m example_app.demo``: change the code of a service under load, and judge every answer.

A copy of the service runs under a real gunicorn with several workers in a temporary folder. Clients send a steady
load, check every answer to the cent, and watch that no old answer comes after a new one, whoever gives it. Meanwhile
the steps of ``steps.py`` edit its files, reload it, and kill a worker. The exit status is 0 if no request failed but
the killed worker's own, and every step did what it should; else 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from example_app.load import Load
from example_app.playing import PATIENCE, REQUESTS_PER_CONNECTION, judged, run
from example_app.server import GunicornServer, ServerError, copy_service
from example_app.steps import FIRST, STEPS
from example_app.story import Step, Story
from example_app.workers import Workers
from example_app.workload import Workload


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; its exit status."""
    return run(partial(perform, STEPS), arguments, name="demo", description="Reload a service under load.", workers=4)


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
                Workers([server], workers) as each,
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
                return judged(story, console)
        except ServerError as failure:
            console.print(str(failure), markup=False)
            return 1


if __name__ == "__main__":
    sys.exit(main())

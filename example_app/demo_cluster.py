"""``python -m example_app.demo_cluster``: change the code of several hosts at one instant, and judge every answer.

Three gunicorns, each with a folder and a port of its own, stand for three hosts, and meet in one real Redis. Clients
go from one to the next as by a load balancer, check every answer to the cent, and watch that no old answer comes
after a new one, whichever host gives it. Meanwhile the steps of ``cluster_steps.py`` edit the files of the first host
and reload it, kill another host, and kill Redis. The exit status is 0 if no request failed but the killed host's own,
and every step did what it should; else 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from example_app.cluster_steps import CLUSTER_STEPS
from example_app.cluster_story import ClusterStory
from example_app.hosts import Hosts
from example_app.load import Load
from example_app.playing import PATIENCE, REQUESTS_PER_CONNECTION, judged, run
from example_app.redis_server import RedisServer, RedisServerError
from example_app.server import PACKAGE, ServerError
from example_app.steps import FIRST
from example_app.story import Step
from example_app.workers import Workers
from example_app.workload import Workload

HOSTS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; its exit status."""
    return run(
        partial(perform, CLUSTER_STEPS),
        arguments,
        name="demo_cluster",
        description="Reload a service on three hosts under load.",
        workers=2,
    )


def perform(
    steps: Sequence[Step],
    console: Console,
    *,
    seconds: float,
    workers: int = 2,
    clients: int = 8,
    rate: float = 200.0,
) -> int:
    """Play the steps to fresh copies of the service, print the table, and return the exit status."""
    with TemporaryDirectory(prefix="hotreload-demo-") as temporary:
        folder = Path(temporary)
        workload = Workload(PACKAGE / "rates.csv", FIRST)
        try:
            with (
                RedisServer(folder / "redis") as redis,
                Hosts(folder, redis, number=HOSTS, workers=workers) as hosts,
                Workers(hosts.servers, HOSTS * workers) as each,
            ):
                for number, server in enumerate(hosts.servers, start=1):
                    console.print(f"host {number}: gunicorn serves its own copy of example_app at {server.url}")
                console.print(f"{workers} workers each, which meet in Redis at {redis.url}")
                console.print(f"{clients} clients send {rate:g} requests a second")
                first, *others = [server.address for server in hosts.servers]
                with Load(
                    first,
                    workload.calls,
                    others=others,
                    clients=clients,
                    rate=rate,
                    timeout=PATIENCE,
                    requests_per_connection=REQUESTS_PER_CONNECTION,
                ) as load:
                    story = ClusterStory(hosts, redis, each, load, workload, console, seconds=seconds)
                    for step in steps:
                        story.play(step)
                return judged(story, console)
        except (ServerError, RedisServerError) as failure:
            console.print(str(failure), markup=False)
            return 1


if __name__ == "__main__":
    sys.exit(main())

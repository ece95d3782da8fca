"""What a worker that boots later needs to catch up: after many reloads of one dispatcher, against after one."""

from __future__ import annotations

import os
import signal
from time import sleep

from bench.effort import amount
from bench.figure import Figure
from bench.spread import percentile
from bench.workers import APP, Workers, running

#: The worker measures itself, from having imported the application to being allowed to serve.
MEASURED = (
    APP.replace(
        "app = Flask(__name__)\n",
        """
import os
from flask_hotreload import boot
moments = []
boot.before_serving(lambda place: moments.append(time.monotonic()))
app = Flask(__name__)
""",
    )
    + """
boot.before_serving(lambda place: moments.append(time.monotonic()))

@rpc.dispatcher("/api")
def catching_up() -> dict:
    return {"pid": os.getpid(), "seconds": moments[1] - moments[0]}
"""
)


def measure() -> list[Figure]:
    many = amount(1000, quick_run=20)
    times = amount(15, quick_run=2)
    with running(2, app=MEASURED) as service:
        _reload(service, 1)
        after_one = _catch_up(service, times)
        _reload(service, many - 1)
        after_many = _catch_up(service, times)
    ratio = after_many / after_one
    return [
        Figure(
            f"catching up at boot after {many:,} reloads of one dispatcher, against after 1",
            f"{ratio:.2f} × ({after_many * 1000:.1f} ms against {after_one * 1000:.1f} ms)",
            "≤ 1.2 ×",
            ratio <= 1.2,
        )
    ]


def _reload(service: Workers, number: int) -> None:
    for _ in range(number):
        service.edit()
        service.reload()


def _catch_up(service: Workers, times: int) -> float:
    """Seconds, the median of workers that replace killed ones."""
    measured = []
    for _ in range(times):
        before = service.pids()
        os.kill(victim := max(before), signal.SIGKILL)
        while victim in service.pids():
            sleep(0.01)
        service.await_members(len(before))
        (fresh,) = service.pids() - before
        while (answer := service.ask("catching_up"))["pid"] != fresh:
            pass  # connections are given to workers as the kernel likes
        measured.append(answer["seconds"])
    return percentile(measured, 0.5)

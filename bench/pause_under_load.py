"""How much longer than its last request in flight a reload keeps a busy service closed.

Inside the server the moments are taken at which the gate closes, at which each request that was inside then leaves,
and at which the gate is open again. Closing until the last of them has left is what requests take; the rest is ours.
"""

from __future__ import annotations

from time import sleep

from bench.client import Load
from bench.effort import amount
from bench.figure import Figure
from bench.service import APP, ECHO, running
from bench.spread import percentile

#: Appended to the application: it takes the moments around three methods of the lock.
PROBE = """
from collections import deque
from time import perf_counter

left = deque(maxlen=1000)  # the moments at which requests left
marks = {}
lock = rpc._served.reloader.lock
release_read, close, open_ = lock.release_read, lock.close, lock.open

def releasing(slot):
    left.append(perf_counter())
    release_read(slot)

def closing(gate, **options):
    marks["closed"] = perf_counter()
    return close(gate, **options)

def opening(gate):
    open_(gate)
    marks["open"] = perf_counter()

lock.release_read, lock.close, lock.open = releasing, closing, opening

def excess() -> float:
    last = max((moment for moment in tuple(left) if moment <= marks["open"]), default=0.0)
    return marks["open"] - max(marks["closed"], last)

rpc.register_function(excess, "/api", name="count_excess")
"""


def measure() -> list[Figure]:
    number = amount(300, quick_run=10)
    with running(app=APP + PROBE) as service, Load(service.address, body=ECHO, connections=8) as load:
        sleep(1.0)
        beyond, pauses, in_flight = [], [], []
        for _ in range(number):
            service.edit()
            report = service.reload()
            pauses.append(report["timings"]["pause_ms"])
            in_flight.append(report["drain"]["in_flight"])
            beyond.append(service.call("count_excess") * 1000)
        samples = load.stop()
    median, rare = percentile(beyond, 0.5), percentile(beyond, 0.99)
    failed = sum(sample.failed for sample in samples)
    return [
        Figure(
            f"pause under 8 clients, beyond the last request in flight ({number} reloads)",
            f"p50 {median:.3f} ms, p99 {rare:.3f} ms; {failed} of {len(samples):,} requests failed",
            "p99 ≤ 2 ms",
            rare <= 2 and not failed,
        ),
        Figure(
            "the whole of that pause",
            f"p50 {percentile(pauses, 0.5):.3f} ms, p99 {percentile(pauses, 0.99):.3f} ms, "
            f"on average {sum(in_flight) / number:.1f} in flight",
            "",
            None,
        ),
    ]

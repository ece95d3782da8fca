"""The readers–writer lock by itself."""

from __future__ import annotations

from bench.effort import amount
from bench.figure import Figure
from bench.interleaved import interleaved
from flask_hotreload.rwlock import ReadersWriterLock, Slot


def measure() -> list[Figure]:
    lock = ReadersWriterLock()

    def acquire_and_release() -> None:
        slot = Slot()
        lock.acquire_read(slot)
        lock.release_read(slot)

    def nothing() -> None:
        pass

    sides = {"lock": acquire_and_release, "nothing": nothing}
    _, added = interleaved(sides, rounds=amount(200, quick_run=5), calls=5000)
    took = added("lock", "nothing")
    return [Figure("lock: acquire + release, uncontended", f"{took:.2f} µs", "≤ 0.4 µs", took <= 0.4)]

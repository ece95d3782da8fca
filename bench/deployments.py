"""The same change on four workers, by a reload, by gunicorn's HUP and by a second master (USR2): good and broken."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from bench.checked import Checked, CheckedLoad
from bench.effort import amount
from bench.figure import Figure
from bench.spread import milliseconds
from bench.workers import Workers, children, running
from example_app.load import Sample

WORKERS = 4
#: What importing the application takes; its libraries and models, not the changed file.
IMPORT_SECONDS = 1.0
#: What each worker keeps in memory.
MEGABYTES = 50
CLIENTS = 16
RATE = 150.0
PATIENCE = 60.0

TARGET = "0 failed, never mixed, state kept; broken code refused, and the service up"


def measure() -> list[Figure]:
    times = amount(3, quick_run=1)
    figures = []
    for name, deploy in (("a reload", _reload), ("gunicorn HUP", _hang_up), ("gunicorn USR2", _second_master)):
        for broken in (False, True):
            deployments = [_measure(deploy, broken=broken) for _ in range(times)]
            ours = deploy is _reload
            figures.append(
                Figure(
                    f"{'broken' if broken else 'good'} code by {name}, import of {IMPORT_SECONDS:g} s, {times} times",
                    _told(deployments),
                    TARGET if ours else "",
                    all(each.harmless(broken=broken) for each in deployments) if ours else None,
                )
            )
    return figures


@dataclass(frozen=True)
class _Deployment:
    """What one change did. ``mixed``: seconds from the first new answer to the start of the last old one.

    ``lost``: how many of its calls the service has forgotten; ``None``: it is down. ``memory``: bytes at the worst.
    """

    checked: Checked
    mixed: float
    lost: int | None
    changed: bool
    memory: int

    def harmless(self, *, broken: bool) -> bool:
        kept = not self.checked.verdict.failed and self.lost == 0
        return kept and not self.mixed and self.changed is not broken


def _measure(deploy: Callable[[Workers], None], *, broken: bool) -> _Deployment:
    with running(
        WORKERS,
        import_seconds=IMPORT_SECONDS,
        megabytes=MEGABYTES,
        coordinated=deploy is _reload,
        own_socket=True,
        keep_alive=0,  # as behind a proxy: each request may meet any worker
    ) as service:
        with (
            _Memory(service.master) as memory,
            CheckedLoad(service.address, clients=CLIENTS, rate=RATE, one_code=False, by="edition") as load,
        ):
            sleep(1.0)
            before = _calls(service)
            edition = service.edit(broken=broken)
            try:
                deploy(service)
            except (OSError, RuntimeError):
                pass  # the change was refused; what that did to the service is what is measured
            sleep(1.0)
            checked = load.stop()
        try:
            after = _calls(service)
            lost = sum(max(0, calls - after.get(pid, 0)) for pid, calls in before.items())
        except OSError:
            lost = None
        changed = any(sample.generations.newest == edition for sample in checked.samples if sample.generations)
        return _Deployment(checked, _mixed(checked.samples, edition), lost, changed, memory.peak)


def _mixed(samples: list[Sample], edition: int) -> float:
    new = [s.ended for s in samples if s.generations is not None and s.generations.newest == edition]
    old = [s.started for s in samples if s.generations is not None and s.generations.newest != edition]
    return max(0.0, max(old) - min(new)) if new and old else 0.0


def _told(deployments: list[_Deployment]) -> str:
    failed = sum(len(each.checked.verdict.failed) for each in deployments)
    requests = sum(each.checked.verdict.requests for each in deployments)
    longest = max(max(each.checked.waits) for each in deployments)
    down = sum(each.lost is None for each in deployments)
    lost = sum(each.lost or 0 for each in deployments)
    state = f"service down {down} times" if down else f"{lost:,} calls forgotten" if lost else "state kept"
    return (
        f"{failed} of {requests:,} failed, longest wait {milliseconds(longest)}, "
        f"mixed for {milliseconds(max(each.mixed for each in deployments))}, {state}, "
        f"at most {max(each.memory for each in deployments) / 1e6:.0f} MB"
    )


# The three ways ----------------------------------------------------------------------------------------------------


def _reload(service: Workers) -> None:
    service.reload()


def _hang_up(service: Workers) -> None:
    """HUP, and wait until only new workers are left, or nobody is."""
    old = service.pids()
    os.kill(service.master, signal.SIGHUP)
    _wait(lambda: not service.running or not service.pids() & old)


def _second_master(service: Workers) -> None:
    """USR2; when the second master's workers answer, end the first one, as the documentation says."""
    old = service.pids()
    os.kill(service.master, signal.SIGUSR2)
    _wait(lambda: bool(service.pids() - old))
    (second,) = service.pids() - old
    seen: set[int] = set()

    def all_answer() -> bool:
        seen.add(service.ask()["pid"])
        return len(children(second) & seen) == WORKERS

    _wait(lambda: all_answer() or second not in service.pids())
    if second in service.pids():
        os.kill(service.master, signal.SIGTERM)
        _wait(lambda: not service.running)
        service.master = second


def _wait(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not holds():
        if monotonic() > deadline:
            raise RuntimeError("what must happen does not")
        sleep(0.02)


def _calls(service: Workers) -> dict[int, int]:
    """How many calls each worker remembers, by process id. Raise ``OSError`` if nobody serves."""
    workers = service.pids()
    if not workers:
        raise OSError("nobody serves")
    return {told["pid"]: told["served"] for told in service.ask_each(workers)}


class _Memory:
    """A context manager: the most that all processes of a session have had in memory, shared pages counted once."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.peak = 0

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            self.peak = max(self.peak, sum(_proportional(process) for process in self._processes()))

    def _processes(self) -> list[Path]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if session == self._session:
                found.append(process)
        return found


def _proportional(process: Path) -> int:
    """Bytes in memory, each page divided by the number of processes that share it."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)

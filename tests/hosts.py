"""Hosts of one deployment: gunicorn masters with folders and ports of their own, which meet in one Redis server."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic
from typing import Any

from checker import Checker
from cluster import Cluster, cluster, service, state, until
from redis_server import RedisServer

from example_app.load import Sample, old_after_new

KEY = "0123456789abcdef-signing"
WHOLE: dict[str, object] = {}
#: A worker that goes on after it was stopped would else close connections as idle that hold a request; and one that
#: ends would wait for them.
OPTIONS = ("--keep-alive", "75", "--graceful-timeout", "1")


def redis_for(folder: Path, **options: str) -> RedisServer:
    """It has written what it acknowledges, so that this outlives its being killed. Whether it is on the disk, too,
    only a power cut would show; so no test waits for the disk.
    """
    return RedisServer(folder, appendfsync="no", **options)


class Host:
    """A folder with the application, and the gunicorn that serves it while it is started. Always reaped.

    ``env``: its configuration; ``options``: gunicorn's. It is used as the :class:`Cluster` that it runs.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        workers: int = 2,
        worker_class: str = "gthread",
        options: Sequence[str] = (),
        **env: str,
    ) -> None:
        folder.parent.mkdir()
        self.folder = service(folder)
        self.env = {"HOTRELOAD_COORDINATOR": url, "HOTRELOAD_SIGNING_KEY": KEY, "HOTRELOAD_RELEASE": "v1", **env}
        self._serving: dict[str, Any] = {"workers": workers, "worker_class": worker_class}
        self._options = options
        self._stack = ExitStack()
        self.running: Cluster | None = None

    def start(self) -> Host:
        options = (*OPTIONS, *self._options, "--chdir", str(self.folder))
        env = {name: value for name, value in self.env.items() if value}
        running = cluster(self.folder, env=env, options=options, **self._serving)
        self.running = self._stack.enter_context(running)
        return self

    def end(self) -> None:
        """As it should be."""
        self.running = None
        self._stack.close()

    def kill(self) -> None:
        """Kill the master, and wait until its workers have noticed and ended."""
        running, workers = self.running, self.workers()
        assert running is not None
        running.signal(signal.SIGKILL)
        until(lambda: all(state(pid) in ("Z", None) for pid in workers), "the orphans do not end")
        self.end()

    def __getattr__(self, name: str) -> Any:
        running = self.__dict__.get("running")
        if running is None:
            raise AttributeError(f"{name}: this host is not started")
        return getattr(running, name)

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(self, *exception: Any) -> None:
        self.running = None
        self._stack.__exit__(*exception)

    # Asking ------------------------------------------------------------------------------------------------------

    def health(self) -> dict[int, tuple[int, Any]]:
        """Status and answer of the health of each worker."""
        return self.each_worker(health)

    def each_worker(self, ask: Callable[[HTTPConnection], Any]) -> dict[int, Any]:
        """What ``ask(connection)`` returns, by process id."""
        found = {}
        for pid in self.workers():
            with self.connected_to(pid) as connection:
                found[pid] = ask(connection)
        return found


def health(connection: HTTPConnection) -> tuple[int, Any]:
    connection.request("GET", "/_reload/health")
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@contextmanager
def started(*hosts: Host) -> Iterator[Sequence[Host]]:
    """All at once, and met."""
    with ExitStack() as stack:
        with ThreadPoolExecutor(len(hosts)) as threads:
            starting = [threads.submit(host.start) for host in hosts]
            for host in hosts:
                stack.push(host)
        stack.callback(lambda: [host.signal(signal.SIGTERM) for host in hosts if host.running])  # all at once
        for each in starting:
            each.result()
        meet(hosts)
        yield hosts


def meet(hosts: Iterable[Host], *others: int) -> None:
    """Wait until every host lists all workers of these hosts, and ``others``, and nobody else."""
    hosts = list(hosts)

    def all_met() -> bool:
        everybody = {*others}.union(*(host.workers() for host in hosts))
        return all(
            set(members := host.members()) == everybody
            and len({members[pid]["generation"] for pid in everybody.difference(others)}) == 1
            for host in hosts
        )

    until(all_met, "they do not meet")


def served(hosts: Iterable[Host]) -> tuple[int, int]:
    """Edition and generation, which must be the same in every worker of all."""
    told = {(each["edition"], each["generation"]) for host in hosts for each in host.everywhere().values()}
    assert len(told) == 1, told
    return told.pop()


def all_well(hosts: Sequence[Host]) -> None:
    """Wait until all are members and healthy, and reach the store; nobody helps them."""
    meet(hosts)
    fine = (200, {"status": "ok"})
    for host in hosts:
        until(lambda host=host: set(map(_text, host.health().values())) == {_text(fine)}, "some do not recover")


def _text(answer: object) -> str:
    return json.dumps(answer)


def copy_sources(source: Host, target: Host) -> None:
    """Deploy the files of one host to another."""
    for file in source.folder.glob("*.py"):
        shutil.copy(file, target.folder / file.name)


def pids_of(report: Mapping[str, Any]) -> set[int]:
    return {worker["pid"] for worker in report["workers"] if worker["ok"]}


# The checker over all hosts --------------------------------------------------------------------------------------


@dataclass
class Window:
    """From when until when an exception is allowed to a host."""

    host: Host
    begins: float = field(default_factory=monotonic)
    ends: float = float("inf")

    def holds(self, moment: float) -> bool:
        return self.begins <= moment <= self.ends


class AllChecker:
    """A context manager: a :class:`Checker` at each host, and one verdict over all of them.

    Rules are those of the checker, without exception but in the windows that a test opens by :meth:`may_go_back` and
    :meth:`loses`.
    """

    def __init__(self, hosts: Sequence[Host], *, clients: int = 6, rate: float = 40.0) -> None:
        self._hosts = list(hosts)
        self._options: dict[str, Any] = {"clients": clients, "rate": rate}
        self._editions: dict[int, int] = {}
        self._checkers: dict[Host, Checker] = {}
        self._ended: list[tuple[Checker, Window]] = []
        self._going_back: list[Window] = []
        self._stack = ExitStack()

    def __enter__(self) -> AllChecker:
        for host in self._hosts:
            self._begin(host)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, host: Host) -> None:
        checker = Checker(host.address, editions=self._editions, **self._options)
        self._checkers[host] = self._stack.enter_context(checker)

    def another_round(self) -> None:
        for checker in self._checkers.values():
            checker.another_round()

    def connected(self, host: Host) -> set[int]:
        """The workers of the host to which clients are connected."""
        return self._checkers[host].connected()

    @contextmanager
    def loses(self, host: Host) -> Iterator[None]:
        """Inside, ``host`` is killed and started again: what breaks at it meanwhile is its own."""
        checker, window = self._checkers.pop(host), Window(host)
        yield
        checker.__exit__()
        window.ends = monotonic()
        self._ended.append((checker, window))
        self._begin(host)

    @contextmanager
    def may_go_back(self, *hosts: Host) -> Iterator[None]:
        """Inside, these may answer by an older generation than others have: what makes them is a stated exception."""
        windows = [Window(host) for host in hosts]
        self._going_back += windows
        yield
        for window in windows:
            window.ends = monotonic()

    def _samples(self) -> dict[Sample, Host]:
        checkers = [(window.host, checker) for checker, window in self._ended] + [*self._checkers.items()]
        return {sample: host for host, checker in checkers for sample in checker.samples()}

    def assert_clean(self) -> list[Sample]:
        """Return all samples."""
        lost = {
            sample
            for checker, window in self._ended
            for sample in checker.samples()
            if window.holds(sample.ended) and _broke(sample)
        }
        host_of = self._samples()
        samples = list(host_of)
        assert samples, "nothing was asked"
        failed = [sample for sample in samples if sample.error is not None and sample not in lost]
        assert not failed, f"{len(failed)} of {len(samples)} failed: {[sample.error for sample in failed[:5]]}"
        late = [sample for sample in old_after_new(samples) if not self._may_be_late(sample, host_of[sample])]
        assert not late, f"{len(late)} of {len(samples)} were answered by an old generation: {late[:3]}"
        return samples

    def _may_be_late(self, sample: Sample, host: Host) -> bool:
        return any(window.host is host and window.holds(sample.started) for window in self._going_back)


def _broke(sample: Sample) -> bool:
    """Whether its connection ended, or could not be made."""
    return sample.disconnected or sample.port is None

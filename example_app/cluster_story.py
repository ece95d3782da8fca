"""A run of steps against several hosts that meet in Redis: what a step can do beside what it can do to one host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from example_app.hosts import Hosts
from example_app.load import Load, Sample
from example_app.playing import PATIENCE
from example_app.redis_server import RedisServer
from example_app.server import GunicornServer
from example_app.story import StepError, Story
from example_app.workers import Workers
from example_app.workload import Workload


class ClusterStory(Story):
    """``server``, which is edited and asked, is the first host. ``load`` goes to all of them."""

    def __init__(
        self,
        hosts: Hosts,
        redis: RedisServer,
        workers: Workers,
        load: Load,
        workload: Workload,
        console: Console,
        *,
        seconds: float,
    ) -> None:
        super().__init__(hosts.servers[0], workers, load, workload, console, seconds=seconds)
        self.hosts = hosts
        self.redis = redis

    @property
    def servers(self) -> Sequence[GunicornServer]:
        return self.hosts.servers

    def files(self, host: int) -> dict[str, bytes]:
        """The sources on the disk of a host."""
        return {path.name: path.read_bytes() for path in _sources(self.hosts.folder(host))}

    def kill_host(self, index: int) -> frozenset[int]:
        """SIGKILL a master with its workers; return who is gone, when the others know it."""
        server, before = self.hosts.servers[index], self.workers.pids
        self.say(f"   SIGKILL {server.process.pid} and its workers", "cyan")
        began = monotonic()
        server.kill()
        self.load.addresses.remove(server.address)
        self.workers.number -= self.workers.number // len(self.servers)
        self.workers.meet()
        if not self.load.settle(monotonic()):  # by now every client has met with the end of its connection
            raise StepError("some clients got no answer")
        since = [sample for sample in self.load.samples() if sample.ended >= began]  # some were due before
        self._killed_ports |= _ended(since, server.address[1])
        gone = before - self.workers.pids
        self.killed |= gone
        return gone

    def start_host(self, index: int) -> frozenset[int]:
        """Start a killed host again; return its workers when they take part. Only then it gets requests."""
        before = self.workers.pids
        self.hosts.start_again(index)
        self.workers.number += self.workers.number // (len(self.servers) - 1)
        self.workers.meet(without=self.killed)
        self.load.addresses.append(self.hosts.servers[index].address)
        return self.workers.pids - before

    def kill_redis(self) -> None:
        """Return when every worker says of itself that the store is away."""
        if not self.redis.runs:
            raise StepError("Redis does not run")
        self.say(f"   SIGKILL {self.redis.pid}, the Redis server", "cyan")
        self.redis.kill()
        self._await_each(lambda told: told.get("store") == "away", "does not notice that the store is away")

    def start_redis(self, *, with_data: bool) -> None:
        """Return when all take part again."""
        if not with_data:
            self.redis.forget()
        self.say(f"   Redis is started again, with{'' if with_data else 'out'} its data", "cyan")
        self.redis.start()
        self.workers.meet()
        self._await_each(lambda told: "store" not in told, "does not notice that the store is back")

    def _await_each(self, is_so: Callable[[dict[str, Any]], bool], problem: str) -> None:
        until = monotonic() + PATIENCE
        for pid in sorted(self.workers.pids):
            while not is_so(self.workers.get(pid, "/_reload/health")):
                if monotonic() > until:
                    raise StepError(f"worker {pid} {problem}")
                self._never.wait(0.02)


def _sources(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.py"))


def _ended(samples: Sequence[Sample], server: int) -> frozenset[int]:
    """The clients' ports of the connections to a server that have ended."""
    return frozenset(
        sample.port
        for sample in samples
        if sample.port is not None and sample.disconnected and sample.server == server
    )

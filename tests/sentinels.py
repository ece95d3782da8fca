"""A Redis master with a replica, and the Sentinel that makes the latter the master when the former is away."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import redis
from cluster import until
from hosts import redis_for
from redis_server import binary, free_port

SERVICE = "main"


class Watched:
    """A context manager. ``master`` and ``replica``: as they begin."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.master = redis_for(folder / "master")
        self.replica = redis_for(folder / "replica", replicaof=f"127.0.0.1 {self.master.port}")
        self._port = free_port()
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self._port}/{SERVICE}"

    def __enter__(self) -> Watched:
        with ExitStack() as stack:
            stack.enter_context(self.master)
            stack.enter_context(self.replica)
            until(lambda: b"master_link_status:up" in self.replica.ask(b"INFO", b"replication"), "it does not follow")
            self._start_sentinel(stack)
            until(lambda: self._tells("num-slaves") == "1", "the Sentinel does not know the replica")
            self._stack = stack.pop_all()
        return self

    def _start_sentinel(self, stack: ExitStack) -> None:
        configuration = self._folder / "sentinel.conf"
        configuration.write_text(
            f"port {self._port}\nbind 127.0.0.1\ndir {self._folder}\nlogfile {self._folder}/sentinel.log\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 3000\n"
        )
        process = subprocess.Popen([binary(), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)

    def _tells(self, what: str) -> str | None:
        """What the Sentinel tells of the service; ``None`` while it does not."""
        try:
            with closing(redis.Redis(port=self._port, decode_responses=True)) as client:
                answer = client.execute_command("SENTINEL", "MASTER", SERVICE)
        except redis.ConnectionError:
            return None
        told = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
        return str(told[what])

    def fail_over(self) -> None:
        """Kill the master, and wait until the Sentinel names the replica instead."""
        self.master.kill()
        until(lambda: self._tells("port") == str(self.replica.port), "there is no other master")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

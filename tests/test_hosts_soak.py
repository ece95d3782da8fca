"""Many reloads under load on three hosts, while whatever can be killed is killed and whatever can stop stops.

Nobody is refused but by a host that is killed, and nobody gets an old answer after a new one, on any host; with the
exception, told where it is allowed, of a Redis that loses what it has acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import pytest
from cluster import DOCUMENT, until, write_edition
from hosts import WHOLE, AllChecker, Host, all_well, copy_sources, pids_of, redis_for, served, started
from redis_server import RedisServer

pytestmark = pytest.mark.alone

BROKEN = "\nraise RuntimeError('broken on purpose')\n"
EVERYBODY = 6


class Soak:
    """``hosts`` under the eyes of ``checker``. Each edition is written once, so that no code comes back unseen."""

    def __init__(self, hosts: list[Host], redis: RedisServer, checker: AllChecker) -> None:
        self.hosts = hosts
        self.redis = redis
        self.checker = checker
        self.reloads = 0
        self._editions = count(1)
        self._turns = count()

    def next_host(self) -> Host:
        return self.hosts[next(self._turns) % len(self.hosts)]

    def edit(self, host: Host, *, extra: str = "") -> int:
        edition = next(self._editions)
        host.edit(edition, extra=extra)
        return edition

    def reload(self, host: Host | None = None, *, everybody: int = EVERYBODY, document=DOCUMENT) -> None:
        """One that must be committed, on all that live."""
        host = host or self.next_host()
        edition = self.edit(host)
        report = host.reload(document)
        assert len(pids_of(report)) == everybody, report["workers"]
        assert host.call("where")["edition"] == edition
        self.reloads += 1

    # What happens in between -----------------------------------------------------------------------------------

    def broken_code_is_refused(self) -> None:
        before = served(self.hosts)
        for host in self.hosts:
            self.edit(host, extra=BROKEN)
            status, problem = host.post_reload()
            error = problem["report"]["error"]
            line = len((host.folder / "where.py").read_text().splitlines())
            assert (status, error["file"], error["line"]) == (422, str(host.folder / "where.py"), line)
        assert served(self.hosts) == before

    def a_whole_source_of_one_host(self) -> None:
        one = self.next_host()
        edition = self.edit(one, extra="\nimport fresh\nEDITION = fresh.VALUE\n")
        (one.folder / "fresh.py").write_text(f"VALUE = {edition}\n")
        assert len(pids_of(one.reload(WHOLE))) == EVERYBODY
        assert served(self.hosts)[0] == edition
        self.reloads += 1

    def a_rollback(self) -> None:
        before = served(self.hosts)
        self.reload()
        status, report = self.next_host().request("POST", "/_reload/rollback", {})
        assert (status, len(pids_of(report))) == (200, EVERYBODY), report
        assert served(self.hosts) == (before[0], report["generation"])
        self.reloads += 1

    def a_worker_is_stopped_for_longer_than_its_lease(self) -> None:
        stopped, other = self.hosts[1], self.hosts[2]
        worker = max(self.checker.connected(stopped))  # so that clients wait for it
        stopped.stop(worker)
        until(lambda: worker not in other.members(), "its lease does not run out")
        self.reload(other, everybody=EVERYBODY - 1)
        stopped.resume(worker)
        all_well(self.hosts)

    def a_host_is_killed_and_comes_back(self) -> None:
        killed, other = self.hosts[2], self.hosts[0]
        with self.checker.loses(killed):
            orphans = killed.workers()
            killed.kill()
            until(lambda: not orphans & set(other.members()), "its leases do not run out")
            self.reload(other, everybody=EVERYBODY - 2)
            copy_sources(other, killed)  # it may be started only from files that can be imported
            write_edition(killed.folder, next(self._editions))  # what is on its disk is not what is committed
            killed.start()
            all_well(self.hosts)
        assert served(self.hosts)[0] == other.call("where")["edition"]

    def redis_is_killed_in_the_middle_of_a_reload(self) -> None:
        before = served(self.hosts)
        self._during_a_reload(self.redis.restart)
        assert served(self.hosts)[1] - before[1] in (0, 1)

    def redis_is_killed_in_the_middle_of_a_reload_and_comes_back_empty(self) -> None:
        before = served(self.hosts)
        with self.checker.may_go_back(*self.hosts):  # a store that loses what it has acknowledged
            self._during_a_reload(lambda: self.redis.restart(with_data=False))
        assert served(self.hosts)[1] - before[1] in (0, 1)

    def _during_a_reload(self, happens: Callable[[], object]) -> None:
        host = self.next_host()
        self.edit(host)
        with ThreadPoolExecutor(1) as thread:
            answer: Future[tuple[int, dict]] = thread.submit(host.post_reload)
            happens()
            status, told = answer.result(60)
        assert status in (200, 503), (status, told)
        all_well(self.hosts)

    def everything(self) -> list[Callable[[], None]]:
        return [
            self.broken_code_is_refused,
            self.a_whole_source_of_one_host,
            self.a_rollback,
            self.a_worker_is_stopped_for_longer_than_its_lease,
            self.redis_is_killed_in_the_middle_of_a_reload,
            self.a_host_is_killed_and_comes_back,
            self.redis_is_killed_in_the_middle_of_a_reload_and_comes_back_empty,
        ]


def run(tmp_path, number: int) -> None:
    """``number`` reloads, and everything else spread over them; seven times over, where there is room for it."""
    with redis_for(tmp_path / "redis") as redis:
        made = [Host(tmp_path / f"host{n}" / "shop", redis.url) for n in range(3)]
        with started(*made) as hosts, AllChecker(hosts) as checker:
            soak = Soak(list(hosts), redis, checker)
            happenings = soak.everything() * max(1, number // 50)
            for done, happens in enumerate(happenings, 1):
                happens()
                while soak.reloads < number * done // len(happenings):
                    soak.reload()
            checker.another_round()
            served(hosts)
        samples = checker.assert_clean()
        longest = max(sample.wait for sample in samples if sample.error is None)
        print(f"{len(samples)} requests over {soak.reloads} reloads; longest wait {longest * 1000:.1f} ms")


def test_reloads_under_load_on_three_hosts_lose_nobody_and_never_go_back_whatever_fails(tmp_path):
    run(tmp_path, 20)


@pytest.mark.long
def test_two_hundred_reloads_under_load_on_three_hosts_lose_nobody_and_never_go_back_whatever_fails(tmp_path):
    run(tmp_path, 200)

"""Three hosts that meet in one Redis: what they promise when it, or one of them, is away."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import pytest
from checker import BODY
from cluster import DOCUMENT, until, write_edition
from fault_proxy import FaultProxy
from hosts import WHOLE, AllChecker, Host, all_well, pids_of, redis_for, served, started
from stopping import Stop

from flask_hotreload.coordination.redis import LEASE

pytestmark = pytest.mark.alone

#: Seconds in which a reload is answered whose store is away: its deadline and a call's time-out lie below.
BOUND = 10.0
AWAY = {"status": "ok", "store": "away"}


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_for(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(redis):
    """What the third host sees of Redis."""
    with FaultProxy(redis.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def three(tmp_path_factory, redis, proxy):
    """Three hosts, which each test leaves as it found them: all well, and agreed."""
    folder = tmp_path_factory.mktemp("hosts")
    stops = folder / "stops"
    stops.mkdir()
    through = f"redis://127.0.0.1:{proxy.port}/0"
    env = {"CLUSTER_STOPS": str(stops), "HOTRELOAD_IN_DOUBT": "1.5"}
    urls = redis.url, redis.unix_url, through
    with started(*(Host(folder / f"host{n}" / "shop", url, **env) for n, url in enumerate(urls, 1))) as hosts:
        yield hosts


@pytest.fixture
def hosts(three, redis, proxy):
    """The three, after one more reload. What they log is shown if the test fails; what it leaves broken is mended."""
    before = [len(host.logged()) for host in three]
    reload(three[0])
    yield three
    proxy.heal()
    if not redis.runs:
        redis.start()
    for host, length in zip(three, before, strict=True):
        print(f"--- log of {host.folder} ---\n{host.logged()[length:]}")


def reload(host, document=DOCUMENT, **more):
    """Edit and reload on this host; return edition and generation of what is then served."""
    generation = host.call("where")["generation"] + 1
    edition = 1000 + generation
    host.edit(edition, **more)
    report = host.reload(document)
    assert report["generation"] == generation, report
    return edition, generation


def away(host):
    """Wait until all workers of the host know that the store is away."""
    told = until(lambda: all(answer == (200, AWAY) for answer in host.health().values()), "they do not notice")
    assert told


def test_what_is_changed_on_one_host_is_served_on_all_at_once(hosts):
    with AllChecker(hosts) as checker:
        for host in hosts:
            assert served(hosts) != (now := reload(host))
            assert served(hosts) == now
        hosts[1].edit(5, extra="import fresh\nEDITION = fresh.VALUE\n")
        (hosts[1].folder / "fresh.py").write_text("VALUE = 4711\n")
        report = hosts[1].reload(WHOLE)
        assert len(pids_of(report)) == 6
        assert served(hosts)[0] == 4711
        assert hosts[2].request("POST", "/_reload/rollback", {})[0] == 200
        assert served(hosts)[0] == now[0]
        (hosts[1].folder / "fresh.py").unlink()
    checker.assert_clean()


def test_code_that_does_not_import_is_refused_with_file_and_line_on_whichever_host_it_lies(hosts):
    before = served(hosts)
    with AllChecker(hosts) as checker:
        for host in hosts:
            for document in (DOCUMENT, WHOLE):
                host.edit(7, extra="\nraise RuntimeError('broken on purpose')\n")
                status, problem = host.post_reload(document)
                error = problem["report"]["error"]
                line = len((host.folder / "where.py").read_text().splitlines())
                assert (status, error["file"], error["line"]) == (422, str(host.folder / "where.py"), line)
        assert served(hosts) == before
    checker.assert_clean()


@pytest.mark.parametrize("with_data", [pytest.param(True, marks=pytest.mark.long), False])
def test_without_redis_requests_go_on_and_reloads_are_refused_in_time_and_with_it_all_agree(hosts, redis, with_data):
    before = served(hosts)
    with AllChecker(hosts) as checker:
        redis.kill()
        asked = monotonic()
        for host in hosts:
            away(host)
            host.edit(3)
            status, problem = host.post_reload()
            assert (status, problem["report"]["error"]["type"]) == (503, "StoreUnavailable"), problem
            assert host.status()["held"] == 0
        assert monotonic() - asked < len(hosts) * BOUND
        checker.another_round()
        assert served(hosts) == before
        redis.restart(with_data=with_data)
        all_well(hosts)
        assert served(hosts) == before
        for host in hosts:
            now = reload(host)
            assert served(hosts) == now
    samples = checker.assert_clean()
    assert max(sample.wait for sample in samples) < BOUND / 2


def test_a_host_that_starts_without_redis_serves_its_disk_says_so_and_catches_up(hosts, redis):
    before = served(hosts)
    redis.kill()
    third = hosts[2]
    third.end()
    write_edition(third.folder, 9)
    third.start()
    for answer in third.health().values():
        assert answer[0] == 503, answer
        assert "Redis" in answer[1]["detail"]
    assert {each["edition"] for each in third.everywhere().values()} == {9}
    assert third.status()["workers"][0]["state"] == "behind"
    redis.restart()
    all_well(hosts)
    assert served(hosts) == before


def test_a_stopped_worker_answers_by_what_the_others_have_committed_meanwhile(hosts):
    late = max(hosts[2].workers())
    with AllChecker(hosts) as checker, hosts[2].connected_to(late) as connection:
        hosts[2].stop(late)
        until(lambda: late not in hosts[0].members(), "its lease does not run out", seconds=2 * LEASE + 5)
        edition, generation = reload(hosts[0])
        assert hosts[1].call("where")["generation"] == generation
        connection.request("POST", "/api", BODY, {"Content-Type": "application/json"})
        hosts[2].resume(late)
        answer = json.loads(connection.getresponse().read())["result"]
        assert (answer["pid"], answer["edition"], answer["generation"]) == (late, edition, generation)
        all_well(hosts)
    checker.assert_clean()


@contextmanager
def asked_and_voted(hosts):
    """A reload that the first host was asked for, once all have voted yes, and before it is decided.

    Yields how to go on; that returns the future of status and answer.
    """
    coordinator = min(hosts[0].workers())
    stop = Stop(hosts[0].folder.parents[1] / "stops", coordinator, "coordinator.before-commit")
    generation = hosts[0].call("where")["generation"] + 1
    hosts[0].edit(1000 + generation)
    with hosts[0].connected_to(coordinator) as connection, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(hosts[0].post_reload, DOCUMENT, connection=connection)
        stop.await_reached()

        def go_on():
            stop.let_go()
            return answer

        yield go_on


@pytest.mark.parametrize(
    "redis_is", ["back at once", pytest.param("back without data", marks=pytest.mark.long), "away for long"]
)
def test_in_doubt_all_decide_the_same_and_open_in_bounded_time(hosts, redis, redis_is):
    edition, generation = served(hosts)
    with AllChecker(hosts) as checker:
        with asked_and_voted(hosts) as go_on:
            redis.kill()
            if redis_is == "back without data":
                redis.forget()
            if redis_is != "away for long":
                redis.start()
            answer = go_on()
            status, told = answer.result(BOUND)
        if redis_is == "away for long":
            checker.another_round()  # held no longer: nobody knows, all serve what they did
            assert served(hosts) == (edition, generation)
            for host in hosts:
                away(host)
                assert "in doubt" in host.logged()
            redis.start()
        all_well(hosts)
        assert status == 503, told  # what a crash has robbed of votes can only be aborted
        assert served(hosts) == (edition, generation)
        now = hosts[1].post_reload()
        assert now[0] == 200, now
    samples = checker.assert_clean()
    assert max(sample.wait for sample in samples) < BOUND


@pytest.mark.long
def test_a_host_that_loses_redis_after_its_votes_serves_the_old_and_says_so_and_is_passed_by_and_catches_up(
    hosts, proxy
):
    edition, generation = served(hosts)
    one, two, three = hosts
    with AllChecker(hosts) as checker:
        with checker.may_go_back(three):
            with asked_and_voted(hosts) as go_on:
                proxy.swallows = True
                answer = go_on()
                assert answer.result(BOUND)[0] == 200
            assert served([one, two]) == (1000 + generation + 1, generation + 1)
            away(three)
            until(lambda: served([three]) == (edition, generation), "its locks do not open")
            assert "in doubt" in three.logged()
            until(lambda: not three.workers() & set(one.members()), "its leases do not run out")
            now = reload(two)
            assert served([one, two]) == now
            assert three.post_reload()[0] == 503
            proxy.swallows = False
            all_well(hosts)
        assert served(hosts) == now
        now = reload(three)
        assert served(hosts) == now
    checker.assert_clean()

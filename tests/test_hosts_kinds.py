"""Servers of every kind that meet in one Redis."""

from __future__ import annotations

import json
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from checker import BODY
from cluster import DOCUMENT, TOKEN, service, until, write_edition
from hosts import KEY, WHOLE, AllChecker, Host, pids_of, redis_for, served, started
from servers import serve

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_for(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def hosts(tmp_path_factory, redis):
    folder = tmp_path_factory.mktemp("hosts")
    kinds = [{"worker_class": "sync"}, {"worker_class": "gevent"}, {"options": ("--preload",)}]
    each = (Host(folder / f"host{n}" / "shop", redis.url, **kind) for n, kind in enumerate(kinds, 1))
    with started(*each) as hosts:
        yield hosts


def test_workers_of_every_class_and_of_a_preloaded_application_change_at_once(hosts):
    editions = iter(range(10, 100))
    with AllChecker(hosts) as checker:
        for host in hosts:
            for document in (DOCUMENT, WHOLE):
                host.edit(edition := next(editions))
                report = host.reload(document)
                assert pids_of(report) == set().union(*(each.workers() for each in hosts))
                assert served(hosts) == (edition, report["generation"])
        for host in hosts:
            before = served(hosts)
            host.edit(next(editions), extra="\nraise RuntimeError('broken on purpose')\n")
            assert host.post_reload(WHOLE)[0] == 422
            assert served(hosts) == before
        for host in hosts:
            assert host.request("POST", "/_reload/rollback", {})[0] == 200
        assert served(hosts)[0] == edition - len(hosts)
    checker.assert_clean()


@pytest.mark.parametrize(
    "host", [pytest.param(0, marks=pytest.mark.long), 1, pytest.param(2, marks=pytest.mark.long)]
)
def test_a_worker_of_any_class_that_takes_the_place_of_one_that_was_killed_serves_what_was_committed(hosts, host):
    hosts[host].edit(500 + host)
    report = hosts[host].reload()
    hosts[host].running.kill(killed := min(hosts[host].workers()))
    until(lambda: len(hosts[host].workers() - {killed}) == 2, "nobody takes its place")
    until(lambda: served(hosts) == (500 + host, report["generation"]), "it does not serve what was committed")


def asked(server, method, path, document=None):
    """Status and JSON of the answer."""
    connection = HTTPConnection(server.host, server.port, timeout=30)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request(method, path, document if isinstance(document, bytes) else json.dumps(document), headers)
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_servers_of_one_process_meet_there_too(tmp_path, redis):
    env = {
        "HOTRELOAD_COORDINATOR": redis.url,
        "HOTRELOAD_SIGNING_KEY": KEY,
        "HOTRELOAD_RELEASE": "v1",
        "HOTRELOAD_DEPLOYMENT": "of one process",
        "HOTRELOAD_TOKEN": TOKEN,
    }
    with ExitStack() as stack:
        folders, servers = [], []
        for kind in ("flask", "waitress"):
            (tmp_path / kind).mkdir()
            folders.append(service(tmp_path / kind / "shop"))
            serving = serve(kind, app="app:app", cwd=folders[-1], env=env, ready="/health")
            servers.append(stack.enter_context(serving))

        def all_met():
            workers = asked(servers[0], "GET", "/_reload")[1]["workers"]
            return {worker["pid"] for worker in workers} == {server.pid for server in servers}

        until(all_met, "they do not meet")
        for number, (folder, server) in enumerate(zip(folders, servers, strict=True), 1):
            write_edition(folder, number)
            status, report = asked(server, "POST", "/_reload", DOCUMENT)
            assert (status, len(report["workers"])) == (200, 2)
            told = [asked(each, "POST", "/api", BODY)[1]["result"] for each in servers]
            assert [(each["edition"], each["generation"]) for each in told] == [(number, report["generation"])] * 2

"""Which workers of which hosts belong together: by release, by deployment, by key."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from cluster import DOCUMENT, until, write_edition
from hosts import KEY, WHOLE, AllChecker, Host, all_well, copy_sources, meet, pids_of, redis_for, served, started

pytestmark = pytest.mark.alone

BY_SOURCES = {"HOTRELOAD_RELEASE": ""}


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_for(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def both(tmp_path_factory, redis):
    """Two hosts with the same files, by which they know their release."""
    folder = tmp_path_factory.mktemp("hosts")
    with started(*(Host(folder / f"host{n}" / "shop", redis.url, workers=1, **BY_SOURCES) for n in (1, 2))) as hosts:
        yield hosts


@pytest.fixture
def pair(both):
    """The two, that agree on what this test has reloaded."""
    reload(both[0], WHOLE)
    return both


@pytest.fixture
def third(tmp_path, redis):
    """Start another host, with files of this edition, beside those that run."""

    @contextmanager
    def third(edition, **env):
        host = Host(tmp_path / "host3" / "shop", redis.url, **env)
        write_edition(host.folder, edition)
        with host:
            yield host

    return third


def reload(running, document=DOCUMENT):
    """Return the report, and edition and generation of what is then served."""
    edition = 100 + running.call("where")["generation"]
    running.edit(edition)
    report = running.reload(document)
    return report, (edition, report["generation"])


def everybody_of(*hosts):
    return set().union(*(host.workers() for host in hosts))


def test_in_a_rolling_deploy_each_release_keeps_its_code_and_a_reload_moves_that_of_the_worker_asked(pair, third):
    before, release = served(pair), pair[0].status()["release"]
    with AllChecker(pair) as checker, third(7, **BY_SOURCES) as new:
        hosts = (*pair, new)
        until(lambda: all(set(each.members()) == everybody_of(*hosts) for each in hosts), "they do not meet")
        assert served(pair) == before
        assert served([new])[0] == 7
        for host in hosts:
            told = {pid: member["release"] for pid, member in host.members().items()}
            assert {pid for pid in told if told[pid] == release} == everybody_of(*pair)
            assert {pid for pid in told if told[pid] == new.status()["release"]} == new.workers()
        report, now = reload(pair[1])
        assert pids_of(report) == everybody_of(*pair)
        assert served(pair) == now
        assert served([new])[0] == 7
        report, of_new = reload(new)
        assert pids_of(report) == new.workers()
        assert of_new[1] > now[1]
        assert (served(pair), served([new])) == (now, of_new)
    checker.assert_clean()


def test_a_host_that_is_restarted_with_the_files_of_a_committed_whole_source_joins_that_release(pair):
    one, two = pair
    release, (edition, _) = one.status()["release"], served(pair)
    copy_sources(one, two)  # deployed there, too
    _, now = reload(one)
    two.end()
    two.start()
    meet(pair)
    assert two.status()["release"] == release
    assert served(pair) == now
    report = two.reload()  # what lies on its own disk
    assert pids_of(report) == everybody_of(*pair)
    assert served(pair) == (edition, now[1] + 1)


def test_two_deployments_in_one_redis_never_touch(pair, third, redis):
    before = served(pair)
    with third(7, HOTRELOAD_DEPLOYMENT="other", HOTRELOAD_SIGNING_KEY=KEY[::-1]) as other:
        meet([other])
        with AllChecker(pair) as checker, AllChecker([other]) as of_other:
            report, _ = reload(other, WHOLE)
            assert (report["generation"], pids_of(report)) == (1, other.workers())
            assert served(pair) == before
            _, now = reload(pair[0])
            assert (served(pair), served([other])[1]) == (now, 1)
            assert (set(pair[0].members()), set(other.members())) == (everybody_of(*pair), other.workers())
            redis.restart(with_data=False)
            all_well(pair)
            all_well([other])
            assert (served(pair), served([other])[1]) == (now, 1)
        checker.assert_clean()
        of_other.assert_clean()


def test_a_host_with_another_key_is_named_and_takes_no_part_and_the_others_reload_on(pair, third):
    with third(7, HOTRELOAD_SIGNING_KEY=KEY[::-1]) as stranger:
        strangers = stranger.workers()
        until(lambda: strangers <= set(pair[0].members()), "they are not listed")
        for host in pair:
            for told in (host.members()[pid] for pid in strangers):
                assert (told["state"], told["release"]) == ("refused", "refused: another signing key")
        for status, answer in (*stranger.health().values(), stranger.post_reload()):
            assert status == 503
            assert "HOTRELOAD_SIGNING_KEY" in answer["detail"]
        assert "HOTRELOAD_SIGNING_KEY" in stranger.logged()
        with AllChecker(pair) as checker:
            for host in pair:
                report, now = reload(host, WHOLE)
                assert pids_of(report) == everybody_of(*pair)
        checker.assert_clean()
        assert served(pair) == now
        assert {each["edition"] for each in stranger.everywhere().values()} == {7}

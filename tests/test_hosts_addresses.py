"""Hosts that name the same Redis in different ways: by TLS, by a Unix socket, with a password, through a Sentinel."""

from __future__ import annotations

import pytest
from hosts import AllChecker, Host, all_well, pids_of, redis_for, served, started
from sentinels import Watched
from tls_proxy import CERTIFICATE, TLSProxy

pytestmark = pytest.mark.alone

PASSWORD = "s3cret/of:all@hosts"
ESCAPED = "s3cret%2Fof%3Aall%40hosts"


def reload(running, edition):
    running.edit(edition)
    return running.reload()


def test_by_tls_and_by_a_unix_socket_with_a_password_all_meet(tmp_path):
    with redis_for(tmp_path / "redis", requirepass=PASSWORD) as redis, TLSProxy(redis.port) as tls:
        urls = (
            f"rediss://:{ESCAPED}@127.0.0.1:{tls.port}/0?ssl_ca_certs={CERTIFICATE}",
            f"unix://:{ESCAPED}@{redis.socket}",
        )
        made = [Host(tmp_path / f"host{n}" / "shop", url, workers=1) for n, url in enumerate(urls)]
        with started(*made) as hosts:
            for edition, running in enumerate(hosts, 1):
                assert len(pids_of(reload(running, edition))) == 2
                assert served(hosts) == (edition, edition)
            assert not any("s3cret" in running.logged() for running in hosts)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://127.0.0.1:{port}", "wants a password"),
        ("redis://:not-the-s3cret@127.0.0.1:{port}", "refuses the user or the password"),
        ("rediss://:s3cret@127.0.0.1:{tls}", "ssl_ca_certs"),
    ],
)
def test_a_host_that_redis_refuses_serves_its_disk_and_says_what_to_do_without_the_password(tmp_path, url, remedy):
    with redis_for(tmp_path / "redis", requirepass="s3cret") as redis, TLSProxy(redis.port) as tls:
        url = url.format(port=redis.port, tls=tls.port)
        with Host(tmp_path / "host" / "shop", url, workers=1) as running:
            assert running.call("where")["edition"] == 0
            for status, answer in (*running.health().values(), running.post_reload()):
                assert status == 503
                assert remedy in answer["detail"]
                assert "s3cret" not in answer["detail"]
            assert remedy in running.logged()
            assert "s3cret" not in running.logged()


def test_when_a_sentinel_names_another_master_all_go_on_there_with_what_was_committed(tmp_path):
    with Watched(tmp_path / "redis") as redis:
        made = [Host(tmp_path / f"host{n}" / "shop", redis.url, workers=1) for n in range(2)]
        with started(*made) as hosts, AllChecker(hosts) as checker:
            reload(hosts[0], 1)
            redis.fail_over()
            all_well(hosts)
            assert served(hosts) == (1, 1)
            assert len(pids_of(reload(hosts[1], 2))) == 2
            assert served(hosts) == (2, 2)
        checker.assert_clean()

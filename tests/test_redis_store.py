"""What only the Redis store has: a server that can be away, lose its data, or be set otherwise than it has to be."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from time import monotonic

import pytest
import redis
from redis_server import RedisServer
from store_places import RELEASE, begun, committed, join, member, record, to_apply, transaction

from flask_hotreload.coordination import redis as redis_store
from flask_hotreload.coordination.records import Ballot, News, Phase, StagedRecord, Vote
from flask_hotreload.coordination.redis import GRACE, LEASE, MARGIN, RedisStore
from flask_hotreload.coordination.redis_address import Address
from flask_hotreload.coordination.redis_scripts import SCRIPTS
from flask_hotreload.errors import StoreUnavailable

PATIENCE = 20.0  # seconds
NEVER = float("-inf")


@pytest.fixture
def server(tmp_path):
    """A server of this test's own."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def opened(redis_server):
    """Opens a store as some member, of the deployment ``name``; everything is closed afterwards."""
    stores = []
    default = f"of {os.urandom(8).hex()}"

    def opened(member="a", *, url=None, name=None, **options):
        store = RedisStore(url or redis_server.unix_url, name or default, member, **options)
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()


class Place:
    """One store for each member."""

    def __init__(self, opened, **options):
        self._opened, self._options = opened, options
        self._stores = {}

    def store(self, member="a"):
        if member not in self._stores:
            self._stores[member] = self._opened(member, **self._options)
        return self._stores[member]


def until(holds, seconds=PATIENCE):
    deadline, pause = monotonic() + seconds, threading.Event()
    while not holds():
        assert monotonic() < deadline
        pause.wait(0.01)


def is_there(store):
    try:
        store.view(RELEASE)
    except StoreUnavailable:
        return False
    return True


def after_grace(store):
    """Until this store begins transactions again."""
    until(lambda: is_there(store))
    until(lambda: monotonic() >= store._server.back_since + GRACE)


# Where the server is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://:s3cret@localhost:6380/2?socket_timeout=0.5", "redis://localhost:6380/2"),
        ("rediss://me:s3cret@cache.example:6380", "rediss://cache.example:6380"),
        ("unix:///run/redis.sock?db=3&password=s3cret", "unix:///run/redis.sock"),
        ("redis+sentinel://me:s3cret@one,two:26380/main?db=1", "redis+sentinel://one,two:26380/main"),
        ("rediss+sentinel://one/main?sentinel_password=s3cret", "rediss+sentinel://one/main"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, text):
    address = Address(url)
    assert address.text == text
    store = RedisStore(url, "a name")
    assert "s3cret" not in repr(store)
    assert text in repr(store)


def test_an_address_is_what_its_url_says():
    connection = Address("rediss://me:s3c%40ret@cache.example:6380/2?socket_timeout=0.5").connection()
    assert (connection.host, connection.port, connection.db) == ("cache.example", 6380, 2)
    assert (connection.username, connection.password) == ("me", "s3c@ret")
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (0.5, 1.0)
    assert type(connection).__mro__[2].__name__ == "SSLConnection"
    sentinel = Address("redis+sentinel://me:s3cret@one,two:26380/main?db=1&sentinel_password=other").connection()
    assert (sentinel.username, sentinel.password, sentinel.db) == ("me", "s3cret", 1)
    watching = sentinel.connection_pool.sentinel_manager.sentinels
    told = [each.connection_pool.connection_kwargs for each in watching]
    assert [(each["host"], each["port"]) for each in told] == [("one", 26379), ("two", 26380)]
    assert {each["password"] for each in told} == {"other"}


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///s3cret",
        "redis://",
        "redis://:s3cret@/0",
        "redis://me:s3/cret@host",
        "redis://me:s3cret#x@host",
        "redis://me:12?s3cret@host",
        "redis://me:s3cret@host:port",
        "redis://host/s3cret",
        "redis://me:s3cret@host?unheard_of=s3cret",
        "redis://me:s3cret@host?socket_timeout=s3cret",
        "unix://",
        "redis+sentinel://me:s3cret@one:26379",
        "redis+sentinel://me:s3cret@one:26379,two:s3cret/main",
    ],
)
def test_what_is_no_address_is_refused_with_the_forms_and_without_secrets(url):
    with pytest.raises(ValueError, match="redis://host:6379/0") as raised:
        Address(url)
    assert "cret" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("option", ["socket_timeout=2", "socket_connect_timeout=2.5", "socket_timeout=0"])
def test_a_time_out_that_leaves_no_time_to_notice_is_refused(option):
    with pytest.raises(ValueError, match="below 2 seconds"):
        Address(f"redis://localhost?{option}")


def test_a_url_cannot_change_how_answers_are_read_or_calls_repeated():
    options = "protocol=3&decode_responses=yes&retry_on_timeout=yes&health_check_interval=1"
    connection = Address(f"redis://localhost?{options}").connection()
    assert connection.protocol == 2
    assert not connection.encoder.decode_responses
    assert connection.retry.get_retries() == 0
    assert connection.retry_on_error == []


def test_without_redis_py_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.sentinel", None)
    with pytest.raises(RuntimeError, match=r"flask-hotreload\[redis\]"):
        RedisStore("redis://localhost", "name")


def test_a_deployment_has_a_name():
    with pytest.raises(ValueError, match="HOTRELOAD_DEPLOYMENT"):
        RedisStore("redis://localhost", "")


def test_over_tcp_and_over_a_unix_socket_one_deployment_meets(opened, redis_server):
    assert opened("a", url=redis_server.url).join(member("a"))
    assert opened("b", url=redis_server.unix_url).join(member("b"))
    assert {each.id for each in opened("c").view(RELEASE).members} == {"a", "b"}


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_named_with_the_remedy(opened):
    store = opened(url="redis://:s3cret@127.0.0.1:1/0")
    for attempt in (lambda: store.view(RELEASE), lambda: store.abort("t1", "why"), lambda: store.wait(0.1)):
        with pytest.raises(StoreUnavailable, match="see that it runs") as raised:
            attempt()
        assert "redis://127.0.0.1:1/0" in str(raised.value)
        assert "s3cret" not in str(raised.value)
    store.ring(["b"])
    assert store.now() <= store.now()
    assert store.member_id


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}", "redis://:wr0ng@127.0.0.1:{}"])
def test_a_password_that_is_missing_or_wrong_is_said_and_not_shown(tmp_path, opened, url):
    with RedisServer(tmp_path / "redis", requirepass="s3cret") as server:
        assert opened("a", url=f"redis://:s3cret@127.0.0.1:{server.port}").join(member("a"))
        with pytest.raises(StoreUnavailable, match=r"wants a password|refuses the user or the password") as raised:
            opened("b", url=url.format(server.port)).view(RELEASE)
        assert "wr0ng" not in str(raised.value)


def test_a_server_without_memory_is_said(tmp_path, opened):
    with RedisServer(tmp_path / "redis", maxmemory="2mb", maxmemory_policy="noeviction") as server:
        store = opened(url=server.url)
        blobs = {f"sha256:{number}": os.urandom(1 << 18) for number in range(100)}
        with pytest.raises(StoreUnavailable, match="raise its maxmemory"):
            store.put_blobs(blobs)


def test_a_replica_is_said_to_be_none_to_write_to(tmp_path, opened, server):
    replica = RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {server.port}")
    with replica, pytest.raises(StoreUnavailable, match=r"is a replica|is reading its data"):
        opened(url=replica.url).join(member("a"))


def test_scripts_that_the_server_has_forgotten_are_sent_again(server, opened):
    place = Place(opened, url=server.url)
    join(place, "a")
    server.ask(b"SCRIPT", b"FLUSH")
    committed(place.store("a"), 1)
    server.restart()
    until(lambda: is_there(place.store("a")))
    assert place.store("a").view(RELEASE).head == 1


def test_a_server_that_hangs_is_given_up_in_time(server, opened):
    store = opened(url=f"{server.url}?socket_timeout=0.3")
    assert store.join(member("a"))
    server.stop()
    try:
        before = monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer in time"):
            store.view(RELEASE)
        assert monotonic() - before < 1.5
        store.ring(["b"])
    finally:
        server.go_on()
    until(lambda: is_there(store))


# Deployments --------------------------------------------------------------------------------------------------------


def test_deployments_never_touch_whatever_their_names(opened, redis_server):
    names = ["shop", "shop}", "{shop}", "shop:ring", "sh op", "shop*", "läden", "shop}:x{", "0"]
    stores = [opened("a", name=f"{name} of deployments") for name in names]
    for number, store in enumerate(stores):
        assert store.join(member("a", in_flight=number))
        assert store.begin(transaction(f"t{number}"))
        store.put_blobs({"sha256:1": b"%d" % number})
    for number, store in enumerate(stores):
        view = store.view(RELEASE)
        assert (view.members[0].in_flight, view.active.id) == (number, f"t{number}")
        assert store.blobs(["sha256:1"]) == {"sha256:1": b"%d" % number}
        store.put_report(b"report")
    assert [store.reports() for store in stores] == [[b"report"]] * len(names)


def test_all_keys_of_a_deployment_lie_in_one_slot(server, opened):
    place = Place(opened, url=server.url, name="a {b}:c")
    join(place, "a")
    store = place.store("a")
    store.put_base(RELEASE, b"base", {"sha256:1": b"1"})
    store.put_staged(StagedRecord(RELEASE, "s1", 0, 1, store.now() + 60, b"signed", ("sha256:2",)))
    store.put_report(b"report", transaction="t1")
    committed(store, 1, digests=("sha256:3",), sources="sha256:4")
    keys = server.ask(b"KEYS", b"*").split(b"\r\n")[2::2]
    keys = [key for key in keys if key]
    assert len(keys) > 10
    assert {key.partition(b"}")[0] for key in keys} == {b"hotreload:{a%20%7Bb%7D%3Ac"}


# Leases -------------------------------------------------------------------------------------------------------------


def test_a_lease_is_counted_from_before_the_store_was_asked(opened):
    store = opened()
    join(Place(opened), "a")
    before = monotonic()
    ends = store.renew("a", 0)
    assert before + LEASE - MARGIN <= ends <= monotonic() + LEASE - MARGIN


def test_who_does_not_renew_is_dead_when_its_lease_has_run_out_and_not_before(opened):
    place = Place(opened, lease=0.6)
    join(place, "a", "b")
    store = place.store("a")
    ends = place.store("b").renew("b", 0)
    while not store.dead(["b"]):
        assert store.renew("a", 0) > NEVER
        threading.Event().wait(0.02)
    assert monotonic() > ends
    assert place.store("b").renew("b", 0) == NEVER
    assert store.dead(["a", "b"]) == {"b"}
    assert place.store("b").join(member("b"))


def test_a_lease_that_has_run_out_is_renewed_as_long_as_nobody_was_told(opened):
    place = Place(opened, lease=0.2)
    join(place, "a")
    threading.Event().wait(0.4)
    assert place.store("a").renew("a", 0) > monotonic()
    assert place.store("a").dead(["a"]) == set()


def test_a_transaction_begins_without_those_whose_leases_have_run_out(opened):
    place = Place(opened, lease=0.3)
    join(place, "a", "b")
    store = place.store("a")
    assert not store.begin(transaction())
    until(lambda: store.renew("a", 0) > NEVER and store.begin(transaction()))
    assert place.store("b").renew("b", 0) == NEVER
    assert store.dead(["b"]) == {"b"}


def test_a_killed_process_is_dead_after_its_lease(opened, redis_server):
    program = f"""
        import sys
        from flask_hotreload.coordination.records import Member
        from flask_hotreload.coordination.redis import RedisStore
        store = RedisStore({redis_server.unix_url!r}, "killed", "b")
        assert store.join(Member("b", "host", 1, "0", 0))
        print("ready", flush=True)
        sys.stdin.read()
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        store = opened("a", name="killed")
        assert store.dead(["b"]) == set()
        killed = monotonic()
        child.send_signal(signal.SIGKILL)
    until(lambda: store.dead(["b"]))
    assert monotonic() - killed > LEASE - 1.0


def test_ids_of_processes_are_unique_though_hosts_and_pids_repeat(opened):
    ids = {opened(None).member_id for _ in range(20)}
    assert len(ids) == 20
    assert all(each.split("-")[-2].endswith(f":{os.getpid()}") for each in ids)


# Restarts -----------------------------------------------------------------------------------------------------------


def test_what_was_acknowledged_outlives_the_server(server, opened):
    place = Place(opened, url=server.url)
    join(place, "a")
    store = place.store("a")
    store.put_blobs({"sha256:1": b"\0source"})
    committed(store, 1, digests=("sha256:1",))
    assert store.begin(transaction("t2", base=1, generation=2, payload=b"\xff"))
    server.restart()
    until(lambda: is_there(store))
    view = store.view(RELEASE, "t2")
    assert (view.head, view.outcome, view.active.payload) == (1, Phase.STAGING, b"\xff")
    assert [each.id for each in view.members] == ["a"]
    assert list(store.journal(RELEASE)) == [record("t1", generation=1, digests=("sha256:1",))]


def test_a_transaction_that_a_crash_has_robbed_of_its_votes_can_only_be_aborted(server, opened):
    place = Place(opened, url=server.url)
    store = begun(place, "a", "b")
    to_apply(store)
    for name in "ab":
        assert store.vote(Vote("t1", Ballot.APPLIED, name, ok=True))
    server.restart()
    until(lambda: is_there(store))
    view = store.view(RELEASE, "t1")
    assert view.outcome is Phase.PREPARE
    assert not view.votes
    assert not store.commit(record("t1"))
    assert store.abort("t1", "why")
    server.restart()
    until(lambda: is_there(store))
    view = store.view(RELEASE, "t1")
    assert (view.head, view.outcome, view.active.reason) == (0, Phase.ABORTED, "why")


def test_with_locks_closed_a_vote_waits_for_no_disk_and_a_decision_does(server, opened):
    def written():
        (line,) = [each for each in server.ask(b"INFO", b"persistence").split() if b"aof_current_size" in each]
        return int(line.partition(b":")[2])

    store = begun(Place(opened, url=server.url), "a")
    assert store.vote(Vote("t1", Ballot.PREPARED, "a", ok=True))
    assert store.advance("t1", to=Phase.PREPARE, deadline=20.0)
    before = written()
    assert store.advance("t1", to=Phase.APPLY, deadline=20.0)
    assert store.vote(Vote("t1", Ballot.APPLIED, "a", ok=True))
    assert written() == before
    assert store.commit(record("t1"))
    assert written() > before


def test_when_the_server_is_back_nothing_is_begun_before_all_have_noticed(server, opened):
    place = Place(opened, url=server.url)
    join(place, "a")
    store = place.store("a")
    server.restart()  # quicker than anybody asks: it is noticed by the connection, which has ended
    until(lambda: is_there(store))
    back = monotonic()
    assert not store.begin(transaction())
    until(lambda: store.renew("a", 0) > NEVER and store.begin(transaction()))
    assert monotonic() >= back + GRACE - 0.5


def test_a_server_that_comes_back_empty_is_given_back_what_was_committed(server, opened):
    place = Place(opened, url=server.url)
    join(place, "a", "b")
    store = place.store("a")
    store.put_blobs({"sha256:1": b"source"})
    assert store.begin(transaction(participants=("a", "b")))
    store.put_blobs({"sha256:1": b"source"})
    to_apply(store)
    assert store.commit(record(digests=("sha256:1",)))
    journal = store.journal(RELEASE)
    server.restart(with_data=False)
    until(lambda: is_there(store))
    assert store.view(RELEASE).head == 0
    assert store.renew("a", 1) == place.store("b").renew("b", 1) == NEVER
    assert not store.join(member("a", generation=1))
    assert store.publish_again(RELEASE, 1, journal, {"sha256:1": b"source"}, None)
    assert not place.store("b").publish_again(RELEASE, 1, journal, {"sha256:1": b"source"}, None)
    join(place, "a", "b", generation=1)
    after_grace(store)
    assert store.begin(transaction("t2", participants=("a", "b"), base=1, generation=2))
    assert store.blobs(["sha256:1"]) == {"sha256:1": b"source"}


def test_nothing_begins_while_a_lease_from_before_the_loss_may_still_run(opened):
    place = Place(opened, lease=0.5)
    join(place, "a", "b")
    store = place.store("a")
    ends = place.store("b").renew("b", 0)
    assert store.publish_again(RELEASE, 3, [record("t3", generation=3)], {}, None)
    join(place, "a", generation=3)
    until(lambda: store.renew("a", 3) > NEVER and store.begin(transaction("t4", base=3, generation=4)))
    assert monotonic() > ends
    assert store.dead(["b"]) in ({"b"}, set())


# What the server is set to ------------------------------------------------------------------------------------------


def warnings_of(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_a_server_that_keeps_what_it_acknowledges_is_not_spoken_of(server, opened, caplog):
    join(Place(opened, url=server.url), "a")
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"appendonly": "no"}, "set appendonly yes"),
        ({"appendfsync": "everysec"}, "set appendfsync always"),
        ({"maxmemory": "50mb", "maxmemory_policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
    ],
)
def test_a_server_that_may_lose_what_it_acknowledges_is_warned_of_once(tmp_path, opened, caplog, options, told):
    with RedisServer(tmp_path / "redis", **options) as server:
        store = opened(url=server.url)
        assert store.join(member("a"))
        assert store.join(member("a"))
        (warning,) = warnings_of(caplog)
        assert warning.endswith(told)
        store.close()


def test_it_is_said_when_it_cannot_be_read_what_the_server_keeps(tmp_path, opened, caplog):
    with RedisServer(tmp_path / "redis", rename_command='CONFIG ""') as server:
        assert opened(url=server.url).join(member("a"))
        (warning,) = warnings_of(caplog)
        assert "cannot be read" in warning


def test_a_commit_waits_for_replicas_and_stands_without_them(tmp_path, server, opened, caplog):
    with RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {server.port}") as replica:
        until(lambda: b"state=online" in server.ask(b"INFO", b"replication"))
        place = Place(opened, url=server.url)
        join(place, "a")
        committed(place.store("a"), 1)
        assert warnings_of(caplog) == []
        key = b"hotreload:{%s}:heads" % place.store("a")._prefix.split("{")[1].split("}")[0].encode()
        assert replica.ask(b"HGET", key, b"0") == b"$1\r\n1\r\n"
        store = place.store("a")
        assert store.begin(transaction("t2", base=1, generation=2))
        to_apply(store, "t2")
        replica.stop()
        try:
            before = monotonic()
            assert store.commit(record("t2", generation=2))
            assert monotonic() - before < 1.0
        finally:
            replica.go_on()
        (warning,) = warnings_of(caplog)
        assert "generation 2 is committed, but of the 1 replicas" in warning
        assert store.view(RELEASE).head == 2


# Processes ----------------------------------------------------------------------------------------------------------


def test_a_forked_child_is_another_member_with_connections_of_its_own(opened):
    store = opened(None)
    mine = store.member_id
    assert store.join(member(mine))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = f"{store.member_id} {len(store.view(RELEASE).members)}"
            store.ring([mine])
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs, members = told.read().split()
    os.waitpid(child, 0)
    assert theirs != mine
    assert members == "1"
    assert store.renew(mine, 0) > monotonic()
    assert store.view(RELEASE).members[0].id == mine


def test_threads_call_at_once_each_on_a_connection_of_its_own(opened):
    store = opened()
    assert store.join(member("a"))
    start, wrong = threading.Barrier(8), []

    def call(number):
        start.wait(PATIENCE)
        for _ in range(100):
            store.put_blobs({f"sha256:{number}": b"%d" % number})
            if store.blobs([f"sha256:{number}"]) != {f"sha256:{number}": b"%d" % number}:
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []


def test_a_process_wakes_itself_without_the_server(server, opened):
    store = opened(url=server.url)
    assert store.member_id
    server.kill()
    waited = threading.Thread(target=store.wait, args=(PATIENCE,))
    store.ring(["a"])
    before = monotonic()
    waited.start()
    waited.join(PATIENCE)
    assert monotonic() - before < PATIENCE / 2


def test_after_the_server_was_away_rings_are_heard_again(server, opened):
    first, second = opened("a", url=server.url), opened("b", url=server.url)
    assert first.member_id
    assert second.member_id
    server.restart()
    until(lambda: is_there(first) and is_there(second))
    first.wait(0.5)  # ends with the old connection, or begins the new one
    first.wait(0.5)
    while first._bell._ear is None:
        first.wait(0.1)
    waited = threading.Thread(target=first.wait, args=(PATIENCE,))
    waited.start()
    second.ring(["a", "b"])
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()


def test_one_that_is_rung_does_not_wake_the_others(opened):
    stores = {name: opened(name) for name in "abc"}
    assert all(store.member_id == name for name, store in stores.items())
    stores["a"].ring(["b"])
    stores["b"].wait(PATIENCE)
    assert not stores["c"]._bell._is_rung()
    stores["a"].ring(["b", "c"])
    stores["b"].wait(PATIENCE)
    stores["c"].wait(PATIENCE)
    ear = stores["a"]._bell._ear
    until(lambda: ear.can_read(timeout=0))
    assert not stores["a"]._bell._is_rung()  # by what it has sent


@pytest.mark.parametrize("parser", ["_RESP2Parser", "_HiredisParser"])
def test_with_either_parser_of_redis_py_everything_is_read_and_what_is_lost_is_noticed(parser, server, opened):
    stores = [opened(name, url=server.url) for name in "ab"]
    for store in stores:
        store._address._pool.connection_kwargs["parser_class"] = getattr(redis._parsers, parser)
        assert store.join(member(store.member_id))
        assert store.view(RELEASE).members
    first, second = stores
    news = News("t1", Phase.COMMITTED)
    second.ring(["a"], news)
    assert first.wait(PATIENCE) == news
    ear = first._bell._ear
    ear.bounded.ends = 0.0  # as when it has heard nothing for long
    second.ring(["a"], news)
    assert first.wait(PATIENCE) == news
    assert first._bell._ear is ear
    assert first.put_base(RELEASE, bytes(1_000_000), {})
    assert second.base(RELEASE) == bytes(1_000_000)
    server.restart()
    until(lambda: is_there(first) and is_there(second))
    until(lambda: first.wait(0.1) or first._bell._ear is not None)
    until(lambda: second.ring(["a"], news) or first.wait(0.1) == news)
    assert first.view(RELEASE).head == 0


def test_two_databases_of_one_server_do_not_hear_each_other(redis_server, opened):
    url = f"redis://127.0.0.1:{redis_server.port}"
    here, there = opened("a", url=f"{url}/0"), opened("b", url=f"{url}/1")
    assert here.member_id
    there.ring(["a"], News("t1", Phase.COMMITTED))
    there.ring(["a", "b", "c"], News("t1", Phase.COMMITTED))
    assert here.wait(0.2) is None


# The scripts --------------------------------------------------------------------------------------------------------


def test_every_script_is_one_of_the_methods():
    methods = {name for name in vars(RedisStore) if not name.startswith("_")}
    assert SCRIPTS.keys() - methods == {"look"}


def test_what_a_payload_says_is_sent_once(opened, monkeypatch):
    store = begun(Place(opened), "a")
    payload = os.urandom(100_000)
    assert store.advance("t1", to=Phase.PREPARE, deadline=1.0, payload=payload)
    assert store.glance(RELEASE).active.payload == payload
    answers = []
    honest = store._server.told
    monkeypatch.setattr(store._server, "told", lambda answer: answers.append(answer) or honest(answer))
    assert store.view(RELEASE, "t1").active.payload == payload
    assert payload not in answers[0]


def test_many_large_sources_are_sent_in_portions(opened):
    store = opened()
    blobs = {f"sha256:{number}": os.urandom(1 << 18) for number in range(40)}
    assert len(list(redis_store._portions(blobs))) >= 10
    store.put_blobs(blobs)
    assert store.blobs(blobs) == blobs


def test_a_vote_is_kept_as_it_was_cast(opened):
    store = begun(Place(opened), "a")
    vote = Vote("t1", Ballot.PREPARED, "a", ok=True, detail=bytes(range(256)))
    assert store.vote(vote) == 1
    assert store.view(RELEASE).votes == (vote,)

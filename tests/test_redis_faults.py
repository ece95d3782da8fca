"""Faults between a worker and its Redis server: every call ends in time, with an answer or the one error.

After an error, reading tells what has happened.
"""

import itertools
import threading
from time import monotonic

import pytest
from fault_proxy import FaultProxy
from store_places import RELEASE, member, record, to_apply, transaction

from flask_hotreload.coordination.records import Ballot, Phase, StagedRecord, Vote
from flask_hotreload.coordination.redis import RedisStore
from flask_hotreload.coordination.redis_scripts import SCRIPTS
from flask_hotreload.errors import StoreUnavailable

PATIENCE = 20.0  # seconds
TIMEOUT = 0.4
#: For a call that has to connect first; the machine may be busy.
AT_MOST = 2 * TIMEOUT + 1.0
_numbers = itertools.count()


@pytest.fixture
def proxy(redis_server):
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def stores(redis_server, proxy):
    """One that reaches the server through the proxy, and one that tells what has happened there."""
    name = f"faults {next(_numbers)}"
    far = RedisStore(f"redis://127.0.0.1:{proxy.port}?socket_timeout={TIMEOUT}", name, "a")
    near = RedisStore(redis_server.unix_url, name, "b")
    # So that the first call of a script is one request.
    near._server.ask(*(("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values()))
    yield far, near
    proxy.heal()
    for store in (far, near):
        store.close()


# Each: what comes before, the call, and whether it has happened, as another one reads it. ---------------------------


def joined(store):
    assert store.join(member("a"))


def began(store):
    joined(store)
    assert store.begin(transaction())


def applying(store):
    began(store)
    to_apply(store)


def released(store):
    assert store.new_release("sha256:1", only_if=RELEASE)


def staged(store):
    return StagedRecord(RELEASE, "s1", 0, 1, store.now() + 600.0, b"signed", ())


def active(store):
    return store.view(RELEASE).active


CHANGES = {
    "join": (lambda store: None, lambda s: s.join(member("a")), lambda s: s.view(RELEASE).members != ()),
    "update": (
        joined,
        lambda s: s.update(member("a", held=7)),
        lambda s: s.view(RELEASE).members[0].held == 7,
    ),
    "leave": (joined, lambda s: s.leave("a"), lambda s: s.view(RELEASE).members == ()),
    "begin": (joined, lambda s: s.begin(transaction()), lambda s: s.has_begun("t1")),
    "advance": (
        began,
        lambda s: s.advance("t1", to=Phase.PREPARE, deadline=9.0),
        lambda s: active(s).phase is Phase.PREPARE,
    ),
    "vote": (
        began,
        lambda s: s.vote(Vote("t1", Ballot.PREPARED, "a", ok=True)),
        lambda s: s.view(RELEASE).votes != (),
    ),
    "lay_ready": (applying, lambda s: s.lay_ready(record()), lambda s: s.commit(record())),
    "commit": (
        lambda s: (applying(s), s.lay_ready(record())),
        lambda s: s.commit(record()),
        lambda s: s.view(RELEASE).head == 1,
    ),
    "abort": (began, lambda s: s.abort("t1", "why"), lambda s: active(s).phase is Phase.ABORTED),
    "new_release": (lambda s: None, released, lambda s: s.view(RELEASE).release == "sha256:1"),
    "publish_again": (
        joined,
        lambda s: s.publish_again(RELEASE, 3, [record("t3", generation=3)], {}, None),
        lambda s: s.view(RELEASE).head == 3,
    ),
    "put_seal": (joined, lambda s: s.put_seal(b"far"), lambda s: s.put_seal(b"near") == b"far"),
    "put_blobs": (lambda s: None, lambda s: s.put_blobs({"d": b"1"}), lambda s: s.blobs(["d"]) == {"d": b"1"}),
    "put_base": (lambda s: None, lambda s: s.put_base(RELEASE, b"base", {}), lambda s: s.base(RELEASE) == b"base"),
    "put_staged": (lambda s: None, lambda s: s.put_staged(staged(s)), lambda s: s.staged(RELEASE) is not None),
    "drop_staged": (
        lambda s: s.put_staged(staged(s)),
        lambda s: s.drop_staged("s1"),
        lambda s: s.staged(RELEASE) is None,
    ),
    "put_report": (
        lambda s: None,
        lambda s: s.put_report(b"report", transaction="t1"),
        lambda s: s.report("t1") == b"report",
    ),
}
READS = {
    "view": lambda s: s.view(RELEASE),
    "glance": lambda s: s.glance(RELEASE),
    "renew": lambda s: s.renew("a", 0),
    "dead": lambda s: s.dead(["a"]),
    "has_begun": lambda s: s.has_begun("t1"),
    "journal": lambda s: s.journal(RELEASE),
    "release_of": lambda s: s.release_of("sha256:1"),
    "blobs": lambda s: s.blobs(["d"]),
    "base": lambda s: s.base(RELEASE),
    "staged": lambda s: s.staged(RELEASE),
    "report": lambda s: s.report("t1"),
    "reports": lambda s: s.reports(),
}
CALLS = {name: call for name, (_, call, _) in CHANGES.items()} | READS


def word_of(name):
    """What stands in the request of a call, and in no other of this process."""
    plain = {"journal": b"HVALS", "release_of": b"HGET", "blobs": b"HMGET", "base": b"HMGET", "staged": b"HGET"}
    return plain.get(name, b"HGETALL" if name == "reports" else b"EVAL")


def fails_in_time(call, store):
    before = monotonic()
    with pytest.raises(StoreUnavailable):
        call(store)
    assert monotonic() - before < AT_MOST


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", CHANGES)
def test_after_a_lost_connection_reading_tells_whether_a_change_has_happened(proxy, stores, name, when):
    far, near = stores
    before, change, happened = CHANGES[name]
    before(near if name.endswith("staged") else far)
    (proxy.cut_before if when == "before" else proxy.cut_after)(b"EVAL")
    fails_in_time(change, far)
    assert proxy.has_cut.is_set()
    if name == "lay_ready" and when == "before":
        return  # what is missing is written by the commit itself
    assert happened(near) is (when == "after")


@pytest.mark.parametrize("name", READS)
def test_what_was_not_read_is_read_by_the_next_call(proxy, stores, name):
    far, _ = stores
    joined(far)
    for cut in (proxy.cut_before, proxy.cut_after):
        cut(word_of(name))
        fails_in_time(READS[name], far)
    READS[name](far)


@pytest.mark.parametrize("name", CALLS)
def test_no_call_waits_for_a_connection_that_swallows_everything(proxy, stores, name):
    far, _ = stores
    joined(far)
    proxy.swallows = True
    fails_in_time(CALLS[name], far)
    far.ring(["b"])
    proxy.cut_all()  # what it has swallowed never comes through
    proxy.heal()
    assert far.view(RELEASE).members


def test_no_call_lasts_longer_because_its_answer_comes_byte_by_byte(proxy, stores):
    far, near = stores
    joined(far)
    assert near.put_base(RELEASE, bytes(10_000), {})
    proxy.byte_delay = TIMEOUT / 20
    fails_in_time(lambda store: store.base(RELEASE), far)
    fails_in_time(lambda store: store.view(RELEASE), far)
    proxy.byte_delay = 0.0001
    assert far.renew("a", 0) > monotonic()


def test_what_is_slow_but_not_too_slow_is_the_same(proxy, stores):
    far, near = stores
    proxy.delay = 0.02
    applying(far)
    assert far.commit(record(payload=bytes(range(256)) * 10))
    assert near.journal(RELEASE) == far.journal(RELEASE) == [record(payload=bytes(range(256)) * 10)]


def test_a_lease_is_counted_from_before_a_slow_answer(proxy, stores):
    far, _ = stores
    joined(far)
    quick = far.renew("a", 0) - monotonic()
    proxy.delay = 0.1
    assert far.renew("a", 0) - monotonic() < quick - 0.15


def test_a_renewal_whose_answer_was_lost_gives_the_member_nothing_more(proxy, stores):
    far, near = stores
    joined(far)
    ends = far.renew("a", 0)
    proxy.cut_after(b"EVAL")
    fails_in_time(lambda store: store.renew("a", 0), far)
    assert near.dead(["a"]) == set()
    assert far.renew("a", 0) > ends


def test_a_decision_whose_answer_was_lost_is_read_and_never_taken_again(proxy, stores):
    far, near = stores
    applying(far)
    far.lay_ready(record())
    proxy.cut_after(b"EVAL")
    fails_in_time(lambda store: store.commit(record()), far)
    assert not far.abort("t1", "the answer was lost")
    assert not far.commit(record())
    assert far.view(RELEASE, "t1").outcome is Phase.COMMITTED
    assert near.journal(RELEASE) == [record()]


def test_a_ring_is_never_in_the_way_of_who_rings(proxy, stores):
    far, near = stores
    assert far.member_id
    assert near.member_id
    for fault in ("swallows", "refuses"):
        setattr(proxy, fault, True)
        if fault == "refuses":
            proxy.cut_all()
        before = monotonic()
        for _ in range(20):
            far.ring(["b", "c"])
        assert monotonic() - before < 2 * AT_MOST
        proxy.heal()


def test_who_cannot_hear_rings_any_more_finds_out_and_hears_them_again(proxy, stores):
    far, near = stores
    assert far.member_id
    proxy.cut_all()
    far.wait(PATIENCE)  # ends since the connection has
    far.wait(PATIENCE)  # hears again, and what was rung in between is made up for
    waited = threading.Thread(target=far.wait, args=(PATIENCE,))
    waited.start()
    near.ring(["a"])
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()


def test_a_wait_ends_with_its_time_on_a_connection_that_swallows_everything(proxy, stores):
    far, _ = stores
    assert far.member_id
    proxy.swallows = True
    before = monotonic()
    far.wait(0.2)
    assert 0.1 < monotonic() - before < PATIENCE / 2


def test_a_connection_that_has_fallen_silent_is_given_up_when_it_does_not_answer(proxy, stores, monkeypatch):
    monkeypatch.setattr("flask_hotreload.coordination.redis_bell._SILENCE", 0.0)
    far, _ = stores
    assert far.member_id
    proxy.swallows = True
    far.wait(0.01)  # asks
    deadline = monotonic() + PATIENCE
    while far._bell._ear is not None:
        far.wait(0.05)
        assert monotonic() < deadline


def test_after_it_was_lost_nothing_is_begun_before_all_can_have_noticed(proxy, stores):
    far, near = stores
    joined(far)
    proxy.cut_before(b"EVAL")
    fails_in_time(lambda store: store.view(RELEASE), far)
    assert far.view(RELEASE).active is None
    assert not far.begin(transaction())
    assert active(near) is None

"""What every store promises of leases, of releases known by their sources, and of what a store has lost."""

import threading
from time import monotonic

import pytest
from store_places import RELEASE, begun, committed, join, member, record, to_apply, transaction

from flask_hotreload.coordination.records import Ballot, Phase, Vote
from flask_hotreload.coordination.store import RELEASES

NEVER = float("-inf")


def until_dead(place, name):
    """End a member, and wait until the others are told."""
    place.end(name)
    pause = threading.Event()
    for _ in range(1000):
        if place.store("a").dead([name]):
            return
        pause.wait(0.01)
    raise AssertionError(f"{name} does not die")


# Leases -------------------------------------------------------------------------------------------------------------


def test_a_member_that_serves_the_head_may_admit_requests_for_a_while(place):
    join(place, "a")
    assert place.store("a").renew("a", 0) > monotonic() + 1.0
    assert place.store("a").dead(["a"]) == set()


def test_who_is_no_member_may_admit_nothing(place):
    assert place.store("a").renew("a", 0) == NEVER
    join(place, "a")
    place.store("a").leave("a")
    assert place.store("a").renew("a", 0) == NEVER


@pytest.mark.parametrize("generation", [0, 2])
def test_who_does_not_serve_the_head_may_admit_nothing(place, generation):
    join(place, "a")
    store = place.store("a")
    committed(store, 1)
    assert store.renew("a", generation) == NEVER
    assert store.renew("a", 1) > monotonic()


def test_a_lease_is_renewed_while_a_transaction_is_undecided(place):
    store = begun(place, "a")
    to_apply(store)
    assert store.renew("a", 0) > monotonic()


def living(place):
    members = {each.id for each in place.store("a").view(RELEASE).members}
    return members - place.store("a").dead(members)


def test_who_was_told_dead_is_no_member_until_it_has_joined_again(place):
    join(place, "a", "b")
    until_dead(place, "b")
    assert living(place) == {"a"}
    assert place.store("b").renew("b", 0) == NEVER
    place.store("b").update(member("b"))
    assert living(place) == {"a"}
    join(place, "b")
    assert place.store("b").renew("b", 0) > monotonic()
    assert place.store("a").dead(["a", "b"]) == set()


def test_who_was_told_dead_joins_only_after_the_decision_that_was_taken_without_it(place):
    store = begun(place, "a", "b")
    to_apply(store)
    store.vote(Vote("t1", Ballot.APPLIED, "a", ok=True))
    until_dead(place, "b")
    assert not place.store("b").join(member("b"))
    assert store.commit(record())
    assert place.store("b").renew("b", 0) == NEVER
    assert not place.store("b").join(member("b"))
    assert place.store("b").join(member("b", generation=1))


def test_everybody_is_told_of_a_death(place):
    join(place, "a", "b", "c")
    until_dead(place, "b")
    assert place.store("a").dead(["b", "c"]) == {"b"}
    assert place.store("c").dead(["b", "a"]) == {"b"}


# Releases -----------------------------------------------------------------------------------------------------------


def test_a_release_is_known_by_the_sources_that_it_began_with(store):
    assert store.release_of("sha256:1") is None
    assert store.new_release("sha256:1", only_if=RELEASE)
    assert store.release_of("sha256:1") == "sha256:1"


def test_a_release_is_known_by_each_whole_source_that_it_has_committed(place):
    join(place, "a")
    store = place.store("a")
    committed(store, 1, sources="sha256:1")
    committed(store, 2)
    assert place.store("b").release_of("sha256:1") == RELEASE
    assert place.store("b").release_of("") is None


def test_of_releases_with_the_same_sources_the_last_one_is_meant(place):
    join(place, "a")
    store = place.store("a")
    assert store.new_release("sha256:1", only_if=RELEASE)
    committed(store, 1, sources="sha256:1")
    assert store.release_of("sha256:1") == RELEASE
    assert store.new_release("next", only_if="sha256:1")
    join(place, "b", release="next", generation=1)
    committed(place.store("b"), 2, release="next", member="b", sources="sha256:1")
    assert store.release_of("sha256:1") == "next"


def test_old_releases_that_nobody_serves_are_forgotten_with_all_that_is_theirs(place):
    join(place, "a")
    store = place.store("a")
    committed(store, 1, digests=("sha256:a",), sources="sha256:of a")
    assert store.new_release("gone", only_if=RELEASE)
    join(place, "b", release="gone", generation=1)
    store.put_blobs({"sha256:gone": b"source"})
    assert place.store("b").begin(
        transaction("t2", participants=("b",), base=1, generation=2, release="gone", payload=b"")
    )
    place.store("b").put_blobs({"sha256:gone": b"source"})
    to_apply(store, "t2")
    gone = record("t2", generation=2, release="gone", digests=("sha256:gone",), sources="sha256:of gone")
    assert store.commit(gone)
    place.store("b").leave("b")
    before = "gone"
    for number in range(RELEASES + 1):
        assert store.new_release(f"r{number}", only_if=before)
        before = f"r{number}"
    # "gone" is the oldest of RELEASES + 1 that nobody serves or boots with; RELEASE has a member.
    assert list(store.journal("gone")) == []
    assert store.view("gone").head == 0
    assert store.release_of("sha256:of gone") is None
    assert store.release_of("sha256:of a") == RELEASE
    assert [each.generation for each in store.journal(RELEASE)] == [1]
    assert store.view("r0").head == 2
    assert store.view(before).newest == 2
    assert not place.store("b").join(member("b", release="gone", generation=2))
    committed(store, 3, base=1)
    assert store.blobs(["sha256:gone"]) == {}


# What was lost ------------------------------------------------------------------------------------------------------


def test_what_a_store_has_lost_is_given_back(place):
    store = place.store("a")
    journal = [
        record("t3", generation=3, release="lost", digests=("sha256:3", "sha256:both"), sources="sha256:whole"),
        record("t5", generation=5, release="lost", payload=b"\xff\0", digests=("sha256:both",)),
    ]
    blobs = {"sha256:3": b"3", "sha256:both": b"\0", "sha256:base": b"base"}
    assert store.publish_again("lost", 5, journal, blobs, b"the base")
    view = place.store("b").view("lost", "t5")
    assert (view.head, view.newest, view.outcome) == (5, 5, Phase.COMMITTED)
    assert list(store.journal("lost")) == journal
    assert store.blobs(blobs) == blobs
    assert store.base("lost") == b"the base"
    assert store.release_of("sha256:whole") == "lost"
    assert store.has_begun("t3")
    join(place, "a", release="lost", generation=5)
    committed(store, 6, release="lost")
    assert store.blobs(blobs) == blobs


@pytest.mark.parametrize("head", [0, 1, 2])
def test_only_a_later_generation_is_published_again(place, head):
    join(place, "a")
    store = place.store("a")
    committed(store, 1)
    committed(store, 2)
    assert not store.publish_again(RELEASE, head, [], {}, None)
    assert store.view(RELEASE).head == 2
    assert [each.generation for each in store.journal(RELEASE)] == [1, 2]
    assert store.renew("a", 2) > monotonic()


def test_what_is_published_again_takes_the_place_of_all_that_was_there(place):
    join(place, "a")
    store = place.store("a")
    store.put_base(RELEASE, b"base", {})
    committed(store, 1)
    again = [record("t1", generation=1), record("t4", generation=4)]
    assert store.publish_again(RELEASE, 4, again, {}, None)
    assert list(store.journal(RELEASE)) == again
    assert store.base(RELEASE) is None
    assert not store.publish_again(RELEASE, 3, again[:1], {}, None)


def test_who_was_a_member_before_has_to_join_again(place):
    join(place, "a", "b")
    assert place.store("a").new_release("other", only_if=RELEASE)
    join(place, "c", release="other")
    store = begun_by_b = place.store("a")
    assert store.begin(transaction(participants=("a", "b")))
    assert store.publish_again(RELEASE, 4, [record("t4", generation=4)], {}, None)
    assert begun_by_b.view(RELEASE, "t1").outcome is Phase.ABORTED
    assert [each.id for each in store.view(RELEASE).members] == ["c"]
    assert store.renew("a", 0) == NEVER
    assert store.renew("a", 4) == NEVER
    assert place.store("c").renew("c", 0) > monotonic()
    assert not store.join(member("a", generation=0))
    join(place, "a", "b", generation=4)
    assert store.begin(transaction("t5", participants=("a", "b"), base=4, generation=5))


def test_a_transaction_of_another_release_goes_on_meanwhile(place):
    store = begun(place, "a")
    assert store.publish_again("other", 4, [record("t4", generation=4, release="other")], {}, None)
    assert store.view(RELEASE, "t1").outcome is Phase.STAGING
    assert [each.id for each in store.view(RELEASE).members] == ["a"]


# The seal -----------------------------------------------------------------------------------------------------------


def test_the_first_seal_is_kept_as_long_as_any_member_lives(place):
    assert place.store("a").put_seal(b"first\0") == b"first\0"
    join(place, "a")
    assert place.store("b").put_seal(b"second") == b"first\0"
    assert place.store("a").put_seal(b"third") == b"first\0"


def test_when_nobody_lives_the_next_seal_is_kept(place):
    join(place, "a", "b")
    assert place.store("a").put_seal(b"first") == b"first"
    place.store("a").leave("a")
    until_dead(place, "b")
    assert place.store("a").put_seal(b"second") == b"second"
    assert place.store("a").put_seal(b"second") == b"second"

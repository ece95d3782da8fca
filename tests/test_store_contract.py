"""What every store promises; see :class:`flask_hotreload.coordination.store.Store`."""

import threading

import pytest
from msgspec.structs import replace
from store_places import RELEASE, begun, committed, join, member, record, to_apply, transaction

from flask_hotreload.coordination import hint
from flask_hotreload.coordination.records import Ballot, News, Phase, StagedRecord, Vote
from flask_hotreload.coordination.store import REMEMBERED, REPORTS

PATIENCE = 10.0  # seconds


# A store at first ---------------------------------------------------------------------------------------------------


def test_an_empty_store_has_a_release_and_nothing_else(store):
    view = store.view(RELEASE)
    assert view.release == RELEASE
    assert (view.head, view.newest, view.active, view.votes, view.members, view.outcome) == (0, 0, None, (), (), None)
    assert list(store.journal(RELEASE)) == []


def test_all_members_read_one_clock_that_goes_forward(place):
    first, second = place.store("a").now(), place.store("b").now()
    assert first <= second <= place.store("a").now()


# Members ------------------------------------------------------------------------------------------------------------


def test_a_member_is_seen_as_it_told_of_itself(place):
    told = member("a", state="serving", in_flight=2, held=1, seen=1.5)
    assert place.store("a").join(told)
    assert place.store("b").view(RELEASE).members == (told,)


def test_nobody_joins_behind_what_is_served(place):
    store = begun(place, "a")
    to_apply(store)
    store.commit(record())
    assert not place.store("b").join(member("b", generation=0))
    assert place.store("b").join(member("b", generation=1))


def test_nobody_joins_a_release_that_does_not_exist(store):
    assert not store.join(member(release="another"))


def test_nobody_joins_while_a_transaction_of_the_release_is_undecided(place):
    store = begun(place, "a")
    assert not place.store("b").join(member("b"))
    to_apply(store)
    assert not place.store("b").join(member("b"))
    store.abort("t1", "enough")
    assert place.store("b").join(member("b"))


def test_workers_of_another_release_join_meanwhile(place):
    join(place, "a")
    assert place.store("a").new_release("next", only_if=RELEASE)
    place.store("a").begin(transaction())
    assert place.store("b").join(member("b", release="next"))


def test_an_update_is_seen_but_makes_nobody_a_member(place):
    join(place, "a")
    place.store("a").update(member("a", in_flight=7))
    place.store("b").update(member("b"))
    assert [(each.id, each.in_flight) for each in place.store("a").view(RELEASE).members] == [("a", 7)]


def test_who_leaves_is_no_member(place):
    join(place, "a", "b")
    place.store("b").leave("b")
    assert [each.id for each in place.store("a").view(RELEASE).members] == ["a"]


def test_only_who_has_ended_is_dead(place):
    join(place, "a", "b")
    assert place.store("a").dead(["a", "b"]) == set()
    place.end("b")
    # Who was seen alive just now is not looked at again at once.
    until = threading.Event()
    for _ in range(100):
        if place.store("a").dead(["a", "b"]):
            break
        until.wait(0.01)
    assert place.store("a").dead(["a", "b"]) == {"b"}


def test_of_somebody_unknown_it_is_not_said_that_he_is_dead(store):
    assert store.dead(["nobody"]) == set()


# Beginning ----------------------------------------------------------------------------------------------------------


def test_what_was_begun_is_what_is_active(place):
    store = begun(place, "a", "b")
    assert place.store("b").view(RELEASE).active == transaction(participants=("a", "b"))
    assert store.view(RELEASE, "t1").outcome is Phase.STAGING


def test_one_transaction_at_a_time(place):
    store = begun(place, "a")
    assert not store.begin(transaction("t2"))
    store.abort("t1", "enough")
    assert store.begin(transaction("t2"))


def test_a_transaction_of_another_release_waits_too(place):
    store = begun(place, "a")
    store.new_release("next", only_if=RELEASE)
    join(place, "b", release="next")
    assert not place.store("b").begin(transaction("t2", participants=("b",), release="next"))


def test_a_transaction_begins_from_the_head(place):
    join(place, "a")
    assert not place.store("a").begin(transaction(base=1, generation=2))
    assert not place.store("a").begin(transaction(release="another"))


def test_no_generation_is_given_twice_in_a_deployment(place):
    join(place, "a")
    store = place.store("a")
    store.new_release("next", only_if=RELEASE)
    committed(store, 1)
    join(place, "b", release="next")
    assert store.view("next").newest == 1
    assert not place.store("b").begin(transaction("t2", participants=("b",), release="next", base=0, generation=1))
    assert place.store("b").begin(transaction("t2", participants=("b",), release="next", base=0, generation=2))


def test_who_has_joined_since_the_participants_were_listed_is_not_left_out(place):
    join(place, "a", "b")
    assert not place.store("a").begin(transaction(participants=("a",)))
    assert place.store("a").begin(transaction(participants=("a", "b")))


def test_who_has_died_may_be_left_out(place):
    join(place, "a", "b")
    place.end("b")
    assert place.store("a").begin(transaction(participants=("a",)))


def test_who_has_left_is_not_waited_for(place):
    join(place, "a", "b")
    place.store("b").leave("b")
    assert not place.store("a").begin(transaction(participants=("a", "b")))
    assert place.store("a").begin(transaction(participants=("a",)))


@pytest.mark.parametrize("end", ["abort", "commit", "commit, obsolete"])
def test_an_id_is_good_for_one_attempt(place, end):
    store = begun(place, "a")
    to_apply(store)
    if end == "abort":
        store.abort("t1", "enough")
    else:
        store.commit(record())
    if end.endswith("obsolete"):
        committed(store, 2, obsolete=[1])
    head = store.view(RELEASE).head
    assert store.has_begun("t1")
    assert not store.begin(transaction("t1", base=head, generation=head + 1))


def aborted(store, name):
    assert store.begin(transaction(name))
    assert store.abort(name, "enough")


def test_an_aborted_id_is_not_good_again_when_others_have_followed(place):
    join(place, "a")
    store = place.store("a")
    aborted(store, "t1")
    aborted(store, "t2")
    assert not store.begin(transaction("t1"))
    assert store.has_begun("t1")
    assert not store.has_begun("t3")


def test_a_refused_begin_uses_no_id(place):
    store = begun(place, "a")
    assert not store.begin(transaction("t2"))
    assert not store.has_begun("t2")


def test_an_id_that_was_used_very_long_ago_is_as_good_as_new(place):
    join(place, "a")
    store = place.store("a")
    for number in range(REMEMBERED + 1):
        aborted(store, f"n{number}")
    assert not store.has_begun("n0")
    assert store.has_begun("n1")
    assert not store.begin(transaction("n1"))
    assert store.begin(transaction("n0"))


def test_a_committed_id_is_refused_as_long_as_its_record_is_in_the_journal(place):
    join(place, "a")
    store = place.store("a")
    committed(store, 1)
    for number in range(REMEMBERED + 1):
        name = f"n{number}"
        assert store.begin(transaction(name, base=1, generation=2))
        store.abort(name, "enough")
    assert store.has_begun("t1")
    assert not store.begin(transaction("t1", base=1, generation=2))


# Votes and phases ---------------------------------------------------------------------------------------------------


def test_a_glance_shows_all_but_votes_and_members(place):
    store = begun(place, "a")
    store.vote(Vote("t1", Ballot.PREPARED, "a", ok=True))
    view, glance = store.view(RELEASE, "t1"), store.glance(RELEASE, "t1")
    assert (glance.votes, glance.members) == ((), ())
    assert view.votes
    assert view.members
    for same in ("release", "head", "newest", "active", "outcome"):
        assert getattr(glance, same) == getattr(view, same)


def test_a_phase_follows_the_one_before(place):
    store = begun(place, "a")
    assert not store.advance("t1", to=Phase.APPLY, deadline=1.0)
    assert not store.advance("t2", to=Phase.PREPARE, deadline=1.0)
    assert store.advance("t1", to=Phase.PREPARE, deadline=21.0, payload=b"sealed")
    assert not store.advance("t1", to=Phase.PREPARE, deadline=1.0)
    active = store.view(RELEASE).active
    assert (active.phase, active.deadline, active.payload) == (Phase.PREPARE, 21.0, b"sealed")
    assert store.advance("t1", to=Phase.APPLY, deadline=31.0)
    active = place.store("b").view(RELEASE).active
    assert (active.phase, active.deadline, active.payload) == (Phase.APPLY, 31.0, b"sealed")


def test_a_decided_transaction_does_not_go_on(place):
    store = begun(place, "a")
    store.abort("t1", "enough")
    assert not store.advance("t1", to=Phase.PREPARE, deadline=1.0)


def test_a_vote_is_cast_once_and_the_yes_are_counted(place):
    store = begun(place, "a", "b")
    no = Vote("t1", Ballot.PREPARED, "b", ok=False, detail=b'{"error": "\xc3\xa4"}')
    assert store.vote(Vote("t1", Ballot.PREPARED, "a", ok=True)) == 1
    assert place.store("b").vote(no) == 1
    assert place.store("b").vote(Vote("t1", Ballot.PREPARED, "b", ok=True)) == 0
    assert store.vote(Vote("t1", Ballot.APPLIED, "a", ok=True)) == 1
    assert store.vote(Vote("t1", Ballot.APPLIED, "a", ok=True)) == 0
    assert place.store("b").vote(Vote("t1", Ballot.APPLIED, "b", ok=True)) == 2
    view = store.view(RELEASE)
    assert view.voted(Ballot.PREPARED)["b"] == no
    assert set(view.voted(Ballot.PREPARED)) == {"a", "b"}
    assert set(view.voted(Ballot.APPLIED)) == {"a", "b"}


@pytest.mark.parametrize("again", [False, True])
def test_with_the_last_vote_a_member_tells_how_it_is_whatever_becomes_of_the_vote(place, again):
    store = begun(place, "a", "b")
    vote = Vote("t1", Ballot.SETTLED, "a", ok=True)
    if again:
        store.vote(vote)
    told = replace(member("a"), in_flight=17)
    assert store.vote(vote, told=told) == (0 if again else 1)
    assert told in store.view(RELEASE).members
    assert len(store.view(RELEASE).members) == 2


def test_who_is_no_member_tells_nothing_with_its_vote(place):
    store = begun(place, "a", "b")
    store.leave("a")
    store.vote(Vote("t1", Ballot.SETTLED, "a", ok=True), told=member("a"))
    assert [each.id for each in store.view(RELEASE).members] == ["b"]


def test_tidying_up_takes_nothing_that_is_needed(place):
    store = place.store("a")
    store.tidy()
    store = begun(place, "a")
    store.put_blobs({"one": b"1", "of nobody": b"2"})
    store.tidy()
    assert store.blobs(["one", "of nobody"]) == {"one": b"1", "of nobody": b"2"}  # it is undecided
    to_apply(store)
    assert store.commit(record(digests=("one",)))
    store.tidy()
    store.tidy()
    assert store.blobs(["one"]) == {"one": b"1"}
    assert [each.generation for each in store.journal(RELEASE)] == [1]
    assert store.begin(transaction("t2", base=1, generation=2))
    assert store.blobs(["one", "of nobody"]) == {"one": b"1"}


def test_a_vote_on_another_transaction_is_refused(place):
    store = begun(place, "a")
    assert not store.vote(Vote("t0", Ballot.PREPARED, "a", ok=True))
    assert store.view(RELEASE).votes == ()


@pytest.mark.parametrize("decide", ["commit", "abort"])
def test_after_the_decision_only_that_it_was_carried_out_can_be_said(place, decide):
    store = begun(place, "a")
    to_apply(store)
    assert store.commit(record()) if decide == "commit" else store.abort("t1", "enough")
    if decide == "abort":  # for a commit all have said so already
        assert not store.vote(Vote("t1", Ballot.PREPARED, "a", ok=True))
        assert not store.vote(Vote("t1", Ballot.APPLIED, "a", ok=True))
    assert store.vote(Vote("t1", Ballot.SETTLED, "a", ok=True))


def test_a_new_transaction_has_no_votes(place):
    store = begun(place, "a")
    store.vote(Vote("t1", Ballot.PREPARED, "a", ok=True))
    store.abort("t1", "enough")
    store.begin(transaction("t2"))
    assert store.view(RELEASE).votes == ()
    assert not store.vote(Vote("t1", Ballot.SETTLED, "a", ok=True))


# Deciding -----------------------------------------------------------------------------------------------------------


def test_a_commit_is_decision_and_record_in_one(place):
    store = begun(place, "a")
    to_apply(store)
    assert store.commit(record(digests=("d1",)))
    view = place.store("b").view(RELEASE, "t1")
    assert (view.head, view.newest, view.active.phase, view.outcome) == (1, 1, Phase.COMMITTED, Phase.COMMITTED)
    assert list(place.store("b").journal(RELEASE)) == [record(digests=("d1",))]


def test_only_what_has_been_applied_is_committed(place):
    store = begun(place, "a")
    assert not store.commit(record())
    store.advance("t1", to=Phase.PREPARE, deadline=1.0)
    assert not store.commit(record())
    assert not store.commit(record("t0"))
    assert store.view(RELEASE).head == 0
    assert list(store.journal(RELEASE)) == []


def test_what_was_aborted_is_not_committed(place):
    store = begun(place, "a")
    to_apply(store)
    assert place.store("b").abort("t1", "enough")
    assert not store.commit(record())
    assert list(store.journal(RELEASE)) == []
    assert store.view(RELEASE, "t1").outcome is Phase.ABORTED
    assert store.view(RELEASE).active.reason == "enough"


def test_what_was_committed_is_not_aborted(place):
    store = begun(place, "a")
    to_apply(store)
    store.commit(record())
    assert not store.abort("t1", "too late")
    assert not store.commit(record())
    assert store.view(RELEASE, "t1").outcome is Phase.COMMITTED
    assert len(store.journal(RELEASE)) == 1


def test_an_abort_of_something_else_is_refused(place):
    store = begun(place, "a")
    assert not store.abort("t0", "enough")
    assert store.view(RELEASE).active.phase is Phase.STAGING


def test_a_decision_is_remembered_when_others_have_followed(place):
    join(place, "a")
    store = place.store("a")
    committed(store, 1)
    store.begin(transaction("broken", base=1, generation=2))
    store.abort("broken", "enough")
    committed(store, 2, obsolete=[1])
    assert store.view(RELEASE, "t1").outcome is Phase.COMMITTED
    assert store.view(RELEASE, "broken").outcome is Phase.ABORTED
    assert store.view(RELEASE, "unheard of").outcome is Phase.ABORTED


def test_of_many_that_decide_at_once_one_does(place):
    names = [f"m{number}" for number in range(4)]
    store = begun(place, "a", *names)
    to_apply(store)
    start = threading.Barrier(len(names) + 1)
    done = []

    def abort(name):
        start.wait(PATIENCE)
        done.append(place.store(name).abort("t1", name))

    def commit():
        start.wait(PATIENCE)
        done.append(store.commit(record()))

    threads = [threading.Thread(target=abort, args=(name,)) for name in names] + [threading.Thread(target=commit)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(done) == [False] * len(names) + [True]
    assert (store.view(RELEASE).head == 1) is (store.view(RELEASE, "t1").outcome is Phase.COMMITTED)


def test_votes_that_are_cast_at_once_all_count(place):
    names = [f"m{number}" for number in range(6)]
    store = begun(place, "a", *names)
    start = threading.Barrier(len(names))
    counted = []

    def vote(name):
        start.wait(PATIENCE)
        counted.append(place.store(name).vote(Vote("t1", Ballot.PREPARED, name, ok=True)))

    threads = [threading.Thread(target=vote, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert set(store.view(RELEASE).voted(Ballot.PREPARED)) == set(names)
    assert max(counted) == len(names)  # so that somebody knows that it was the last one


# The journal --------------------------------------------------------------------------------------------------------


def test_obsolete_records_leave_the_journal_with_the_commit(place):
    join(place, "a")
    store = place.store("a")
    for generation in (1, 2, 3):
        committed(store, generation)
    committed(store, 4, obsolete=[1, 3])
    assert [each.generation for each in store.journal(RELEASE)] == [2, 4]


def test_a_refused_commit_makes_nothing_obsolete(place):
    join(place, "a")
    store = place.store("a")
    committed(store, 1)
    store.begin(transaction("t2", base=1, generation=2))
    assert not store.commit(record("t2", generation=2), obsolete=[1])
    assert [each.generation for each in store.journal(RELEASE)] == [1]


def test_blobs_come_back_as_they_were_put(store):
    store.put_blobs({"d1": b"\0source", "d2": b""})
    assert store.blobs(["d2", "d1", "d3"]) == {"d1": b"\0source", "d2": b""}
    many = {f"many {number}": bytes([number % 256]) for number in range(1200)}
    store.put_blobs(many)
    store.put_blobs({})
    assert store.blobs([*many, "d1"]) == many | {"d1": b"\0source"}
    store.put_blobs({"d1": b"mended"})
    assert store.blobs(["d1"]) == {"d1": b"mended"}


def test_blobs_are_kept_as_long_as_a_record_needs_them(place):
    join(place, "a")
    store = place.store("a")
    store.begin(transaction("t1"))
    store.put_blobs({"old": b"1", "both": b"2"})
    to_apply(store)
    store.commit(record(digests=("old", "both")))
    store.begin(transaction("t2", base=1, generation=2))
    store.put_blobs({"new": b"3", "both": b"2"})
    assert set(store.blobs(["old", "both", "new"])) == {"old", "both", "new"}
    to_apply(store, "t2")
    store.commit(record("t2", generation=2, digests=("new", "both")), obsolete=[1])
    store.begin(transaction("t3", base=2, generation=3))
    store.put_blobs({"of an aborted one": b"4"})
    assert set(store.blobs(["old", "both", "new"])) == {"both", "new"}
    store.abort("t3", "enough")
    store.begin(transaction("t4", base=2, generation=3))
    assert set(store.blobs(["of an aborted one", "both", "new"])) == {"both", "new"}


def test_a_new_release_begins_empty_with_numbers_that_go_on(place):
    join(place, "a")
    store = place.store("a")
    committed(store, 1)
    assert not store.new_release("next", only_if="another")
    assert store.new_release("next", only_if=RELEASE)
    assert not store.new_release("next", only_if="next")
    assert not store.new_release(RELEASE, only_if="next")
    view = store.view("next")
    assert (view.release, view.head) == ("next", 1)
    assert list(store.journal("next")) == []
    assert [each.generation for each in store.journal(RELEASE)] == [1]
    assert store.view(RELEASE).head == 1


# Bases --------------------------------------------------------------------------------------------------------------


def test_a_base_takes_the_place_of_the_one_before_until_something_is_committed(place):
    join(place, "a")
    store = place.store("a")
    assert store.base(RELEASE) is None
    assert store.put_base(RELEASE, b"first", {"sha256:1": b"1"})
    aborted(store, "t1")
    assert store.put_base(RELEASE, b"second", {"sha256:2": b"2"})
    assert store.begin(transaction("t2"))
    assert not store.put_base(RELEASE, b"third", {"sha256:3": b"3"})
    to_apply(store, "t2")
    assert store.commit(record("t2"))
    assert not store.put_base(RELEASE, b"fourth", {})
    assert place.store("a").base(RELEASE) == b"second"
    assert store.blobs(["sha256:1", "sha256:2", "sha256:3"]) == {"sha256:2": b"2"}


def test_blobs_of_a_base_are_kept_as_long_as_it_is_there(place):
    join(place, "a")
    store = place.store("a")
    store.put_base(RELEASE, b"first", {"sha256:1": b"1"})
    store.put_base(RELEASE, b"second", {"sha256:2": b"2"})
    committed(store, 1)
    committed(store, 2)
    assert store.blobs(["sha256:1", "sha256:2"]) == {"sha256:2": b"2"}


def test_a_base_is_of_the_release_that_workers_begin_with(place):
    join(place, "a")
    store = place.store("a")
    assert store.put_base(RELEASE, b"old", {})
    assert not store.put_base("next", b"next", {})
    store.new_release("next", only_if=RELEASE)
    assert not store.put_base(RELEASE, b"older", {})
    assert store.base("next") is None
    assert store.put_base("next", b"next", {})
    assert (store.base(RELEASE), store.base("next")) == (None, b"next")


# What is staged -----------------------------------------------------------------------------------------------------


def staged(store, name, *, seconds=60.0, release=RELEASE):
    return StagedRecord(release, name, 0, 1, store.now() + seconds, b"signed " + name.encode(), (f"sha256:{name}",))


def test_what_is_staged_takes_the_place_of_what_was_staged_before_in_its_release(place):
    store = place.store("a")
    assert store.staged(RELEASE) is None
    first, second, other = staged(store, "s1"), staged(store, "s2"), staged(store, "s3", release="next")
    for each in (first, other, second):
        store.put_staged(each)
    assert place.store("b").staged(RELEASE) == second
    assert place.store("b").staged("next") == other


def test_what_is_staged_and_its_blobs_stay_until_its_time_or_until_it_is_dropped(place):
    join(place, "a")
    store = place.store("a")
    for name, seconds in (("s1", 60.0), ("s2", 0.0)):
        store.put_staged(staged(store, name, seconds=seconds, release=RELEASE if name == "s1" else "next"))
        store.put_blobs({f"sha256:{name}": b"source"})
    aborted(store, "t1")
    assert store.blobs(["sha256:s1", "sha256:s2"]) == {"sha256:s1": b"source"}
    assert store.staged("next") is None
    assert not store.drop_staged("s2")
    assert store.drop_staged("s1")
    assert (store.staged(RELEASE), store.drop_staged("s1")) == (None, False)
    aborted(store, "t2")
    assert store.blobs(["sha256:s1"]) == {}


def test_what_is_staged_is_not_dropped_once_the_transaction_has_begun_that_commits_it(place):
    join(place, "a")
    store = place.store("a")
    store.put_staged(staged(store, "s1"))
    store.begin(transaction("s1.commit"))
    assert not store.drop_staged("s1", unless_begun="s1.commit")
    assert store.staged(RELEASE) is not None
    assert store.drop_staged("s1", unless_begun="s2.commit")


# Reports ------------------------------------------------------------------------------------------------------------


def test_reports_come_back_oldest_first_and_the_last_ones_are_kept(place):
    for number in range(REPORTS + 2):
        place.store("a").put_report(b"%d" % number, transaction=f"t{number}" if number % 2 else None)
    assert place.store("b").reports() == [b"%d" % number for number in range(2, REPORTS + 2)]
    assert place.store("b").report("t1") is None
    assert place.store("b").report("t3") == b"3"
    assert place.store("b").report("t4") is None


def test_of_a_transaction_there_is_one_report(place):
    first, second = place.store("a"), place.store("b")
    first.put_report(b"as far as others can tell", transaction="t1", only_first=True)
    first.put_report(b"of another", transaction="t2")
    second.put_report(b"too late", transaction="t1", only_first=True)
    assert first.report("t1") == b"as far as others can tell"
    second.put_report(b"what the coordinator tells", transaction="t1")
    assert first.report("t1") == b"what the coordinator tells"
    assert first.reports() == [b"what the coordinator tells", b"of another"]


# Wake-ups -----------------------------------------------------------------------------------------------------------


def test_a_wait_ends_when_somebody_rings(place):
    store = place.store("a")
    assert store.member_id
    waited = threading.Thread(target=store.wait, args=(PATIENCE,))
    waited.start()
    place.store("b").ring([store.member_id, "nobody"])
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()


def test_a_ring_before_the_wait_is_heard(place):
    store = place.store("a")
    place.store("b").ring([store.member_id])
    waited = threading.Thread(target=store.wait, args=(PATIENCE,))
    waited.start()
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()


def test_the_last_news_that_was_rung_is_heard_once(place):
    store, other = place.store("a"), place.store("b")
    assert store.member_id
    news = [News("t1", Phase.APPLY, 12.5), News("t1", Phase.COMMITTED)]
    other.ring([store.member_id], news[0])
    other.ring([store.member_id], news[1])
    other.ring([store.member_id, "nobody"])
    heard = []
    while not heard or heard[-1] != news[1]:  # they may arrive one after the other
        heard.append(store.wait(PATIENCE))
    assert set(heard) <= {*news, None}
    assert store.wait(0.05) is None


def test_news_may_carry_the_record_that_they_tell_of(place):
    store, other = place.store("a"), place.store("b")
    news = News("t1", Phase.PREPARE, 12.5, record=transaction())
    other.ring([store.member_id], news)
    assert store.wait(PATIENCE) == news


@pytest.mark.parametrize(("length", "is_told"), [(hint.LONGEST // 2, True), (hint.LONGEST, False)])
def test_news_that_are_too_long_for_a_hint_are_not_told_but_who_rings(length, is_told):
    news = News("t1", Phase.PREPARE, 12.5, record=transaction(payload=b"x" * length))
    sent = hint.written("b", news)
    assert len(sent) <= hint.LONGEST
    assert hint.read(sent) == hint.Hint("b", news if is_told else None)


def test_a_process_tells_itself_news_too(store):
    store.ring([store.member_id], News("t1", Phase.COMMITTED))
    assert store.wait(PATIENCE) == News("t1", Phase.COMMITTED)


def test_a_wait_ends_with_its_time(store):
    assert store.member_id
    before = store.now()
    store.wait(0.05)
    assert 0.04 < store.now() - before < PATIENCE / 2


def test_who_does_not_listen_delays_nobody_who_rings(place):
    place.store("b").ring(["nobody"] * 3 + [place.store("a").member_id] * 10_000)


def test_closing_ends_a_wait_and_the_member(place):
    store = place.store("b")
    assert store.member_id
    waited = threading.Thread(target=store.wait, args=(PATIENCE,))
    waited.start()
    place.end("b")
    store.close()
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()

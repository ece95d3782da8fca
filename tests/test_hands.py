"""Votes that take no turn at a store's file."""

import os
import resource
import threading

import pytest

from flask_hotreload.coordination.hands import Hands
from flask_hotreload.coordination.records import Ballot, Vote
from flask_hotreload.errors import StoreUnavailable


def vote(member="a", transaction="t1", *, ok=True, detail=b"{}"):
    return Vote(transaction, Ballot.APPLIED, member, ok, detail)


@pytest.fixture
def place(tmp_path):
    opened = []

    def enter():
        opened.append(Hands(tmp_path / "store", Ballot.APPLIED))
        return opened[-1]

    yield enter
    for each in opened:
        each.close()


def test_a_vote_counts_for_everybody(place):
    one, other = place(), place()
    one.call("t1")
    told = b'{"error": "\xc3\xa4\\n"}'
    assert [one.vote(vote("a")), other.vote(vote("b", ok=False, detail=told)), one.vote(vote("c"))] == [1, 1, 2]
    assert other.votes("t1") == (vote("a"), vote("b", ok=False, detail=told), vote("c"))


@pytest.mark.parametrize("second", [True, False])
def test_a_member_votes_once(place, second):
    hands = place()
    hands.call("t1")
    assert hands.vote(vote("a", ok=False, detail=b"first")) == 0
    hands.vote(vote("b"))
    assert place().vote(vote("a", ok=second)) == 0
    assert set(hands.votes("t1")) == {vote("a", ok=False, detail=b"first"), vote("b")}


def test_what_is_not_called_for_does_not_count(place):
    hands = place()
    assert hands.vote(vote()) == 0
    hands.call("t2")
    assert hands.vote(vote()) == 0
    assert (hands.votes("t1"), hands.votes("t2")) == (None, ())


def test_what_comes_after_the_end_does_not_count(place):
    hands = place()
    hands.call("t1")
    assert hands.vote(vote("a")) == 1
    place().end("t1")
    assert hands.vote(vote("b")) == 0
    assert hands.votes("t1") == (vote("a"),)


def test_the_next_call_begins_anew(place):
    one, other = place(), place()
    one.call("t1")
    one.vote(vote("a"))
    other.call("t2")
    assert one.votes("t1") is None
    assert one.vote(vote("a")) == 0
    assert other.vote(vote("a", "t2")) == 1


@pytest.mark.parametrize(
    ("transaction", "member"), [('t"1', 'a"'), ("t 1 {", "a {\t\n"), ("t1\tyes\t", "\r\x0b"), ("ü\u2028", "\x1c")]
)
def test_ids_may_be_any_text(place, transaction, member):
    hands = place()
    hands.call(transaction)
    assert hands.vote(vote(member, transaction)) == 1
    assert hands.votes(transaction) == (vote(member, transaction),)


def test_an_id_that_begins_like_another_is_another(place):
    hands = place()
    hands.call("t1")
    hands.vote(vote("a", "t"))
    assert hands.vote(vote("ab")) == 1
    assert hands.vote(vote("a")) == 2


def test_of_votes_that_are_cast_at_once_the_last_counts_all(place):
    members, rounds = 8, 50
    hands = [place() for _ in range(members)]
    told = [[] for _ in range(rounds)]
    start = threading.Barrier(members)

    def take_part(number):
        for turn in range(rounds):
            start.wait(30)
            if number == 0:
                hands[0].call(f"t{turn}")
            start.wait(30)
            told[turn].append(hands[number].vote(vote(str(number), f"t{turn}")))

    threads = [threading.Thread(target=take_part, args=(number,)) for number in range(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [max(each) for each in told] == [members] * rounds


def test_a_vote_that_was_cut_off_does_not_count_and_harms_no_other(place):
    hands = place()
    hands.call("t1")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    hands.vote(vote("a"))
    written = os.path.getsize(hands._path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="space"):
            hands.vote(vote("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.path.getsize(hands._path) == written + 20
    assert hands.vote(vote("c")) == 2
    assert hands.votes("t1") == (vote("a"), vote("c"))


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_was_deleted_is_missed(place, tmp_path, replaced):
    hands = place()
    (tmp_path / "store.applied").unlink()
    if replaced:
        place()
    for act in (lambda: hands.call("t1"), lambda: hands.vote(vote())):
        with pytest.raises(StoreUnavailable, match=r"store\.applied was deleted or replaced.*restart"):
            act()


def test_nobody_else_can_write(place, tmp_path):
    place()
    assert os.stat(tmp_path / "store.applied").st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_not_followed(place, tmp_path):
    (tmp_path / "store.applied").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        place()
    assert not (tmp_path / "elsewhere").exists()

"""What is signed is verified once for its place, and anew for any other."""

from __future__ import annotations

import pytest

from flask_hotreload.coordination.payload import Payload, hash_of
from flask_hotreload.coordination.records import JournalRecord
from flask_hotreload.coordination.verified import RECENT, Verified
from flask_hotreload.errors import StoreUnavailable


class Unsealing:
    """Opens what begins with a good signature. ``asked``: for what, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int, str]] = []

    def __call__(self, signed: bytes, generation: int, transaction: str) -> Payload:
        self.asked.append((signed, generation, transaction))
        if not signed.startswith(b"good"):
            raise StoreUnavailable("not signed by this deployment")
        return Payload("app", "0", generation, transaction, "http", None, "", {"data": []})


def record(generation: int, signed: bytes = b"good") -> JournalRecord:
    return JournalRecord("0", generation, f"t{generation}", signed, ())


@pytest.fixture
def unsealing() -> Unsealing:
    return Unsealing()


@pytest.fixture
def verified(unsealing: Unsealing) -> Verified:
    return Verified(unsealing)


def test_the_same_bytes_at_the_same_place_are_verified_once(verified, unsealing):
    first = verified.payload(b"good", 1, "t1")
    assert verified.payload(bytes(bytearray(b"good")), 1, "t1") is first
    assert verified.journal([record(1)]) == [(first, hash_of(b"good"))]
    assert len(unsealing.asked) == 1


@pytest.mark.parametrize(
    ("signed", "generation", "transaction"), [(b"good!", 1, "t1"), (b"good", 2, "t1"), (b"good", 1, "u")]
)
def test_other_bytes_or_another_place_are_verified_anew(verified, unsealing, signed, generation, transaction):
    verified.payload(b"good", 1, "t1")
    verified.payload(signed, generation, transaction)
    assert unsealing.asked[1:] == [(signed, generation, transaction)]


def test_bytes_that_took_the_place_of_verified_ones_in_the_journal_are_refused(verified, unsealing):
    verified.journal([record(1), record(2)])
    with pytest.raises(StoreUnavailable):
        verified.journal([record(1), record(2, b"bad")])
    with pytest.raises(StoreUnavailable):  # and what was refused is not remembered
        verified.payload(b"bad", 2, "t2")


def test_a_journal_however_long_is_verified_once(verified, unsealing):
    records = [record(number) for number in range(10 * RECENT)]
    entries = verified.journal(records)
    assert verified.journal([*records, record(1000)])[:-1] == entries
    assert len(unsealing.asked) == len(records) + 1


def test_what_has_left_the_journal_is_forgotten(verified, unsealing):
    verified.journal([record(1), record(2)])
    verified.journal([record(2)])
    verified.payload(b"good", 1, "t1")
    assert len(unsealing.asked) == 3


def test_of_what_is_in_no_journal_the_last_few_are_remembered(verified, unsealing):
    for number in range(RECENT + 1):
        verified.payload(b"good", number, f"t{number}")
    del unsealing.asked[:]
    verified.payload(b"good", 1, "t1")
    assert unsealing.asked == []
    verified.payload(b"good", 0, "t0")
    assert unsealing.asked == [(b"good", 0, "t0")]

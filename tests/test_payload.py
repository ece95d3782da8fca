"""The journal: what a record does, what a later one makes superfluous, and what must not be replayed."""

from __future__ import annotations

import pytest

from flask_hotreload.coordination.payload import (
    LiveRecord,
    Payload,
    hash_of,
    keys_of,
    remaining,
    seal,
    unseal,
    with_kept_settings,
)
from flask_hotreload.coordination.signing import Signer
from flask_hotreload.errors import StoreUnavailable

PLACE = {"deployment": "app", "release": "0", "generation": 4, "transaction": "t"}


def entry(dispatcher="f", **more):
    return {"dispatcher": dispatcher, "path": "/api", "scriptPath": "/a.py", "exclusiveModule": False,
            "isInstance": False, "overload": [], **more}  # fmt: skip


def document(*entries, clear_old=False):
    return {"data": list(entries), "clearOld": clear_old}


def payload(**changed):
    return Payload(**{**PLACE, "trigger": "http", "actor": None, "started_at": "", "document": {}, **changed})


def record(generation, *entries, modules=("a",)):
    return LiveRecord(generation, f"hash {generation}", keys_of(document(*entries), modules))


def test_a_sealed_payload_is_opened_at_its_own_place():
    signer = Signer(b"k" * 32)
    assert unseal(seal(payload(), signer), signer, **PLACE) == payload()


@pytest.mark.parametrize(
    ("field", "value"), [("deployment", "b"), ("release", "1"), ("generation", 5), ("transaction", "u")]
)
def test_a_payload_is_refused_at_any_other_place(field, value):
    signer = Signer(b"k" * 32)
    with pytest.raises(StoreUnavailable, match="another place"):
        unseal(seal(payload(), signer), signer, **{**PLACE, field: value})


def test_a_payload_of_another_key_is_refused():
    with pytest.raises(StoreUnavailable):
        unseal(seal(payload(), Signer(b"k" * 32)), Signer(b"l" * 32), **PLACE)


def test_every_byte_of_a_sealed_payload_counts():
    signer = Signer(b"k" * 32)
    sealed = seal(payload(), signer)
    for position in range(0, len(sealed), 7):
        tampered = bytearray(sealed)
        tampered[position] ^= 1
        with pytest.raises(StoreUnavailable):
            unseal(bytes(tampered), signer, **PLACE)
        assert hash_of(bytes(tampered)) != hash_of(sealed)


def test_a_later_record_of_the_same_dispatcher_supersedes_the_earlier_one():
    assert remaining([record(1, entry())], record(2, entry()).keys, clear_old=False) == []


def test_a_record_stays_for_each_dispatcher_that_nobody_has_reloaded_since():
    [left] = remaining([record(1, entry("f"), entry("g"))], record(2, entry("f")).keys, clear_old=False)
    assert [key for key in left.keys if "'g'" in key]
    assert not [key for key in left.keys if "'f'" in key]


def test_a_record_stays_for_a_module_that_it_was_first_to_import():
    [left] = remaining([record(1, entry(), modules=("a", "helper"))], record(2, entry()).keys, clear_old=False)
    assert left.keys == ("module helper",)


def test_a_record_stays_for_a_callback_that_has_not_run_again():
    earlier = record(1, entry(overload=["hand_over"]))
    [left] = remaining([earlier], record(2, entry()).keys, clear_old=False)
    assert [key.split()[0] for key in left.keys] == ["callback"]
    assert remaining([earlier], record(2, entry(overload=["hand_over"])).keys, clear_old=False) == []


def test_a_record_stays_for_an_authorize_of_its_module():
    [left] = remaining([record(1, entry(authorize="guard"))], record(2, entry()).keys, clear_old=False)
    assert [key.split()[0] for key in left.keys] == ["authorize"]


def test_clearing_the_old_ones_supersedes_dispatchers_but_not_what_callbacks_did():
    earlier = record(1, entry("f"), entry("g", overload=["hand_over"]))
    [left] = remaining([earlier], record(2, entry("h")).keys, clear_old=True)
    assert [key.split()[0] for key in left.keys] == ["callback"]


def test_settings_that_a_dispatcher_kept_are_written_out():
    earlier = [document(entry(lock=True, aliases=["e"])), document(entry(validate=False))]
    [kept] = with_kept_settings(document(entry(aliases=[])), earlier)["data"]
    assert (kept["lock"], kept["validate"], kept["aliases"]) == (True, False, [])


def test_settings_are_not_kept_over_a_clearing():
    earlier = [document(entry(lock=True)), document(entry("g"), clear_old=True)]
    [kept] = with_kept_settings(document(entry()), earlier)["data"]
    assert "lock" not in kept

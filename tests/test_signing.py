"""What is signed is what is executed."""

import os
import stat
import threading

import pytest

from flask_hotreload.coordination.signing import SHORTEST_KEY, SignatureInvalid, Signer, key_beside
from flask_hotreload.errors import StoreUnavailable

KEY = b"0123456789abcdef"


@pytest.mark.parametrize("data", [b"", b"text", b"\0\xff.binary.", b"x" * 1_000_000])
def test_what_was_signed_comes_back(data):
    assert Signer(KEY).verify(Signer(KEY).sign(data)) == data


def test_every_changed_byte_is_noticed():
    signer = Signer(KEY)
    signed = signer.sign(b"the record")
    for place in range(len(signed)):
        for change in (0x01, 0x80):
            tampered = bytearray(signed)
            tampered[place] ^= change
            with pytest.raises(SignatureInvalid):
                signer.verify(bytes(tampered))


@pytest.mark.parametrize("cut", [0, 1, 10, 20, -1])
def test_every_cut_is_noticed(cut):
    with pytest.raises(SignatureInvalid):
        Signer(KEY).verify(Signer(KEY).sign(b"the record")[:cut])


def test_another_key_is_noticed_and_the_error_names_what_and_the_setting():
    signed = Signer(b"another key of enough bytes").sign(b"the record")
    with pytest.raises(StoreUnavailable, match=r"the record of generation 4 .*HOTRELOAD_SIGNING_KEY"):
        Signer(KEY).verify(signed, what="the record of generation 4")


def test_a_signature_of_something_else_in_the_same_application_is_worth_nothing():
    from itsdangerous import Signer as Plain

    with pytest.raises(SignatureInvalid):
        Signer(KEY).verify(Plain(KEY).sign(b"the record"))


def test_a_key_that_can_be_guessed_is_refused():
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Signer(KEY[: SHORTEST_KEY - 1])


# The key in a file --------------------------------------------------------------------------------------------------


def test_the_key_is_random_stays_and_is_private(tmp_path):
    previous = os.umask(0)
    try:
        key = key_beside(tmp_path / "store.sqlite")
    finally:
        os.umask(previous)
    assert key_beside(tmp_path / "store.sqlite") == key
    assert key_beside(tmp_path / "another.sqlite") != key
    assert len(key) >= 32
    assert stat.S_IMODE((tmp_path / "store.sqlite.key").stat().st_mode) == 0o600


def test_of_many_that_come_first_all_have_one_key(tmp_path):
    start = threading.Barrier(16)
    keys = []

    def come():
        start.wait(10)
        keys.append(key_beside(tmp_path / "store.sqlite"))

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 16
    assert len(set(keys)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["store.sqlite.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    key_beside(tmp_path / "store.sqlite")
    (tmp_path / "store.sqlite.key").chmod(mode)
    with pytest.raises(StoreUnavailable, match="chmod 600"):
        key_beside(tmp_path / "store.sqlite")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_somebody_else_is_refused(tmp_path):
    key_beside(tmp_path / "store.sqlite")
    os.chown(tmp_path / "store.sqlite.key", 65534, 65534)
    with pytest.raises(StoreUnavailable, match="chown"):
        key_beside(tmp_path / "store.sqlite")


def test_a_link_to_a_key_is_refused(tmp_path):
    (tmp_path / "elsewhere").write_bytes(KEY)
    (tmp_path / "elsewhere").chmod(0o600)
    (tmp_path / "store.sqlite.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="HOTRELOAD_SIGNING_KEY"):
        key_beside(tmp_path / "store.sqlite")


def test_a_key_that_was_cut_is_refused(tmp_path):
    (tmp_path / "store.sqlite.key").write_bytes(b"short")
    (tmp_path / "store.sqlite.key").chmod(0o600)
    with pytest.raises(StoreUnavailable, match="5 bytes"):
        key_beside(tmp_path / "store.sqlite")


def test_a_folder_that_is_not_there_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(StoreUnavailable, match="HOTRELOAD_SIGNING_KEY"):
        key_beside(tmp_path / "nowhere" / "store.sqlite")

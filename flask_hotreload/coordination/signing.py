"""Signatures of what travels through the store: who can write the store cannot make the workers run anything."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from itsdangerous import BadSignature
from itsdangerous import Signer as _Signer

from flask_hotreload.errors import StoreUnavailable

#: Shorter keys are refused. Bytes.
SHORTEST_KEY = 16
_KEY_BYTES = 32


class SignatureInvalid(StoreUnavailable):
    """Something in the store was not signed with this deployment's key; nothing of it is executed."""


class Signer:
    """HMAC-SHA-256 over bytes. ``key``: at least ``SHORTEST_KEY`` bytes, the same in every worker."""

    def __init__(self, key: bytes) -> None:
        """Raise ``ValueError`` for a key that is too short."""
        if len(key) < SHORTEST_KEY:
            raise ValueError(
                f"a signing key needs at least {SHORTEST_KEY} bytes, not {len(key)}: secrets.token_hex(32)"
            )
        deriving = _Signer(key, salt=b"flask_hotreload", key_derivation="hmac", digest_method=hashlib.sha256)
        # Once, not at each signature.
        self._signer = _Signer(deriving.derive_key(), key_derivation="none", digest_method=hashlib.sha256)

    def sign(self, data: bytes) -> bytes:
        """``data``, and after it the signature."""
        return self._signer.sign(data)

    def verify(self, signed: bytes, *, what: str = "a record of the store") -> bytes:
        """The data that was signed. Raise :class:`SignatureInvalid`, which names ``what`` it was."""
        try:
            return self._signer.unsign(signed)
        except BadSignature:
            raise SignatureInvalid(
                f"{what} is not signed with this deployment's key, so nothing of it is executed; either it was "
                "tampered with, or the workers do not share one HOTRELOAD_SIGNING_KEY"
            ) from None


def key_beside(store: Path) -> bytes:
    """The random key in the file beside ``store``, made by whoever comes first, readable by its owner only.

    Raise :class:`StoreUnavailable`, also if somebody else owns the file or can read it.
    """
    file = Path(f"{store}.key")
    try:
        if not file.exists():
            _make(file)
        return _read(file)
    except OSError as error:
        raise StoreUnavailable(
            f"the signing key {file} cannot be used: {error.strerror}; set HOTRELOAD_SIGNING_KEY instead"
        ) from error


def _make(file: Path) -> None:
    """A file appears under its name complete or not at all, and the first one stays."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
    finally:
        os.unlink(draft)


def _read(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        key = opened.read()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StoreUnavailable(
            f"the signing key {file} may be known to others: make it yours alone (chown, chmod 600), or remove it "
            "while no worker runs"
        )
    if len(key) < SHORTEST_KEY:
        raise StoreUnavailable(
            f"the signing key {file} is only {len(key)} bytes long; remove it while no worker runs"
        )
    return key

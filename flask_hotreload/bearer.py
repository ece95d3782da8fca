"""The control token, and who has it."""

from __future__ import annotations

import hmac
from collections.abc import Sequence


def given_token(authorization: str) -> str:
    """The token in the value of an ``Authorization`` header; empty: there is none."""
    scheme, _, given = authorization.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def matching(tokens: Sequence[str], given: str) -> str | None:
    """That of ``tokens`` which is ``given``; ``None``: it is none of them.

    Each is compared, and each in constant time, so that the time tells nothing.
    """
    found = [token for token in tokens if hmac.compare_digest(token.encode(), given.encode("utf-8", "replace"))]
    return found[0] if found else None

"""One JSON line for every attempt at a control route, on the logger ``flask_hotreload.audit``."""

from __future__ import annotations

import hashlib
import logging

import msgspec

from flask_hotreload.report import utc_now

_log = logging.getLogger("flask_hotreload.audit")


def token_fingerprint(token: str) -> str:
    """The first 8 hexadecimal digits of the token's SHA-256: enough to tell tokens apart, useless to guess one."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def record(*, actor: str, method: str, path: str, status: int, outcome: str) -> None:
    """Write one line. JSON escapes what a client may have put into it, line breaks included."""
    entry = {
        "at": utc_now(), "actor": actor, "method": method, "path": path, "status": status, "outcome": outcome
    }  # fmt: skip
    _log.info("%s", msgspec.json.encode(entry).decode().encode("ascii", "backslashreplace").decode())

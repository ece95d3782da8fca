"""RFC 9457 problem documents, the one form of an HTTP error here."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

MIMETYPE = "application/problem+json"


def problem(status: int, detail: str, **members: Any) -> bytes:
    """``{"type", "title", "status", "detail"}`` and further members, as JSON."""
    return msgspec.json.encode(
        {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    )

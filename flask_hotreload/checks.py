"""Checks: calls and URLs that must answer as the document says, run against the staged generation.

They go through the application as a request does, hooks and all, by werkzeug's client. The caller's context decides
which generation answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from werkzeug.test import Client

from flask_hotreload.errors import CheckFailed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_hotreload.document import Check

_SHOWN = 300  # characters of an answer that an error quotes


def verify(check: Check, wsgi_app: WSGIApplication) -> None:
    """Raise :class:`CheckFailed` that says what was expected and what was answered."""
    try:
        if check.url is not None:
            _verify_url(check, Client(wsgi_app))
        else:
            _verify_method(check, Client(wsgi_app))
    except CheckFailed:
        raise
    except Exception as error:
        raise CheckFailed(f"check of {check}: the application raised {type(error).__name__}: {error}") from error


def _verify_url(check: Check, client: Client) -> None:
    with client.get(str(check.url)) as response:
        text = response.get_data(as_text=True)
        if response.status_code != check.status:
            raise CheckFailed(f"check of {check}: expected status {check.status}, got {response.status_code}")
        if check.contains is not None and check.contains not in text:
            raise CheckFailed(f"check of {check}: the answer does not contain {check.contains!r}: {text[:_SHOWN]!r}")


def _verify_method(check: Check, client: Client) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": check.method, "params": check.params}
    body = msgspec.json.encode(call)
    with client.post(str(check.path), data=body, content_type="application/json") as response:
        answered = response.get_data()
    try:
        answer = msgspec.json.decode(answered)
    except msgspec.DecodeError:
        raise CheckFailed(f"check of {check}: no JSON-RPC answer: {response.status} {answered[:_SHOWN]!r}") from None
    if not isinstance(answer, dict) or "result" not in answer:
        error = answer.get("error") if isinstance(answer, dict) else answer
        raise CheckFailed(f"check of {check}: answered the error {error!r}")
    if check.expected is not None and answer["result"] != _as_json(check.expected[0]):
        raise CheckFailed(f"check of {check}: expected {check.expected[0]!r}, got {answer['result']!r}")


def _as_json(value: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))

"""The Flask view functions of dispatchers: what stands between a request of Flask and the JSON-RPC layer.

Two kinds, each with one static rule: ``POST <path>`` answers JSON-RPC, ``POST <path>/<name>`` calls one dispatcher. A
view looks its dispatcher up in the generation that the request runs, so the same view serves every generation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Response, got_request_exception, request
from werkzeug.exceptions import HTTPException

from flask_hotreload.errors import JSONRPCError
from flask_hotreload.jsonrpc import CallFailed, Endpoint
from flask_hotreload.problem import MIMETYPE, problem

if TYPE_CHECKING:
    from flask_hotreload.dispatch import DispatchTable

View = Callable[[], Response]

_JSON = "application/json"
_UNSUPPORTED = (
    "an API call is application/json; a page's form must not be able to make one. "
    "With curl: -H 'Content-Type: application/json'"
)


class Views:
    """Makes the views of one application. ``table`` gives the dispatch table that the current request runs."""

    def __init__(self, app: Flask, table: Callable[[], DispatchTable], *, max_batch: int) -> None:
        self._response = app.response_class
        self._table = table
        self._endpoint = Endpoint(
            max_batch=max_batch,
            debug=lambda: app.debug,
            on_error=lambda error: _report(app, error),
            translate=_translate,
        )

    def make(self, path: str, name: str | None) -> View:
        """The view of ``POST path`` (no ``name``) or ``POST path/name``."""
        return self._rpc_view(path) if name is None else self._call_view(path, name)

    def _rpc_view(self, path: str) -> View:
        table, answer, response = self._table, self._endpoint.answer, self._response

        def view() -> Response:
            body = self._body()
            if isinstance(body, Response):
                return body
            answered = answer(body, table().methods(path))
            if answered is None:
                return response(status=204)
            return response(answered, mimetype=_JSON)

        return view

    def _call_view(self, path: str, name: str) -> View:
        def view() -> Response:
            body = self._body(may_be_empty=True)
            if isinstance(body, Response):
                return body
            method = self._table().methods(path).get(name)
            if method is None:
                return self._problem(404, f"{name!r} is not served at {path!r}")
            try:
                return self._response(self._endpoint.call(body, method), mimetype=_JSON)
            except CallFailed as failed:
                if failed.data is None:
                    return self._problem(failed.status, failed.message, code=failed.code)
                return self._problem(failed.status, failed.message, code=failed.code, data=failed.data)

        return view

    def _body(self, *, may_be_empty: bool = False) -> bytes | Response:
        """What the client sent, or the answer that refuses it."""
        if request.environ.get("CONTENT_TYPE") != _JSON and not _is_json(may_be_empty=may_be_empty):
            return self._problem(415, _UNSUPPORTED)
        try:
            return request.get_data()
        except HTTPException as error:  # too large, or the client hung up
            return self._problem(error.code or 400, error.description or error.name)

    def _problem(self, status: int, detail: str, **members: object) -> Response:
        return self._response(problem(status, detail, **members), status=status, mimetype=MIMETYPE)


def _is_json(*, may_be_empty: bool) -> bool:
    if request.is_json or request.mimetype == "application/json-rpc":
        return True
    return may_be_empty and not request.mimetype and not request.content_length


def _translate(error: Exception) -> JSONRPCError | None:
    """A werkzeug error that a dispatcher raises, by ``abort(404)`` for instance, in terms of JSON-RPC."""
    if not isinstance(error, HTTPException):
        return None
    return JSONRPCError(-32000, error.description or error.name, {"status": error.code, "name": error.name})


def _report(app: Flask, error: Exception) -> None:
    """What Flask does about an unhandled exception of a view: log it, and tell who listens."""
    app.log_exception(sys.exc_info())
    got_request_exception.send(app, _async_wrapper=app.ensure_sync, exception=error)

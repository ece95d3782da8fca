"""The Flask view functions of dispatchers: what stands between a request of Flask and the JSON-RPC layer.

Three kinds, each with one static rule: ``POST <path>`` answers JSON-RPC, ``POST <path>/<name>`` calls one dispatcher,
``GET <path>/openrpc.json`` tells what can be called. A view looks its dispatcher up in the generation that the
request runs, so the same view serves every generation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import msgspec
from flask import Flask, Request, Response, got_request_exception, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream

from flask_hotreload.discovery import Discovery
from flask_hotreload.errors import JSONRPCError
from flask_hotreload.jsonrpc import CallFailed, Endpoint
from flask_hotreload.openrpc import DISCOVER
from flask_hotreload.problem import MIMETYPE, problem

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from flask_hotreload.generation import Generation

View = Callable[[], Response]

_JSON = "application/json"
_UNSUPPORTED = (
    "an API call is application/json; a page's form must not be able to make one. "
    "With curl: -H 'Content-Type: application/json'"
)


class Views:
    """Makes the views of one application.

    ``pinned()``
        The generation that the current request runs.
    ``documented``
        Whether ``rpc.discover`` can be called.
    """

    def __init__(
        self, app: Flask, pinned: Callable[[], Generation], *, max_batch: int, documented: bool = True
    ) -> None:
        self._app = app
        self._pinned = pinned
        self._documented = documented
        self._discovery = Discovery(app.name, pinned)
        self._endpoint = Endpoint(
            max_batch=max_batch,
            debug=lambda: app.debug,
            on_error=lambda error: _report(app, error),
            translate=_translate,
        )

    def make(self, path: str, name: str | None) -> View:
        """The view of ``POST path`` (no ``name``), of ``GET path/openrpc.json`` (its name) or ``POST path/name``."""
        if name is None:
            return self._rpc_view(path)
        return self._document_view(path) if name == DISCOVER else self._call_view(path, name)

    def _rpc_view(self, path: str) -> View:
        app, pinned, answer = self._app, self._pinned, self._endpoint.answer
        built_in = {DISCOVER: self._discovery.method(path)} if self._documented else {}

        def view() -> Response:
            body = self._body(_current_request())
            if isinstance(body, Response):
                return body
            answered = answer(body, pinned().table.methods(path), built_in)
            if answered is None:
                return app.response_class(status=204)
            return app.response_class(answered, content_type=_JSON)

        return view

    def _call_view(self, path: str, name: str) -> View:
        def view() -> Response:
            body = self._body(_current_request(), may_be_empty=True)
            if isinstance(body, Response):
                return body
            method = self._pinned().table.methods(path).get(name)
            if method is None:
                return self._problem(404, f"{name!r} is not served at {path!r}")
            try:
                return self._app.response_class(self._endpoint.call(body, method), content_type=_JSON)
            except CallFailed as failed:
                if failed.data is None:
                    return self._problem(failed.status, failed.message, code=failed.code)
                return self._problem(failed.status, failed.message, code=failed.code, data=failed.data)

        return view

    def _document_view(self, path: str) -> View:
        def view() -> Response:
            if not self._pinned().table.methods(path):
                return self._problem(404, f"nothing is served at {path!r}")
            document = msgspec.json.encode(self._discovery.document(path))
            return self._app.response_class(document, content_type=_JSON)

        return view

    def _body(self, current: Request, *, may_be_empty: bool = False) -> bytes | Response:
        """What the client sent, or the answer that refuses it."""
        if current.environ.get("CONTENT_TYPE") != _JSON and not _is_json(current, may_be_empty=may_be_empty):
            return self._problem(415, _UNSUPPORTED)
        try:
            return _read(current)
        except HTTPException as error:  # too large, or the client hung up
            return self._problem(error.code or 400, error.description or error.name)

    def _problem(self, status: int, detail: str, **members: object) -> Response:
        return self._app.response_class(problem(status, detail, **members), status=status, content_type=MIMETYPE)


def _current_request() -> Request:
    """The request itself: each look at an attribute through Flask's proxy would find it anew."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]  # a proxy, typed as what it stands for
    return current


def _is_json(current: Request, *, may_be_empty: bool) -> bool:
    if current.is_json or current.mimetype == "application/json-rpc":
        return True
    return may_be_empty and not current.mimetype and not current.content_length


def _read(current: Request) -> bytes:
    """The same as ``current.get_data()``, 8 µs sooner for the usual body: one of known length that nobody has read.

    Raise what it raises: :class:`RequestEntityTooLarge`, :class:`ClientDisconnected`. Whoever asks the request for
    its body later finds it there.
    """
    environ = current.environ
    if type(current) is not Request or "stream" in vars(current) or "HTTP_TRANSFER_ENCODING" in environ:
        return current.get_data()
    length = environ.get("CONTENT_LENGTH", "")
    if not (length.isascii() and length.isdigit()):
        return current.get_data()
    body = _read_length(environ, int(length), current.max_content_length)
    current.stream = BytesIO(body)
    return body


def _read_length(environ: WSGIEnvironment, length: int, limit: int | None) -> bytes:
    if limit is not None and length > limit:
        raise RequestEntityTooLarge
    source = environ["wsgi.input"]
    body: bytes = source.read(length)
    if len(body) < length:  # a server may give less than it was asked for; one that gives nothing has lost the client
        body += LimitedStream(source, length - len(body)).read()
    return body


def _translate(error: Exception) -> JSONRPCError | None:
    """A werkzeug error that a dispatcher raises, by ``abort(404)`` for instance, in terms of JSON-RPC."""
    if not isinstance(error, HTTPException):
        return None
    return JSONRPCError(-32000, error.description or error.name, {"status": error.code, "name": error.name})


def _report(app: Flask, error: Exception) -> None:
    """What Flask does about an unhandled exception of a view: log it, and tell who listens."""
    app.log_exception(sys.exc_info())
    got_request_exception.send(app, _async_wrapper=app.ensure_sync, exception=error)

"""JSON-RPC calls against other libraries for Flask: the same echo in each, without a server between.

Each is used as its own documentation says for Flask, with a typed parameter; where a library checks types, it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

from flask import Flask, Response, request

from bench.echo import CALL, interleaved, post
from bench.figure import Figure
from flask_hotreload import HotRPC

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

BATCH = 100
OURS = "flask-hotreload"


class Peer(NamedTuple):
    """A library by the name under which it is installed. ``application()`` serves ``echo`` at ``/api``."""

    name: str
    checks_types: bool
    application: Callable[[], Flask]


def measure() -> list[Figure]:
    figures, applications = [], {}
    for peer in (Peer(OURS, True, _ours), *PEERS):
        try:
            applications[peer] = _checked(peer)
        except (ImportError, PackageNotFoundError) as error:
            figures.append(Figure(peer.name, f"not measured: {error}", "", None))
    single = json.dumps(CALL).encode()
    batch = json.dumps([{**CALL, "id": number} for number in range(BATCH)]).encode()
    figures += _compared("single calls", single, 1, applications, wanted=1.4)
    return figures + _compared(f"batches of {BATCH}", batch, BATCH, applications, wanted=3)


def _compared(
    what: str, body: bytes, calls: int, applications: dict[Peer, WSGIApplication], *, wanted: float
) -> list[Figure]:
    def side(app: WSGIApplication) -> Callable[[], object]:
        return lambda: post(app, body)

    times = interleaved({peer.name: side(app) for peer, app in applications.items()})
    ours = times.pop(OURS)
    figures = [Figure(f"{what}, this library", _told(ours, calls), "", None)]
    for peer in applications:
        if peer.name in times:
            unchecked = "" if peer.checks_types else ", types not checked"
            ratio = times[peer.name] / ours
            value = f"{_told(times[peer.name], calls)}: {ratio:.2f} × as long"
            figures.append(Figure(f"{what}, {peer.name} {version(peer.name)}{unchecked}", value, "", None))
    if times:
        best = min(times, key=lambda name: times[name])
        ratio = times[best] / ours
        figures.append(
            Figure(f"{what}, against the best of them, {best}", f"{ratio:.2f} ×", f"≥ {wanted:g} ×", ratio >= wanted)
        )
    return figures


def _told(seconds: float, calls: int) -> str:
    return f"{seconds * 1e6:,.1f} µs, {calls / seconds:,.0f} calls/s"


def _checked(peer: Peer) -> WSGIApplication:
    """The application, which does what is measured. Raise ``RuntimeError`` if it does not."""
    version(peer.name)
    app = peer.application()
    answer = json.loads(post(app.wsgi_app, json.dumps(CALL).encode()))
    batch = json.loads(post(app.wsgi_app, json.dumps([CALL, {**CALL, "id": 2}]).encode()))
    wrong = {**CALL, "params": [5]}
    if answer != {"jsonrpc": "2.0", "id": 1, "result": "hello"} or batch != [answer, {**answer, "id": 2}]:
        raise RuntimeError(f"{peer.name} answers {answer} and {batch}")
    if ("error" in app.test_client().post("/api", json=wrong).get_json()) is not peer.checks_types:
        raise RuntimeError(f"{peer.name} does {'not ' if peer.checks_types else ''}check types")
    return app.wsgi_app


def _ours() -> Flask:
    app = Flask("ours")
    rpc = HotRPC(app)

    @rpc.dispatcher("/api")
    def echo(data: str) -> str:
        return data

    return app


def _flask_jsonrpc() -> Flask:
    from flask_jsonrpc import JSONRPC

    app = Flask("flask_jsonrpc_peer")
    jsonrpc = JSONRPC(app, "/api")

    @jsonrpc.method("echo")
    def echo(data: str) -> str:
        return data

    return app


def _jsonrpcserver() -> Flask:
    from jsonrpcserver import Result, Success, dispatch, method

    app = Flask("jsonrpcserver_peer")

    @method
    def echo(data: str) -> Result:
        return Success(data)

    @app.post("/api")
    def index() -> Response:
        return Response(dispatch(request.get_data().decode()), content_type="application/json")

    return app


def _pjrpc() -> Flask:
    from pjrpc.server import MethodRegistry
    from pjrpc.server.integration.flask import JsonRPC
    from pjrpc.server.validators.pydantic import PydanticValidatorFactory

    app = Flask("pjrpc_peer")
    methods = MethodRegistry(validator_factory=PydanticValidatorFactory())

    @methods.add()
    def echo(data: str) -> str:
        return data

    JsonRPC("/api", http_app=app).add_methods(methods)
    return app


def _json_rpc() -> Flask:
    from jsonrpc.backend.flask import JSONRPCAPI

    app = Flask("json_rpc_peer")
    api = JSONRPCAPI()

    @api.dispatcher.add_method
    def echo(data: str) -> str:
        return data

    app.add_url_rule("/api", "api", api.as_view(), methods=["POST"])
    return app


PEERS = (
    Peer("Flask-JSONRPC", True, _flask_jsonrpc),
    Peer("jsonrpcserver", False, _jsonrpcserver),
    Peer("pjrpc", True, _pjrpc),
    Peer("json-rpc", False, _json_rpc),
)

"""The control routes: reload, rollback, status, history, health. A WSGI application of its own, outside the lock.

===============================  ==========================================================================
``POST /_reload``                the reload document; answers the report
``GET /_reload``                 status
``GET /_reload/generations``     the last 100 reports, newest first
``GET /_reload/generations/ID``  one report
``POST /_reload/rollback``       ``{"to": 3, "id": …}`` or nothing; answers the report
``POST /_reload/commit``         ``{"id": …}`` of what was staged; answers the report
``POST /_reload/discard``        ``{"id": …}`` of what was staged; answers whether it was there
``GET /_reload/health``          200, or 503 while the worker catches up; needs no token
``GET /_reload/metrics``         for Prometheus; 501 without prometheus-client
===============================  ==========================================================================

All but health need ``Authorization: Bearer TOKEN``, looked at before the body is. With ``Accept: text/event-stream``
reload and rollback answer 200 and tell how far they have come (:mod:`flask_hotreload.progress`); the data of the last
event, ``report``, is what else had been the answer: the report, or the problem document with its numeric ``status``.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from flask_hotreload import audit, stream
from flask_hotreload.bearer import given_token, matching
from flask_hotreload.errors import (
    ApplyError,
    CheckFailed,
    DrainTimeout,
    LoadError,
    ReloadBusy,
    ReloadError,
    ReloadInvalid,
    StoreUnavailable,
    WorkerFailed,
)
from flask_hotreload.metrics import MetricsUnavailable
from flask_hotreload.problem import MIMETYPE, problem
from flask_hotreload.progress import Progress, untold

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from flask_hotreload.report import ReloadReport

_log = logging.getLogger("flask_hotreload")

_STATUS: dict[type[ReloadError], int] = {
    ReloadInvalid: 400,
    ReloadBusy: 409,
    LoadError: 422,
    ApplyError: 422,
    CheckFailed: 422,
    WorkerFailed: 503,
    StoreUnavailable: 503,
    DrainTimeout: 504,
}

_NO_TOKEN = (
    "no token is configured, so nobody may reload. Make one with: "  # no secret: it says how to make one
    'python -c "import secrets; print(secrets.token_urlsafe())" and set HOTRELOAD_TOKEN to it'
)


_RETRY = {"Retry-After": "1"}


class Refused(Exception):
    """A request that is answered with a problem document."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Control:
    """``reload(given, actor)`` runs a transaction; ``status()`` and ``history()`` answer the rest.

    ``tokens`` may be empty; then everything but health is refused. ``unfit()``: why this worker should get no
    requests; ``remarks()``: what health tells besides.
    """

    def __init__(
        self,
        *,
        prefix: str,
        tokens: Callable[[], Sequence[str]],
        max_body: int,
        reload: Callable[[dict[str, Any], str, WSGIEnvironment, Progress], ReloadReport],
        rollback: Callable[[dict[str, Any], str, WSGIEnvironment, Progress], ReloadReport],
        commit: Callable[[str, str, WSGIEnvironment], ReloadReport],
        discard: Callable[[str], bool],
        status: Callable[[], dict[str, Any]],
        history: Callable[[], list[ReloadReport]],
        unfit: Callable[[], str | None] = lambda: None,
        remarks: Callable[[], dict[str, str]] = dict,
        metrics: Callable[[str], tuple[bytes, str]] | None = None,
    ) -> None:
        self._prefix = prefix
        self._tokens = tokens
        self._max_body = max_body
        self._reload = reload
        self._rollback = rollback
        self._commit = commit
        self._discard = discard
        self._status = status
        self._history = history
        self._unfit = unfit
        self._remarks = remarks
        self._metrics = metrics

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        route = request.path[len(self._prefix) :].strip("/")
        response = self._health(request) if route == "health" else self._audited(request, route)
        return response(environ, start_response)

    def _health(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _refusal(Refused(405, f"{request.method} is not answered here", Allow="GET, HEAD"))
        unfit = self._unfit()
        if unfit is not None:
            return _refusal(Refused(503, unfit, **_RETRY))
        return _json({"status": "ok", **self._remarks()})

    def _audited(self, request: Request, route: str) -> Response:
        actor = request.remote_addr or "unknown"
        outcome: str | None = "refused"
        try:
            actor = self._authenticate(request, actor)
            response, outcome = self._answer(request, route, actor)
        except Refused as refused:
            response, outcome = _refusal(refused), refused.detail
        except ReloadError as error:
            response, outcome = _failure(error), f"{type(error).__name__}: {error}"
        if outcome is not None:
            _audit(request, actor, response, outcome)
        return response

    def _authenticate(self, request: Request, address: str) -> str:
        """Who asks. The body has not been touched when this refuses."""
        tokens = self._tokens()
        if not tokens:
            raise Refused(403, _NO_TOKEN)
        token = matching(tokens, given_token(request.headers.get("Authorization", "")))
        if token is None:
            raise Refused(
                401,
                "this needs the header 'Authorization: Bearer TOKEN'",
                **{"WWW-Authenticate": 'Bearer realm="reload"'},
            )
        return f"{address} tok:{audit.token_fingerprint(token)}"

    def _answer(self, request: Request, route: str, actor: str) -> tuple[Response, str | None]:
        """The outcome is for the audit; ``None``: there is none yet, and it will be recorded when there is."""
        if route == "":
            if request.method == "POST":
                document = self._document(request)
                run = functools.partial(self._reload, document, actor, request.environ)
                return self._carry_out(request, actor, run)
            self._only(request, "GET", "HEAD", "POST")
            return _json(self._status()), "status"
        if route == "rollback":
            self._only(request, "POST")
            wanted = _rollback_wanted(self._document(request))
            return self._carry_out(request, actor, functools.partial(self._rollback, wanted, actor, request.environ))
        if route in ("commit", "discard"):
            self._only(request, "POST")
            return self._staged(request, route, actor)
        head, _, identity = route.partition("/")
        if head == "generations":
            self._only(request, "GET", "HEAD")
            return self._past(identity), "history"
        if route == "metrics" and self._metrics is not None:
            self._only(request, "GET", "HEAD")
            return self._scraped(self._metrics, request.headers.get("Accept", "")), "metrics"
        raise Refused(404, f"there is no control route {request.path!r}")

    def _carry_out(
        self, request: Request, actor: str, run: Callable[[Progress], ReloadReport]
    ) -> tuple[Response, str | None]:
        if stream.MIMETYPE not in request.headers.get("Accept", "").lower():
            report = run(untold)
            return _json(report.to_dict()), report.summary()

        def work(progress: Progress) -> bytes:
            """What the answer would have been. It is told and audited, whoever still reads."""
            try:
                report = run(progress)
                response, outcome = _json(report.to_dict()), report.summary()
            except ReloadError as error:
                response, outcome = _failure(error), f"{type(error).__name__}: {error}"
            except Exception as error:  # noqa: BLE001  # the answer has begun: its end has to tell
                _log.exception("a reload failed in an unexpected way")
                unexpected = Refused(500, f"unexpected {type(error).__name__}; the service's log tells more")
                response, outcome = _refusal(unexpected), unexpected.detail
            _audit(request, actor, response, outcome)
            return response.get_data()

        return Response(stream.EventStream(work), mimetype=stream.MIMETYPE, headers=stream.HEADERS), None

    def _staged(self, request: Request, route: str, actor: str) -> tuple[Response, str]:
        identity = _staged_id(self._document(request), route)
        if route == "commit":
            report = self._commit(identity, actor, request.environ)
            return _json(report.to_dict()), report.summary()
        discarded = self._discard(identity)
        return _json({"id": identity, "discarded": discarded}), f"discard of {identity}: {discarded}"

    def _past(self, identity: str) -> Response:
        reports = self._history()
        if not identity:
            return _json([report.to_dict() for report in reports])
        for report in reports:
            if report.id == identity:
                return _json(report.to_dict())
        raise Refused(404, f"no report with the id {identity!r} among the last {len(reports)}")

    def _scraped(self, metrics: Callable[[str], tuple[bytes, str]], accept: str) -> Response:
        try:
            body, content_type = metrics(accept)
        except MetricsUnavailable as error:
            raise Refused(501, str(error)) from None
        return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})

    def _only(self, request: Request, *methods: str) -> None:
        if request.method not in methods:
            raise Refused(405, f"{request.method} is not answered here", Allow=", ".join(methods))

    def _document(self, request: Request) -> dict[str, Any]:
        too_large = Refused(413, f"the document is larger than HOTRELOAD_MAX_BODY, {self._max_body} bytes")
        if (request.content_length or 0) > self._max_body:
            raise too_large
        request.max_content_length = self._max_body
        try:
            body = request.get_data()
        except RequestEntityTooLarge:
            raise too_large from None
        except ClientDisconnected:
            raise Refused(400, "the connection ended before the document did") from None
        if not body.strip():
            return {}
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"the body is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise Refused(400, "the body must be a JSON object, the reload document")
        return document


def _rollback_wanted(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, checked: ``to``, and the ``id`` by which a retry is known."""
    for key in document:
        if key not in ("to", "id"):
            raise Refused(400, f"{key!r} is not a key of a rollback; the keys are 'to' and 'id'")
    to, identity = document.get("to"), document.get("id")
    if to is not None and (isinstance(to, bool) or not isinstance(to, int) or to < 0):
        raise Refused(400, f"'to' must be the number of a generation, not {to!r}")
    if identity is not None and not (isinstance(identity, str) and identity):
        raise Refused(400, f"'id' must be a string that is not empty, not {identity!r}")
    return document


def _audit(request: Request, actor: str, response: Response, outcome: str) -> None:
    audit.record(actor=actor, method=request.method, path=request.path, status=response.status_code, outcome=outcome)


def _staged_id(document: dict[str, Any], route: str) -> str:
    identity = document.pop("id", None)
    if document:
        raise Refused(400, f"{next(iter(document))!r} is not a key of a {route}; the only one is 'id'")
    if not isinstance(identity, str) or not identity:
        raise Refused(400, f"a {route} needs 'id', that of the reload with \"stage\": true")
    return identity


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), mimetype="application/json", headers={"Cache-Control": "no-store"})


def _refusal(refused: Refused) -> Response:
    return Response(
        problem(refused.status, refused.detail), refused.status, headers=refused.headers, mimetype=MIMETYPE
    )


def _failure(error: ReloadError) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    report = error.report.to_dict() if error.report is not None else None
    return Response(problem(status, str(error), report=report), status, mimetype=MIMETYPE)


def announce_token(token: str, prefix: str) -> None:
    """Tell a developer the token that was made for this process."""
    print(
        f" * flask_hotreload: no HOTRELOAD_TOKEN is set; for this process it is {token}\n"
        f" * use it so: curl -H 'Authorization: Bearer {token}' URL_OF_THIS_SERVER{prefix}",
        file=sys.stderr,
    )

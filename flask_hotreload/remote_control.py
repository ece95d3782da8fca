"""What the control endpoint does with one service: each of its requests is one call of the reloader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flask_hotreload.control import Control
from flask_hotreload.status import status_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from flask_hotreload.progress import Progress
    from flask_hotreload.report import ReloadReport, Trigger
    from flask_hotreload.service import Service

#: What the command line tells of itself before a slash and its version.
USER_AGENT = "flask-hotreload/"


def control_of(service: Service, tokens: Callable[[], Sequence[str]]) -> Control:
    """The control of ``service``, for whoever has one of the ``tokens``."""
    reloader = service.reloader

    def reload(document: dict[str, Any], actor: str, environ: WSGIEnvironment, progress: Progress) -> ReloadReport:
        trigger: Trigger = "cli" if environ.get("HTTP_USER_AGENT", "").startswith(USER_AGENT) else "http"
        return reloader.reload(
            document, trigger=trigger, actor=actor, multiprocess=_is_multiprocess(environ), progress=progress
        )

    def rollback(wanted: dict[str, Any], actor: str, environ: WSGIEnvironment, progress: Progress) -> ReloadReport:
        return reloader.rollback(
            wanted.get("to"),
            actor=actor,
            multiprocess=_is_multiprocess(environ),
            id=wanted.get("id"),
            progress=progress,
        )

    def commit(identity: str, actor: str, environ: WSGIEnvironment) -> ReloadReport:
        multiprocess = _is_multiprocess(environ)
        return reloader.commit_staged(identity, trigger="http", actor=actor, multiprocess=multiprocess)

    return Control(
        prefix=service.config.url_prefix,
        tokens=tokens,
        max_body=service.config.max_body,
        reload=reload,
        rollback=rollback,
        commit=commit,
        discard=reloader.discard_staged,
        status=lambda: status_of(service),
        unfit=lambda: service.membership.problem,
        remarks=lambda: {} if service.membership.store_away is None else {"store": "away"},
        history=lambda: reloader.history,
        metrics=service.metrics.exposition,
    )


def _is_multiprocess(environ: WSGIEnvironment) -> bool:
    return bool(environ.get("wsgi.multiprocess"))

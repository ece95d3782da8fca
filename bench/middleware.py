"""What is added to a request of an ordinary view, without a server between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from flask import Flask

from bench.echo import get
from bench.effort import amount
from bench.figure import Figure
from bench.interleaved import interleaved
from flask_hotreload import HotRPC
from flask_hotreload.middleware import HotReloadMiddleware
from flask_hotreload.rwlock import ReadersWriterLock

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_hotreload.middleware import Serves


def measure() -> list[Figure]:
    bare = _plain().wsgi_app
    behind = HotReloadMiddleware(_service(bare), control=bare, prefix="/_reload")
    whole = _plain()
    HotRPC(whole)
    medians, added = interleaved(
        {
            "bare": lambda: get(bare),
            "middleware": lambda: get(behind),
            "whole": lambda: get(whole.wsgi_app),
        },
        rounds=amount(200, quick_run=5),
        calls=300,
    )
    more, all_of_it = added("middleware", "bare"), added("whole", "bare")
    ratio = medians["bare"] / (medians["bare"] + more)
    return [
        Figure(
            "middleware: added to a request of a plain Flask view, direct WSGI",
            f"{more:.2f} µs to {medians['bare']:.1f} µs, ratio {ratio:.3f}",
            "≤ 1.0 µs, ratio ≥ 0.97",
            more <= 1.0 and ratio >= 0.97,
        ),
        Figure("the same with the URL map of HotRPC", f"{all_of_it:.2f} µs", "", None),
    ]


def _service(app: WSGIApplication) -> Serves:
    """One generation for ever."""
    return cast("Serves", SimpleNamespace(lock=ReadersWriterLock(), current=SimpleNamespace(wsgi_app=app)))


def _plain() -> Flask:
    app = Flask("plain")

    @app.get("/api")
    def view() -> str:
        return "hello"

    return app

"""Counts what the requests of one generation come to, by Flask's signals. Nobody listens when nothing is counted.

=====================================  ==============================================================================
what                                   counts
=====================================  ==============================================================================
an exception that nobody has handled   one error; the answer 500 that comes of it is no second one
a call that is answered -32603         one error, each call of a batch, and notifications, too
an answer 5xx without an exception     one error
an exception outside of a request      nothing, also where somebody tells it by Flask's signal
a request of another generation        nothing: one that was inside at the commit, a check, a preview
a body that fails while it is sent     nothing: the answer has begun, only the server knows
=====================================  ==============================================================================

Paths in ``HOTRELOAD_EXEMPT`` and event streams count as all others: they run the same code.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from flask import Flask, got_request_exception, has_request_context, request, request_finished, request_started

from flask_hotreload.mutex import Mutex
from flask_hotreload.probation import KINDS, Tally, kinds_of

if TYPE_CHECKING:
    from types import TracebackType

    from flask import Response

_COUNTED = "flask_hotreload.error_counted"


class ErrorCount:
    """From now on until :meth:`end`. It keeps neither the application nor the generation alive."""

    def __init__(
        self,
        app: Flask,
        generation: int,
        *,
        serving: Callable[[], int],
        project: Container[str],
        noted: Callable[[], object],
    ) -> None:
        """``serving()``: the generation that the calling context runs. ``project``: its files, as tracebacks show
        them. ``noted()`` is called after each error.
        """
        self.generation = generation
        self._app = weakref.ref(app)
        self._serving = serving
        self._project = project
        self._noted = noted
        self._adding = Mutex()  # protects the three counts
        self._requests = 0
        self._errors = 0
        self._kinds: Counter[tuple[str, str]] = Counter()
        request_started.connect(self._on_start, app)
        request_finished.connect(self._on_finish, app)
        got_request_exception.connect(self._on_exception, app)

    def end(self) -> None:
        """Stop listening. What was counted stays."""
        app = self._app()
        if app is not None:
            request_started.disconnect(self._on_start, app)
            request_finished.disconnect(self._on_finish, app)
            got_request_exception.disconnect(self._on_exception, app)

    def tally(self, until: float) -> Tally:
        with self._adding.lock:
            return Tally(self.generation, until, self._requests, self._errors, kinds_of(self._kinds))

    def _on_start(self, app: Flask, **_: object) -> None:
        if self._serving() == self.generation:
            with self._adding.lock:
                self._requests += 1

    def _on_exception(self, app: Flask, exception: BaseException, **_: object) -> None:
        if has_request_context() and self._serving() == self.generation:  # anybody may send a signal
            request.environ[_COUNTED] = True
            self._add(type(exception).__qualname__, self._place(exception.__traceback__))

    def _on_finish(self, app: Flask, response: Response, **_: Any) -> None:
        if response.status_code >= 500 and self._serving() == self.generation and _COUNTED not in request.environ:
            self._add(f"HTTP {response.status_code}", f"{request.method} {request.url_rule or 'no route'}")

    def _add(self, kind: str, place: str) -> None:
        with self._adding.lock:
            self._errors += 1
            known = (kind, place) in self._kinds or len(self._kinds) < KINDS
            self._kinds[(kind, place) if known else ("of other kinds", "")] += 1
        self._noted()

    def _place(self, traceback: TracebackType | None) -> str:
        """The innermost line of the project's own code; the innermost of all if there is none."""
        place = own = ""
        while traceback is not None:
            file = traceback.tb_frame.f_code.co_filename
            place = f"{file}:{traceback.tb_lineno}"
            if file in self._project:
                own = place
            traceback = traceback.tb_next
        return own or place

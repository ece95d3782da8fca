"""The number of the generation that gives an answer, in a header of it (``HOTRELOAD_HEADER``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from flask_hotreload.generation import Generation


def stamped(wsgi_app: WSGIApplication, header: str, pinned: Callable[[], Generation]) -> WSGIApplication:
    """``wsgi_app``, whose every answer has ``header``; one of the same name that it makes itself gives way.

    ``pinned()``
        The generation that the calling context runs.
    """
    lower = header.lower()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        number = str(pinned().number)  # now: a streamed answer may begin in another context

        def begin(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            others = [(name, value) for name, value in headers if name.lower() != lower]
            return start_response(status, [*others, (header, number)], *exc_info)

        return wsgi_app(environ, begin)

    return answer

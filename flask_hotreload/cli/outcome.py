"""What came of a command, as an exit code: a contract with scripts and pipelines."""

from __future__ import annotations

from typing import Any

DONE = 0
CODE_AT_FAULT = 1
USAGE = 2
BUSY = 3
WORKER_FAILED = 4
TIMED_OUT = 5
UNREACHABLE = 6
TOKEN = 7

_OF_STATUS = {200: DONE, 401: TOKEN, 403: TOKEN, 409: BUSY, 422: CODE_AT_FAULT, 504: TIMED_OUT}
_TITLES = {USAGE: "Usage", TIMED_OUT: "Timed out", UNREACHABLE: "Unreachable", TOKEN: "Token"}


def exit_code(status: int) -> int:
    """Of an HTTP status of the control routes."""
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    return WORKER_FAILED if status >= 500 else USAGE


class Failure(Exception):
    """The command ends here. ``message`` says what to do; ``answer``: what the service has said, if it has."""

    def __init__(self, code: int, message: str, *, answer: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.answer = answer

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: the service's own problem document, or one in its form with the status ``null``."""
        if self.answer is not None:
            return self.answer
        title = _TITLES.get(self.code, "Failed")
        return {"type": "about:blank", "title": title, "status": None, "detail": self.message}


class Unreachable(Failure):
    """No connection: nothing was asked."""

    def __init__(self, message: str) -> None:
        super().__init__(UNREACHABLE, message)


class Broken(Failure):
    """The connection ended before the answer: whether what was asked for has happened is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(UNREACHABLE, message)

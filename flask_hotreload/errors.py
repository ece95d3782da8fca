"""Everything that this package raises. Each error carries its data as attributes and pickles with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask_hotreload.report import ReloadReport
    from flask_hotreload.rwlock import Reader


class JSONRPCError(Exception):
    """Raised by a dispatcher to answer a chosen error (JSON-RPC 2.0, section 5.1).

    ``code``
        An integer; -32768 to -32000 are reserved by the specification.
    ``message``
        One short sentence.
    ``data``
        Anything that JSON can hold, or ``None`` for no ``data`` member.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class HotReloadError(Exception):
    """The base of every error of this package that is not a JSON-RPC answer."""


class ReloadError(HotReloadError):
    """A reload did not happen; the service goes on as it was.

    ``report``
        The :class:`~flask_hotreload.report.ReloadReport` of the attempt, or ``None`` before there is one.
    """

    report: ReloadReport | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword arguments live in __dict__; rebuilding from it keeps every attribute.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[ReloadError], args: tuple[Any, ...], state: dict[str, Any]) -> ReloadError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ReloadInvalid(ReloadError):
    """The reload document is at fault. Final: mend the document."""


class CodeError(ReloadError):
    """Code is at fault. Final: mend it.

    ``file``, ``line``
        Where, as far as known.
    ``original``
        The exception that the code raised, without its traceback, or ``None``.
    ``traceback``
        The text of that traceback, quoting the lines that really ran, or ``None``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.original = original
        self.traceback: str | None = None


class LoadError(CodeError):
    """The new code is at fault: it does not compile, import, or hold what the document names."""


class ApplyError(CodeError):
    """A callback or a migration failed, or took too long; what it had changed was restored."""


class CheckFailed(ReloadError):
    """A check of the document did not hold on the staged code. Final."""


class DrainTimeout(ReloadError):
    """Requests were still inside at the time-out and the document said ``abort``. Worth a retry.

    ``seconds``
        How long the drain waited.
    ``readers``
        Who was inside: a tuple of :class:`~flask_hotreload.rwlock.Reader`.
    """

    def __init__(self, message: str, *, seconds: float, readers: Sequence[Reader] = ()) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.readers = tuple(readers)


class ReloadBusy(ReloadError):
    """Another reload was running, or the live generation was not the expected one. Worth a retry."""


class WorkerFailed(ReloadError):
    """A worker could not take part. Worth a retry.

    ``worker``
        Its id, ``host:pid``.
    ``reason``
        What happened to it.
    """

    def __init__(self, message: str, *, worker: str, reason: str) -> None:
        super().__init__(message)
        self.worker = worker
        self.reason = reason


class StoreUnavailable(ReloadError):
    """The workers cannot meet: the store is away, refused, or not set up for several processes."""

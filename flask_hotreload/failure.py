"""From what new code raised to a ``LoadError`` that says where, and keeps nothing alive."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, TypeVar

from flask_hotreload.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from flask_hotreload.sources import Source

_LONGEST = 1000  # characters of an exception's text

# Modules whose frames say nothing about the new code.
_HIDDEN = frozenset(
    f"flask_hotreload.{name}" for name in ("failure", "finder", "interpreter", "loader", "sources", "worlds")
)

_Place = tuple[str, int, str]
_Error = TypeVar("_Error", bound=BaseException)


def load_error(error: BaseException, file: str, source_of: Callable[[str], Source | None]) -> LoadError:
    """Describe an exception of new code: ``file:line: Type: text``.

    ``file``
        Blamed when the exception names no line of the project's own.
    ``source_of``
        Source of a file as tracebacks show it; ``None``: not the project's.

    The place is the innermost line of the project's, or the one that a ``SyntaxError`` names. The answer has the text
    of the traceback, quoting the lines that really ran, as its attribute ``traceback``. The tracebacks themselves, of
    the exception and of those it was raised from, are dropped: their frames would keep the new modules alive.
    """
    if isinstance(error, LoadError) and error.file is not None:
        return _without_tracebacks(error)
    places = {id(link): list(_places(link.__traceback__)) for link in _chain(error)}
    _without_tracebacks(error)  # before formatting, which would look the files up on the disk
    line = None
    if isinstance(error, SyntaxError) and error.filename is not None and source_of(error.filename) is not None:
        file, line = error.filename, error.lineno
    else:
        for frame_file, frame_line, _ in places[id(error)]:
            if source_of(frame_file) is not None:
                file, line = frame_file, frame_line
    where = file if line is None else f"{file}:{line}"
    answer = LoadError(f"{where}: {describe(error)}", file=file, line=line, original=error)
    answer.traceback = "".join(_format(error, places, source_of))
    return answer


def _without_tracebacks(error: _Error) -> _Error:
    for link in _chain(error):
        link.__traceback__ = None
    return error


def describe(error: BaseException) -> str:
    """``Type: text``, of an exception of any kind, also one whose own text can't be made."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # noqa: BLE001  # new code may define any __str__
        text = "(its text can't be shown)"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _places(trace: TracebackType | None) -> Iterator[_Place]:
    """File, line and function of each frame, outermost first, but for the machinery's."""
    for frame, line in traceback.walk_tb(trace):
        module = frame.f_globals.get("__name__")
        if module not in _HIDDEN and not str(module).startswith("importlib."):
            yield frame.f_code.co_filename, line, frame.f_code.co_name


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and all that it was raised from or while handling, each once."""
    found: list[BaseException] = []
    ahead: list[BaseException | None] = [error]
    while ahead:
        link = ahead.pop()
        if link is not None and not any(link is known for known in found):
            found.append(link)
            ahead += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return found


def _format(
    error: BaseException, places: dict[int, list[_Place]], source_of: Callable[[str], Source | None]
) -> Iterator[str]:
    """The lines that Python prints for an exception, without the frames of the machinery."""
    frames = [_frame(*place, source_of) for place in places.pop(id(error))]
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) in places:
        yield from _format(before, places, source_of)
        how = "directly caused" if error.__cause__ is not None else "was being handled before"
        yield f"\n(which {how} the following)\n\n"
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from traceback.StackSummary.from_list(frames).format()
    try:
        yield from traceback.format_exception_only(type(error), error)
    except Exception:  # noqa: BLE001  # as in describe
        yield f"{describe(error)}\n"


def _frame(file: str, line: int, name: str, source_of: Callable[[str], Source | None]) -> traceback.FrameSummary:
    source = source_of(file)
    if source is None:
        return traceback.FrameSummary(file, line, name)
    text = source.lines[line - 1] if 0 < line <= len(source.lines) else ""
    return traceback.FrameSummary(file, line, name, lookup_line=False, line=text)

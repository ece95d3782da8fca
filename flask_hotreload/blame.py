"""Where foreign code failed, or was when its time was up, in words."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask_hotreload.errors import LoadError

if TYPE_CHECKING:
    from flask_hotreload.bounded import Overrun
    from flask_hotreload.sources import Snapshot

Place = tuple["str | None", "int | None"]  #: file and line, as far as known


def place_of(error: BaseException, foreign: Callable[..., Any]) -> Place:
    """Where foreign code raised ``error``: the last frame in its own file, else where it is defined."""
    file, line = _definition(foreign)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return file, line


def place_of_overrun(overrun: Overrun, snapshot: Snapshot, foreign: Callable[..., Any] | None = None) -> Place:
    """Where overrun code was when its time was up: its innermost line in the project or in ``foreign``'s file."""
    own, _ = (None, None) if foreign is None else _definition(foreign)
    for file, line in overrun.stack:
        if file == own or (os.path.isabs(file) and snapshot.roots.contains(snapshot.roots.real_path(file))):
            return file, line
    return own, None


def hanging_import(overrun: Overrun, snapshot: Snapshot) -> LoadError:
    """The error for new code whose import overran: it names its innermost line in the new code."""
    files = {source.path for source in snapshot.sources.values()}
    file, line = next(((file, line) for file, line in overrun.stack if file in files), (None, None))
    return LoadError(f"{shown(file, line) or 'the new code: '}its import {overran(overrun)}", file=file, line=line)


def shown(file: str | None, line: int | None) -> str:
    """The place as the beginning of a message."""
    return "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "


def overran(overrun: Overrun) -> str:
    """What became of overrun code."""
    state = "it was interrupted" if overrun.ended else "and cannot be interrupted"
    return f"had not ended after {overrun.seconds:g} s; {state}"


def _definition(foreign: Callable[..., Any]) -> Place:
    code = getattr(inspect.unwrap(foreign), "__code__", None)
    return getattr(code, "co_filename", None), getattr(code, "co_firstlineno", None)

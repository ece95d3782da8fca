"""Where files lie, told so that it means the same on another host, where the same code lies in other folders.

A file is told by the position of its root among the configured ones, and by its path below that root. Each worker
finds it below its own root at this position.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from flask_hotreload.coordination.payload import LedRoot
from flask_hotreload.errors import ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.reporting import worker_id

if TYPE_CHECKING:
    from flask_hotreload.sources import ResolvedRoots


class Position(NamedTuple):
    """``root``: the number of the root, from 0. ``path``: below it, with ``/`` between the folders."""

    root: int
    path: str


def position_of(roots: ResolvedRoots, real: str) -> Position:
    """Where a real path of the project lies. Of roots inside each other the innermost one counts."""
    found = [(len(led), -number, led) for number, led in enumerate(roots.real.values()) if _is_below(real, led)]
    if not found:
        raise ReloadInvalid(f"{real} lies outside the roots {', '.join(roots.real)}; HOTRELOAD_ROOTS names them")
    _, number, led = max(found)
    return Position(-number, _below(real, led).replace(os.sep, "/"))


def told_roots(roots: ResolvedRoots) -> tuple[LedRoot, ...]:
    return tuple(LedRoot(written, led) for written, led in roots.real.items())


def told_script(roots: ResolvedRoots, script: str) -> str:
    """The absolute path of a script, told by its position. Raise :class:`ReloadInvalid` if it may not be loaded."""
    root, path = position_of(roots, roots.resolve(script))
    return f"{root}:{path}"


# What others have told ---------------------------------------------------------------------------------------------


def led_here(told: Sequence[LedRoot], own: ResolvedRoots) -> dict[str, str]:
    """To which folders the roots of this worker lead when those of another one ``told`` where theirs did.

    By root as written here; only for roots that are written the same, and folders that are there: of others the own
    counts. Raise :class:`WorkerFailed` if their numbers differ.
    """
    if told and len(told) != len(own.real):
        mine, others = ", ".join(own.real), ", ".join(root.written for root in told)
        raise WorkerFailed(
            f"worker {worker_id()} has {len(own.real)} roots ({mine}), and the code comes from {len(told)} ({others})"
            "; HOTRELOAD_ROOTS has to name as many folders, in the same order, on every host",
            worker=worker_id(),
            reason="other roots",
        )
    pairs = zip(own.real, told)  # noqa: B905  # there may be none told
    return {folder: root.led for folder, root in pairs if folder == root.written and os.path.isdir(root.led)}


def script_here(own: ResolvedRoots) -> Callable[[str], str]:
    """From what :func:`told_script` tells to the path here, below the root as it is written."""

    def path(told: str) -> str:
        number, _, below = told.partition(":")
        return os.path.join(_root(list(own.real), int(number) if number.isdecimal() else -1), _checked(below))

    return path


def file_here(own: ResolvedRoots, position: Position) -> str:
    """The real path of a file of the project here; it need not exist.

    Raise :class:`WorkerFailed` if this worker would not take what lies there for its project's, and
    :class:`StoreUnavailable` if it leads out of the root.
    """
    path = os.path.join(_root(list(own.real.values()), position.root), _checked(position.path))
    real = own.real_path(path)
    if not own.contains(real):
        aim = path if path == real else f"{path} is a link to {real}, which"
        raise _misplaced(
            f"{aim} lies outside the roots, or in a hidden folder, virtual environment or site-packages inside them, "
            "and the code that all run has a file there; put the file itself there, or add its folder to "
            "HOTRELOAD_ROOTS"
        )
    return real


def shown_here(shown: str, told: LedRoot, own: LedRoot, real: str) -> str:
    """How to show a file here that another worker has ``shown`` in its tracebacks."""
    for there, here in ((told.written, own.written), (told.led, own.led)):
        if _is_below(shown, there):
            return os.path.join(here, _below(shown, there))
    return shown if told == own else real


def two_in_one(real: str) -> WorkerFailed:
    """Two files of the project are one here."""
    return _misplaced(f"links lead to {real} from where the code that all run has different files; remove the links")


def _misplaced(what: str) -> WorkerFailed:
    return WorkerFailed(f"worker {worker_id()}: {what}", worker=worker_id(), reason="its files lie otherwise")


def _root(folders: Sequence[str], number: int) -> str:
    if not 0 <= number < len(folders):
        raise StoreUnavailable(
            f"the store names a file below the root {number}, and this worker has {len(folders)}; nothing of it is "
            "executed. HOTRELOAD_ROOTS has to name as many folders on every host"
        )
    return folders[number]


def _checked(path: str) -> str:
    """Provided that it can't lead upwards, whoever has signed it."""
    parts = path.split("/")
    if "\0" in path or os.path.isabs(path) or any(part in ("", os.curdir, os.pardir) for part in parts):
        raise StoreUnavailable(f"the store names a file outside of its root, {path!r}; nothing of it is executed")
    return os.path.join(*parts)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def _below(path: str, folder: str) -> str:
    return path[len(folder) :].lstrip(os.sep)

"""Hints that the project's files may have changed: notifications of the system, by the library ``watchfiles``.

Only a hint: whoever gets one compares the disk with what it knows. None is missing, whichever way a file came, and
also where the folders themselves are exchanged: a link that leads to them is switched, or they are removed and made
anew.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flask_hotreload.sources import Roots

_log = logging.getLogger("flask_hotreload")

#: Seconds between two looks at what the system has told, and for which nothing more must come before it is a hint.
REST = 0.05
#: Seconds after which it is one though there is always more.
LONGEST = 1.6

INSTALL = (
    "HOTRELOAD_WATCH needs the library watchfiles, which is not installed: pip install 'flask-hotreload[watch]', or "
    "leave HOTRELOAD_WATCH unset"
)


class _Folder(NamedTuple):
    """A root, where it leads, and what it is there."""

    root: str
    real: str
    device: int
    inode: int


def require_watchfiles() -> None:
    """Raise ``RuntimeError`` if it is not installed."""
    try:
        import watchfiles  # noqa: F401, PLC0415  # an extra; to be imported before any thread needs it
    except ImportError as error:
        raise RuntimeError(INSTALL) from error


def hints(roots: Roots, stopped: threading.Event) -> Iterator[None]:
    """Yield at the start, and whenever files of the project may have changed since; end when ``stopped`` is set.

    What changes after a hint was yielded leads to a further one.
    """
    polling: bool | None = None  # the library's own choice
    while not stopped.is_set():
        try:
            yield from _hints_of(_folders(roots), roots, stopped, polling=polling)
        except FileNotFoundError:
            stopped.wait(REST)  # a root is just being exchanged
        except (OSError, RuntimeError) as error:
            if polling:
                raise
            _log.warning(
                "the system does not tell of changes below %s, so that all files are looked at again and again: %s. "
                "fs.inotify.max_user_watches and max_user_instances say how many folders may be watched",
                ", ".join(roots.folders),
                error,
            )
            polling = True


def _hints_of(
    folders: list[_Folder], roots: Roots, stopped: threading.Event, *, polling: bool | None
) -> Iterator[None]:
    """Hints as long as the roots lead to ``folders``. Raise ``FileNotFoundError`` if one is not there."""
    from watchfiles import watch  # noqa: PLC0415  # an extra

    real = [folder.real for folder in folders]
    # Short turns in the library, and the rest in between is ours: under gevent it lets other greenlets run.
    turns = watch(
        *real,
        watch_filter=lambda change, path: _is_of_interest(path, real),
        step=1,
        rust_timeout=1,
        yield_on_timeout=True,
        stop_event=stopped,
        raise_interrupt=False,
        force_polling=polling,
        ignore_permission_denied=True,
    )
    since: float | None = monotonic()  # in the first turn everything is watched, so nothing is missed from there on
    for changes in turns:
        if changes and since is None:
            since = monotonic()
        elif since is not None and (not changes or monotonic() - since > LONGEST):
            since = None
            yield
        if _folders(roots) != folders:
            return
        stopped.wait(REST)


def _folders(roots: Roots) -> list[_Folder]:
    """Raise ``FileNotFoundError`` if one is not there."""
    found = []
    for root in roots.folders:
        real = os.path.realpath(root)
        status = os.stat(real)
        found.append(_Folder(root, real, status.st_dev, status.st_ino))
    return found


def _is_of_interest(path: str, roots: list[str]) -> bool:
    """Whether what is or was at that path may be a source of the project, or a folder that holds some."""
    root = max((root for root in roots if path.startswith(root)), key=len, default="")
    *folders, name = os.path.relpath(path, root or os.sep).split(os.sep)
    if any(folder.startswith(".") or folder == "__pycache__" for folder in folders if root):
        return False
    if name.endswith(".py"):
        return True
    # A folder tells of itself alone when it is moved. What is gone may have been one.
    return name != "__pycache__" and not (name.startswith(".") and name != ".") and not os.path.isfile(path)

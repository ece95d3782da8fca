"""Where the workers of one gunicorn master meet: a folder that only they can enter, named by their master.

The folder's name tells whose it is, so that what dead masters have left can be removed. Linux; on systems without
``/proc`` a master is known by its process id alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import time

from flask_hotreload.coordination import presence
from flask_hotreload.errors import StoreUnavailable

#: The name of the store in such a folder.
STORE = "store.sqlite"
_PREFIX = "flask-hotreload"
_NAME = re.compile(rf"{_PREFIX}-(?P<uid>\d+)-[0-9a-f]{{8}}-(?P<scope>[0-9a-f]{{12}})-(?P<pid>\d+)-(?P<start>\d+)")
#: A folder of a master that this process cannot see is left alone for so long, in seconds.
_UNSEEN_MASTER_GRACE = 86400.0


def folder_for(application: str, master_pid: int) -> Path:
    """The folder of the workers of ``application`` under this master; made, with mode 0700, if it is not there.

    Under ``$XDG_RUNTIME_DIR`` if that is private, else in the folder for temporary files. Raise
    :class:`StoreUnavailable` if it cannot be made, or if somebody else could have a hand in it.
    """
    base = _base()
    digest = hashlib.sha256(application.encode()).hexdigest()[:8]
    start = _start_of(master_pid) or "0"
    folder = base / f"{_PREFIX}-{os.geteuid()}-{digest}-{_scope()}-{master_pid}-{start}"
    try:
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            folder.chmod(0o700)  # whatever the umask
            _remove_leftovers(base)
        trouble = _not_private(folder)
    except OSError as error:
        raise StoreUnavailable(
            f"the workers cannot meet in {folder}: {error.strerror}; let TMPDIR name a folder that they can write, "
            'or set HOTRELOAD_COORDINATOR to "sqlite:///path"'
        ) from error
    if trouble:
        raise StoreUnavailable(
            f"{folder} {trouble}: somebody else may have made it; remove it, or let TMPDIR name a private folder"
        )
    return folder


def folders_of(master_pid: int) -> list[Path]:
    """The folders that are there of the workers of this master, one for each application; none is made.

    Raise :class:`StoreUnavailable` if it cannot be found out, or if somebody else could have a hand in one.
    """
    base, start = _base(), _start_of(master_pid) or "0"
    try:
        found = sorted(base.glob(f"{_PREFIX}-{os.geteuid()}-*-{_scope()}-{master_pid}-{start}"))
        trouble = [f"{folder} {why}" for folder in found if (why := _not_private(folder))]
    except OSError as error:
        raise StoreUnavailable(f"where the workers meet in {base} cannot be seen: {error.strerror}") from error
    if trouble:
        raise StoreUnavailable(f"{trouble[0]}: somebody else may have made it; remove it")
    return found


def boot_id() -> str:
    """Names the time since the machine was started, in which its monotonic clock runs; empty where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        try:
            if not _not_private(Path(runtime)) and os.access(runtime, os.W_OK | os.X_OK):
                return Path(runtime)
        except OSError:
            pass  # of another user, or gone: not to be used
    base = Path(tempfile.gettempdir())
    status = base.stat()
    shared = bool(status.st_mode & 0o022)
    if (shared and not status.st_mode & stat.S_ISVTX) or status.st_uid not in (0, os.geteuid()):
        raise StoreUnavailable(
            f"in {base} others could exchange the workers' files: let TMPDIR name a folder of your own, or one with "
            "the sticky bit"
        )
    return base


def _not_private(folder: Path) -> str | None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not {os.geteuid()}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"has mode {stat.S_IMODE(status.st_mode):o}, not 700"
    return None


def _scope() -> str:
    """Names that within which process ids and start times mean something: this boot and this pid namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{boot_id()} {namespace}".encode()).hexdigest()[:12]


def _start_of(pid: int) -> str | None:
    """When a process was started, in clock ticks since boot (proc(5), stat, field 22); ``None``: not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


# Leftovers ---------------------------------------------------------------------------------------------------------


def _remove_leftovers(base: Path) -> None:
    for folder in _ours(base):
        try:
            if _is_abandoned(folder):
                shutil.rmtree(folder)
        except OSError:
            continue  # another worker was quicker, or it comes back into view later


def _ours(base: Path) -> Iterator[Path]:
    for folder in base.iterdir():
        named = _NAME.fullmatch(folder.name)
        if named and int(named["uid"]) == os.geteuid():
            yield folder


def _is_abandoned(folder: Path) -> bool:
    """Whether its master is gone and none of its workers is left. Whoever might be alive counts as alive."""
    named = _NAME.fullmatch(folder.name)
    assert named is not None
    if _not_private(folder):
        return False
    if named["scope"] == _scope():
        pid = int(named["pid"])
        start = _start_of(pid)
        if start == named["start"] or (start is None and _exists(pid)):
            return False
    elif time() - folder.stat().st_mtime < _UNSEEN_MASTER_GRACE:
        return False
    return not presence.anybody_is_alive(folder / STORE)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

"""Who is alive, as the kernel knows it: each member holds a lock on a file of its own, for its life.

The lock is a ``flock``: it belongs to the open file and ends with it, that is, with the process, however it ends. A
stopped process keeps it. A POSIX record lock would also end when *anything* in the process closes *any* descriptor of
the file; then a worker that serves would count as dead, and others would go on without it. A ``flock`` errs on the
other side only: where a child that C code has forked keeps the file open, a dead worker counts as alive. (Children
that Python forks close it, and programs that are started do not inherit it.)
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_SUFFIX = ".member"
#: A longer id is not used as a file's name. Characters.
_LONGEST = 150
#: Seconds for which somebody who looks whether a member lives can be in the way of one that comes to life.
_GLANCE = 0.1


def member_file(store: Path, member: str) -> Path:
    """The file that ``member`` locks: beside the store, and different for different members."""
    name = quote(member, safe="")
    if len(name) > _LONGEST:
        name = hashlib.sha256(name.encode()).hexdigest()
    return store.with_name(f"{store.name}.{name}{_SUFFIX}")


def socket_name(member_file: Path) -> str:
    """The name, in the same folder, of the socket that wakes the member; short, as a socket's address has to be."""
    return f"{hashlib.sha256(member_file.name.encode()).hexdigest()[:20]}.sock"


class Presence:
    """The life of ``member``, from now until :meth:`close` or the end of this process."""

    def __init__(self, store: Path, member: str) -> None:
        """Raise :class:`BlockingIOError` if a living process has this id, and what else opening a file raises."""
        self._folder = os.open(store.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # systemd-tmpfiles leaves a folder alone, whatever its age, while somebody has locked it (tmpfiles.d(5)).
            fcntl.flock(self._folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        try:
            self._file = _lock(member_file(store, member))
        except OSError:
            os.close(self._folder)
            raise

    def close(self) -> None:
        """From now on the member is dead."""
        for descriptor in self.descriptors():
            os.close(descriptor)

    def descriptors(self) -> list[int]:
        """What a forked child has to close; its parent's life does not end by that."""
        return [self._file, self._folder]


def is_dead(store: Path, member: str) -> bool:
    """Whether the process of ``member`` has certainly ended. What cannot be found out is no."""
    try:
        return _is_free(member_file(store, member))
    except FileNotFoundError:
        return False


def anybody_is_alive(store: Path) -> bool:
    """Whether any member of the store is alive, or comes to life just now."""
    return not all(_is_free(file) for file in _member_files(store))


def remove_traces(store: Path) -> None:
    """Remove the files of those that have ended; only while nobody can come to life, that is, in the store's turn."""
    for file in _member_files(store):
        if _is_free(file):
            file.unlink(missing_ok=True)
            file.with_name(socket_name(file)).unlink(missing_ok=True)


def _lock(file: Path) -> int:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + _GLANCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.001)
                continue
            os.close(descriptor)
            raise
        return descriptor


def _is_free(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared, so that those who look do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _member_files(store: Path) -> Iterator[Path]:
    return store.parent.glob(f"{glob.escape(store.name)}.*{_SUFFIX}")

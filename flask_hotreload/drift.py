"""What lies on disk against what runs: the files that a restart would load differently."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flask_hotreload.sources import ResolvedRoots, Roots


class _Known(NamedTuple):
    stamp: tuple[int, int, int]  # modification time in ns, size, inode
    digest: str


class Drift:
    """Remembers the project's Python files as they were when it was made, and what reloads have run since."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._seen: dict[str, _Known] = {}
        self._running = self._on_disk()
        #: One digest over all files as they were at the start.
        self.release = "sha256:" + hashlib.sha256(repr(sorted(self._running.items())).encode()).hexdigest()

    def ran(self, digests: Mapping[str, str]) -> None:
        """A reload runs these sources now: real path → digest."""
        self._running = {**self._running, **digests}

    def pending(self) -> list[dict[str, str]]:
        """``{"file", "change"}`` of each file that differs: added, modified or deleted since."""
        running, disk = self._running, self._on_disk()
        found = []
        for path in sorted(running.keys() | disk.keys()):
            if running.get(path) != disk.get(path):
                change = "added" if path not in running else "deleted" if path not in disk else "modified"
                found.append({"file": path, "change": change})
        return found

    def _on_disk(self) -> dict[str, str]:
        """Real path → digest. A file whose stamp is as before is not read again."""
        found: dict[str, str] = {}
        for path in _python_files(self._roots.resolve()):
            try:
                status = os.stat(path)
                stamp = status.st_mtime_ns, status.st_size, status.st_ino
                known = self._seen.get(path)
                if known is None or known.stamp != stamp:
                    with open(path, "rb") as file:
                        known = _Known(stamp, "sha256:" + hashlib.sha256(file.read()).hexdigest())
                    self._seen[path] = known
            except OSError:
                continue  # gone, or not ours to read: it is not there for us
            found[path] = known.digest
        return found


def _python_files(roots: ResolvedRoots) -> Iterator[str]:
    for root in dict.fromkeys(roots.real.values()):
        for folder, names, files in os.walk(root):
            names[:] = [
                name
                for name in names
                if not name.startswith(".") and name != "__pycache__" and roots.contains(os.path.join(folder, name))
            ]
            for name in files:
                path = os.path.join(folder, name)
                if name.endswith(".py") and roots.contains(path):
                    yield path

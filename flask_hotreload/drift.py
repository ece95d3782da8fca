"""What lies on disk against what runs: the files that a restart would load differently."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from flask_hotreload.project import python_files

if TYPE_CHECKING:
    from collections.abc import Collection

    from flask_hotreload.sources import Place, ResolvedRoots, Roots, Snapshot


def changed(before: Snapshot, after: Snapshot, ignoring: Collection[Place | None] = ()) -> bool:
    """Whether any file differs between two snapshots, other than those at the places to be ignored."""
    old = {before.roots.place(real): source.digest for real, source in before.sources.items()}
    new = {after.roots.place(real): source.digest for real, source in after.sources.items()}
    return any(old.get(place) != new.get(place) for place in (old.keys() | new.keys()).difference(ignoring))


class _Known(NamedTuple):
    stamp: tuple[int, int, int]  # modification time in ns, size, inode
    digest: str


class Drift:
    """Compares the disk with sources. It remembers digests of files whose stamp stays the same."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._seen: dict[str, _Known] = {}

    def pending(self, running: Snapshot) -> list[dict[str, str]]:
        """``{"file", "change"}`` of each file that differs: added, modified or deleted since.

        A file is known by its place below the root, so a link that was switched to another folder alone is no change.
        """
        roots = self._roots.resolve()
        runs = {roots.place(real): (real, source.digest) for real, source in running.sources.items()}
        disk = self._on_disk(roots)
        found = []
        for place in runs.keys() | disk.keys():
            was, now = runs.get(place), disk.get(place)
            if was is None or now is None or was[1] != now[1]:
                file = (now or was or ("",))[0]
                found.append({"file": file, "change": "added" if not was else "deleted" if not now else "modified"})
        return sorted(found, key=lambda change: change["file"])

    def _on_disk(self, roots: ResolvedRoots) -> dict[Place | None, tuple[str, str]]:
        """Place → real path and digest. A file whose stamp is as before is not read again."""
        found: dict[Place | None, tuple[str, str]] = {}
        for path in python_files(roots):
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
            found[roots.place(path)] = path, known.digest
        return found

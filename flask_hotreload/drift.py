"""What lies on disk against what runs: the files that a restart would load differently."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flask_hotreload.errors import LoadError
from flask_hotreload.python_files import python_files
from flask_hotreload.sources import digest_of_bytes, read_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flask_hotreload.sources import Place, ResolvedRoots, Roots, Snapshot

_LISTED = 5  # files that a line names


def changed(before: Snapshot, after: Snapshot, ignoring: Collection[Place | None] = ()) -> bool:
    """Whether any file differs between two snapshots, other than those at the places to be ignored."""
    old = {before.roots.place(real): source.digest for real, source in before.sources.items()}
    new = {after.roots.place(real): source.digest for real, source in after.sources.items()}
    return any(old.get(place) != new.get(place) for place in (old.keys() | new.keys()).difference(ignoring))


@dataclass(frozen=True)
class State:
    """What the project's sources are.

    ``folders``
        Root as written → where it leads.
    ``digests``
        Where a source lies below its root → its digest.
    ``changed_ns``
        When one of them was last changed, by the clock of ``time.time_ns``; 0: not known.
    """

    folders: dict[str, str]
    digests: dict[Place | None, str]
    changed_ns: int = field(default=0, compare=False)


def state_of(snapshot: Snapshot) -> State:
    """What ``snapshot`` holds, to be compared with :meth:`Drift.disk`."""
    roots = snapshot.roots
    return State(roots.real, {roots.place(real): source.digest for real, source in snapshot.sources.items()})


class Known(NamedTuple):
    """The sources of a generation."""

    number: int
    label: str | None
    snapshot: Snapshot

    @property
    def name(self) -> str:
        return self.label or f"generation {self.number}"


class _File(NamedTuple):
    path: str
    digest: str
    changed_ns: int = 0


class _Known(NamedTuple):
    stamp: tuple[int, int, int]  # time of change in ns, which nobody can set; size, inode
    digest: str


#: Nanoseconds for which a file's stamp may stay the same though it is written again: the clock of stamps is coarse.
_SETTLED = 100_000_000


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
        return _differences(running, roots, self._on_disk(roots))

    def described(self, running: Known, others: Iterable[Known]) -> str | None:
        """The same in a line for people, by name if the disk holds what one of the ``others`` was made from.

        ``None``: a restart would load what runs.
        """
        roots = self._roots.resolve()
        disk = self._on_disk(roots)
        pending = _differences(running.snapshot, roots, disk)
        if not pending:
            return None
        for other in sorted(others, reverse=True, key=lambda known: known.number):
            if not _differences(other.snapshot, roots, disk):
                return f"disk has {other.name}, {running.name} runs; after a restart {other.name} would"
        files = f"{len(pending)} files on disk differ" if len(pending) > 1 else "1 file on disk differs"
        return f"{files} from {running.name}, which runs; after a restart what is on disk would: {_listed(pending)}"

    def disk(self) -> State:
        """What lies on disk now. It may be read while it is being written."""
        roots = self._roots.resolve()
        found = self._on_disk(roots)
        digests = {place: file.digest for place, file in found.items()}
        return State(roots.real, digests, max((file.changed_ns for file in found.values()), default=0))

    def _on_disk(self, roots: ResolvedRoots) -> dict[Place | None, _File]:
        """What lies at each place. A file whose stamp is as before is not read again."""
        found: dict[Place | None, _File] = {}
        seen, self._seen = self._seen, {}  # what is gone is not remembered
        for path in python_files(roots):
            try:
                status = os.stat(path)
                stamp = status.st_ctime_ns, status.st_size, status.st_ino
                known = seen.get(path)
                if known is None or known.stamp != stamp:
                    known = _Known(stamp, digest_of_bytes(read_source(path, path)))
                if abs(time.time_ns() - status.st_ctime_ns) > _SETTLED:
                    self._seen[path] = known
            except (OSError, LoadError):
                continue  # gone, no file, or not ours to read: it is not there for us
            found[roots.place(path)] = _File(path, known.digest, status.st_ctime_ns)
        return found


def _differences(running: Snapshot, roots: ResolvedRoots, disk: Mapping[Place | None, _File]) -> list[dict[str, str]]:
    runs = {roots.place(real): _File(real, source.digest) for real, source in running.sources.items()}
    found = []
    for place in runs.keys() | disk.keys():
        was, now = runs.get(place), disk.get(place)
        if was is None or now is None or was.digest != now.digest:
            change = "added" if was is None else "deleted" if now is None else "modified"
            found.append({"file": (now or was or _File("", "")).path, "change": change})
    return sorted(found, key=lambda change: change["file"])


def _listed(pending: list[dict[str, str]]) -> str:
    shown = ", ".join(f"{change['file']} {change['change']}" for change in pending[:_LISTED])
    return shown if len(pending) <= _LISTED else f"{shown}, …"

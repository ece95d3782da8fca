"""All Python sources of the project, as they were on disk at one moment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.python_files import python_files
from flask_hotreload.sources import Snapshot, Source, read_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask_hotreload.sources import ResolvedRoots

#: How often the project is read anew because it was being written, and the seconds between two readings.
ROUNDS = 20
REST = 0.05


def read_project(
    roots: ResolvedRoots, known: Mapping[str, Source], *, give_way: Callable[[], object] = lambda: None
) -> Snapshot:
    """A sealed snapshot of all of it: bytes that were on disk at one and the same moment.

    Everything is read twice. What is found the same both times was there, all of it, between the two readings;
    else somebody is writing, and it is read again.

    ``known``
        Real path → source. One whose bytes are still on disk is taken over, with what was compiled from it.

    :raises ReloadInvalid: it was still being written after :data:`ROUNDS` readings, or a file of ``known`` has become
        a link that leaves the roots.
    :raises LoadError: a file of ``known`` cannot be read any more. Another one fails who imports it.
    """
    before = _Reading(roots, give_way)
    for _ in range(ROUNDS):
        after = _Reading(roots, give_way)
        if before == after:
            for real in after.refused.keys() & known.keys():
                raise after.refused[real]
            _refuse_leaving(roots, known.keys() - after.found.keys())
            return after.snapshot(known)
        changing = sorted(before.changed_to(after))
        before = after
        time.sleep(REST)
    raise ReloadInvalid(
        f"files are still being written, {changing[0]} for one: reload when the deployment has ended, or deploy by "
        "switching a link"
    )


def project_at_start(roots: ResolvedRoots) -> Snapshot:
    """As far as it can be told: nothing that lies beside the code of a service keeps it from starting.

    Files that cannot be read are left out; what is still being written is as it was found last.
    """
    before = _Reading(roots)
    for _ in range(ROUNDS):
        after = _Reading(roots)
        if before == after:
            break
        before = after
        time.sleep(REST)
    return after.snapshot({})


class _Reading:
    """What was found on disk in one go: real path → bytes, or the error of a file that could not be read."""

    def __init__(self, roots: ResolvedRoots, give_way: Callable[[], object] = lambda: None) -> None:
        self._roots = roots
        self.found: dict[str, bytes] = {}
        self.refused: dict[str, LoadError] = {}
        for number, real in enumerate(python_files(roots)):
            if number % 16 == 0:
                give_way()
            try:
                self.found[real] = read_source(real, real)
            except LoadError as error:
                # Not a file, as a pipe; or removed since it was listed.
                if error.original is not None and not isinstance(error.original, FileNotFoundError):
                    # Without the exception, whose traceback would keep all that is on the stack.
                    self.refused[real] = LoadError(str(error), file=error.file)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Reading):
            return NotImplemented
        return self.found == other.found and self.refused.keys() == other.refused.keys()

    __hash__ = None  # type: ignore[assignment]  # it is compared, and that is all

    def changed_to(self, after: _Reading) -> set[str]:
        """The real paths of what differs."""
        every = self.found.keys() | after.found.keys()
        return {real for real in every if self.found.get(real) != after.found.get(real)} or {
            *self.refused.keys() ^ after.refused.keys()
        }

    def snapshot(self, known: Mapping[str, Source]) -> Snapshot:
        sources = {real: _source(real, data, known) for real, data in self.found.items()}
        return Snapshot(
            self._roots, sources, sealed=True, undecided=sources.keys() - known.keys(), refused=self.refused
        )


def _refuse_leaving(roots: ResolvedRoots, missing: Iterable[str]) -> None:
    """A module of the project would become one that all generations share, in its old edition."""
    for path in sorted(missing):
        real = os.path.realpath(path)
        if real != path and os.path.exists(real) and not roots.contains(real):
            raise ReloadInvalid(
                f"{path} is now a link to {real}, which lies outside of the roots: put the file itself there, or add "
                "its folder to HOTRELOAD_ROOTS"
            )


def _source(real: str, data: bytes, known: Mapping[str, Source]) -> Source:
    source = known.get(real)
    return source if source is not None and source.data == data else Source(source.path if source else real, data)

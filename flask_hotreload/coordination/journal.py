"""Which records of the journal a worker runs to catch up, and which ones stay for rollbacks. No I/O.

Each record names all others that stay beside it, with their hashes: those that *run* before it, oldest first, and
those that only a rollback would run. What runs is bounded by what is live: a reload of dispatchers supersedes earlier
ones of the same dispatchers, a reload of the whole source supersedes everything, and a rollback runs what the
generation that it restores had run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flask_hotreload.coordination.payload import LiveRecord, Payload, remaining
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.generation import worth_keeping


class Entry(NamedTuple):
    """A verified record."""

    payload: Payload
    hash: str


class Following(NamedTuple):
    """What the next record says of the ones before it; the names are those of a payload.

    ``obsolete``: generations of records that leave the journal.
    """

    live: tuple[LiveRecord, ...]
    obsolete: tuple[int, ...]
    parent: int | None
    began: int
    turned: int


class Journal:
    """The records of one release, oldest first. ``generation``: what is served now."""

    def __init__(self, entries: Sequence[Entry], generation: int) -> None:
        self._entries = {entry.payload.generation: entry for entry in entries}
        self._newest = entries[-1] if entries else None
        self._generation = generation
        #: The generation that the release began with.
        self.began = entries[-1].payload.began if entries else generation

    @property
    def newest(self) -> Payload | None:
        return None if self._newest is None else self._newest.payload

    @property
    def digests(self) -> set[str]:
        """Of all blobs that the records name."""
        references = [reference for entry in self._entries.values() for reference in entry.payload.sources]
        return {digest for reference in references for digest in (reference.digest, reference.code) if digest}

    @property
    def documents(self) -> list[Mapping[str, Any]]:
        return [entry.payload.document for entry in self._entries.values()]

    @property
    def runs(self) -> list[Payload]:
        """What makes the newest generation from the base."""
        return [] if self._newest is None else self.recipe(self._newest.payload.generation)

    def recipe(self, generation: int) -> list[Payload]:
        """What makes ``generation`` from the base, oldest first. Raise :class:`ReloadInvalid` if it is not kept."""
        if generation == self.began:
            return []
        return [self._entries[record.generation].payload for record in self._run(generation)]

    def parent_of(self, generation: int) -> int | None:
        if generation == self.began:
            return None
        self._run(generation)
        return self._entries[generation].payload.parent

    def label_of(self, generation: int) -> str | None:
        return None if generation == self.began else self._entries[generation].payload.label

    def _run(self, generation: int) -> list[LiveRecord]:
        entry = self._entries.get(generation)
        earlier = [] if entry is None else [record for record in entry.payload.live if record.runs]
        if entry is None or any(record.generation not in self._entries for record in earlier):
            kept = ", ".join(map(str, sorted({self.began, *self._entries} - {self._generation})))
            raise ReloadInvalid(
                f"generation {generation} is not kept; kept are: {kept} (HOTRELOAD_KEEP_GENERATIONS says how many)"
            )
        if entry.payload.restores is not None:
            return earlier  # by itself it does nothing
        return [*earlier, LiveRecord(generation, entry.hash, entry.payload.keys)]

    def followed_by(
        self, generation: int, *, keys: Sequence[str], clear_old: bool, restores: int | None, keep: int
    ) -> Following:
        """When ``generation`` is committed next, which does ``keys``, or ``restores`` an earlier one."""
        if restores is None:
            now = [] if self._newest is None else self._run(self._newest.payload.generation)
            runs = remaining(now, keys, clear_old=clear_old)
            parent: int | None = self._generation
        else:
            runs = [] if restores == self.began else self._run(restores)
            parent = self.parent_of(restores)
        parents = {number: entry.payload.parent for number, entry in self._entries.items()} | {generation: parent}
        needed = worth_keeping(generation, parents, keep) & self._entries.keys()
        needed |= {record.generation for each in needed for record in self._run(each)}
        running = {record.generation: record for record in runs}
        kept = {
            number: LiveRecord(number, self._entries[number].hash, self._entries[number].payload.keys, runs=False)
            for number in needed
        }
        live = tuple(each for _, each in sorted({**kept, **running}.items()))
        obsolete = tuple(sorted(self._entries.keys() - kept.keys() - running.keys()))
        turned = generation if restores is not None else self.began if self.newest is None else self.newest.turned
        return Following(live, obsolete, parent, self.began, turned)

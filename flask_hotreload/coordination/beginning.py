"""The sources that a release began with, for workers that start from other files on disk.

A worker that catches up runs what was committed on top of what it has imported, and a rollback may lead back to what
was there before the first reload. Both have to mean the same on each host, whatever lies on its disk when it starts.
So the first transaction of a release leaves a list of all sources, with their bytes, and each later one names that
list: a worker whose own files are others makes the application from it.

A store of the master's own has the base in its place, from which its workers import; see
:mod:`flask_hotreload.coordination.base`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from flask_hotreload.coordination.payload import Beginning, LedRoot, SourceReference
from flask_hotreload.coordination.positions import led_here, position_of, told_roots
from flask_hotreload.coordination.shipped import sources_of
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.sources import Snapshot, digest_of_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from flask_hotreload.coordination.store import Store
    from flask_hotreload.reloader import Reloader


class Manifest(msgspec.Struct, frozen=True):
    """The list: its fields are those of a payload."""

    roots: tuple[LedRoot, ...]
    sources: tuple[SourceReference, ...]
    interpreter: str = ""


class Left(NamedTuple):
    """``beginning``: what a payload says of it. ``digests``: of all its blobs. ``blobs``: what the store lacks."""

    beginning: Beginning | None
    digests: frozenset[str]
    blobs: dict[str, bytes]


#: Where no list is kept.
NOTHING_LEFT = Left(None, frozenset(), {})


def left_by(snapshot: Snapshot, known: Collection[str]) -> Left:
    """What the first transaction of a release leaves. ``known``: digests of blobs that the store has."""
    references = tuple(
        SourceReference(*position_of(snapshot.roots, real), source.path, source.digest)
        for real, source in sorted(snapshot.sources.items())
    )
    manifest = msgspec.json.encode(Manifest(told_roots(snapshot.roots), references))
    digest = digest_of_bytes(manifest)
    blobs = {source.digest: source.data for source in snapshot.sources.values()}
    blobs[digest] = manifest
    missing = {each: data for each, data in blobs.items() if each not in known}
    return Left(Beginning(digest, snapshot.digest), frozenset(blobs), missing)


def left_before(beginning: Beginning | None, store: Store) -> Left:
    """What an earlier transaction has left; the store has all of it."""
    if beginning is None:
        return NOTHING_LEFT
    digests = {reference.digest for reference in _manifest(beginning, store).sources}
    return Left(beginning, frozenset({beginning.manifest, *digests}), {})


def snapshot_of(beginning: Beginning, store: Store, reloader: Reloader) -> Snapshot:
    """All sources of the beginning, each as it was signed. Raise :class:`StoreUnavailable`."""
    manifest = _manifest(beginning, store)
    roots = reloader.roots_led(led_here(manifest.roots, reloader.roots_led({})))
    return Snapshot(roots, sources_of(manifest, store, reloader.base.snapshot.sources, roots), sealed=True)


def _manifest(beginning: Beginning, store: Store) -> Manifest:
    data = store.blobs([beginning.manifest]).get(beginning.manifest)
    if data is None or digest_of_bytes(data) != beginning.manifest:
        raise StoreUnavailable("the store does not hold the list of the release's first sources as it was signed")
    return msgspec.json.decode(data, type=Manifest)

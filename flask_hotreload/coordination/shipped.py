"""Sources on their way through the store: by digest, each with what it was compiled to: one host compiles once."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flask_hotreload.coordination.payload import LedRoot, SourceReference
from flask_hotreload.coordination.positions import (
    Position,
    file_here,
    position_of,
    shown_here,
    told_roots,
    two_in_one,
)
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.sources import Source, digest_of_bytes

if TYPE_CHECKING:
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.sources import ResolvedRoots, Snapshot

#: By which compiled code is known to be for the interpreter that reads it.
INTERPRETER = f"{sys.implementation.cache_tag} {MAGIC_NUMBER.hex()}"


class NamesSources(Protocol):
    """As a payload does."""

    @property
    def roots(self) -> tuple[LedRoot, ...]: ...
    @property
    def sources(self) -> tuple[SourceReference, ...]: ...
    @property
    def interpreter(self) -> str: ...


class Read(NamedTuple):
    """``references``: all of it. ``blobs``: by digest, what the store may not have yet. ``digests``: of all blobs."""

    references: tuple[SourceReference, ...]
    blobs: dict[str, bytes]
    digests: tuple[str, ...]


#: A rollback runs what the store has already.
NOTHING = Read((), {}, ())


def blobs_of(source: Source) -> list[tuple[str, bytes]]:
    """Its bytes, and those that it was compiled to, if it was, each with the digest."""
    compiled = source.compiled()
    code = [] if compiled is None or compiled.data is None else [(compiled.digest, compiled.data)]
    return [(source.digest, source.data), *code]


def read_of(snapshot: Snapshot, known: Collection[str]) -> Read:
    """What a transaction has read. ``known``: digests of blobs that the store has."""
    references = []
    blobs: dict[str, bytes | None] = {}
    for real, source in snapshot.sources.items():
        compiled = source.compiled(known)
        code = "" if compiled is None else compiled.digest
        references.append(SourceReference(*position_of(snapshot.roots, real), source.path, source.digest, code))
        blobs[source.digest] = source.data
        if compiled is not None:
            blobs[code] = compiled.data
    missing = {digest: data for digest, data in blobs.items() if data is not None and digest not in known}
    return Read(tuple(references), missing, tuple(blobs))


def sources_of(
    payload: NamesSources, store: Store, running: Mapping[str, Source], roots: ResolvedRoots
) -> dict[str, Source]:
    """Real path here → source, each with the digest that was signed. ``roots``: as they lead here.

    What is ``running`` already is taken over with what was compiled from it. Raise :class:`StoreUnavailable`, and
    :class:`WorkerFailed` where a file of the payload can have no place here.
    """
    placed = _placed(payload, roots)
    shown = _shown(payload, placed, roots)
    found, wanted = {}, []
    for real, reference in placed.items():
        source = running.get(real)
        if source is not None and (source.digest, source.path) == (reference.digest, shown[real]):
            found[real] = source
        else:
            wanted.append(real)
    codes = {
        real: reference.code
        for real, reference in placed.items()
        if reference.code and payload.interpreter == INTERPRETER and not (real in found and found[real].is_compiled)
    }
    blobs = store.blobs({*(placed[real].digest for real in wanted), *codes.values()})
    for real in wanted:
        data = blobs.get(placed[real].digest)
        source = None if data is None else Source(shown[real], data)
        if source is None or source.digest != placed[real].digest:
            raise StoreUnavailable(f"the store does not hold the source of {shown[real]} as it was signed")
        found[real] = source
    for real, code in codes.items():
        compiled = blobs.get(code)
        if compiled is not None and code == digest_of_bytes(compiled):
            found[real].use_compiled(compiled, code)
    return found


def _placed(payload: NamesSources, roots: ResolvedRoots) -> dict[str, SourceReference]:
    """The references by the real paths of their files here."""
    placed: dict[str, SourceReference] = {}
    for reference in payload.sources:
        real = file_here(roots, Position(reference.root, reference.path))
        if placed.setdefault(real, reference).digest != reference.digest:
            raise two_in_one(real)
    return placed


def _shown(payload: NamesSources, placed: Mapping[str, SourceReference], roots: ResolvedRoots) -> dict[str, str]:
    """How the files are to be shown here."""
    here = told_roots(roots)
    told = payload.roots or here
    return {
        real: shown_here(reference.shown, told[reference.root], here[reference.root], real)
        for real, reference in placed.items()
    }

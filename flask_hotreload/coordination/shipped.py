"""Sources on their way through the store: by digest, each with what it was compiled to: one host compiles once."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Mapping
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, NamedTuple

from flask_hotreload.coordination.payload import Payload, SourceReference
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.sources import Snapshot, Source

if TYPE_CHECKING:
    from flask_hotreload.coordination.store import Store

#: By which compiled code is known to be for the interpreter that reads it.
INTERPRETER = f"{sys.implementation.cache_tag} {MAGIC_NUMBER.hex()}"


class Read(NamedTuple):
    """``references``: all of it. ``blobs``: by digest, what the store may not have yet. ``digests``: of all blobs."""

    references: tuple[SourceReference, ...]
    blobs: dict[str, bytes]
    digests: tuple[str, ...]


#: A rollback runs what the store has already.
NOTHING = Read((), {}, ())


def read_of(snapshot: Snapshot, known: Collection[str]) -> Read:
    """What a transaction has read. ``known``: digests of blobs that the store has."""
    references = []
    blobs: dict[str, bytes] = {}
    for real, source in snapshot.sources.items():
        compiled = source.compiled
        code = "" if compiled is None else f"sha256:{hashlib.sha256(compiled).hexdigest()}"
        references.append(SourceReference(real, source.path, source.digest, code))
        blobs[source.digest] = source.data
        if compiled is not None:
            blobs[code] = compiled
    missing = {digest: data for digest, data in blobs.items() if digest not in known}
    return Read(tuple(references), missing, tuple(blobs))


def sources_of(payload: Payload, store: Store, running: Mapping[str, Source]) -> dict[str, Source]:
    """Real path → source, each with the digest that was signed.

    What is ``running`` already is taken over with what was compiled from it. Raise :class:`StoreUnavailable`.
    """
    found, wanted = {}, []
    for reference in payload.sources:
        source = running.get(reference.real)
        if source is not None and (source.digest, source.path) == (reference.digest, reference.shown):
            found[reference.real] = source
        else:
            wanted.append(reference)
    codes = payload.interpreter == INTERPRETER
    blobs = store.blobs(
        {reference.digest for reference in wanted} | {reference.code for reference in payload.sources if codes}
    )
    for reference in wanted:
        data = blobs.get(reference.digest)
        source = None if data is None else Source(reference.shown, data)
        if source is None or source.digest != reference.digest:
            raise StoreUnavailable(f"the store does not hold the source of {reference.shown} as it was signed")
        found[reference.real] = source
    if codes:
        for reference in payload.sources:
            compiled = blobs.get(reference.code)
            if compiled is not None and reference.code == f"sha256:{hashlib.sha256(compiled).hexdigest()}":
                found[reference.real].use_compiled(compiled)
    return found

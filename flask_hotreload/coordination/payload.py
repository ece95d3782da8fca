"""What a transaction runs, as it travels through the store: signed, and tied to its place in the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from flask_hotreload.errors import StoreUnavailable


class Signs(Protocol):
    def sign(self, data: bytes) -> bytes: ...
    def verify(self, signed: bytes) -> bytes:
        """The data. Raise :class:`StoreUnavailable` if it was not signed with this key."""


#: The key of a reload of the whole source: it supersedes every other.
WHOLE = "whole source"


class LedRoot(msgspec.Struct, frozen=True, array_like=True):
    """A root of whoever tells of it: as it was ``written``, and the folder to which it ``led``."""

    written: str
    led: str


class SourceReference(msgspec.Struct, frozen=True):
    """A file that the new code is made from: where it lies, how it is shown, and its bytes by digest.

    ``root``, ``path``
        Its :class:`~flask_hotreload.coordination.positions.Position`.
    ``shown``
        As it is shown where it was read.
    ``code``
        The digest of what the bytes are compiled to, for the interpreter that the payload names; empty: nothing.
    """

    root: int
    path: str
    shown: str
    digest: str
    code: str = ""


class Beginning(msgspec.Struct, frozen=True):
    """What a release began with. ``manifest``: the digest of the list of its sources; ``sources``: one over all."""

    manifest: str
    sources: str


class LiveRecord(msgspec.Struct, frozen=True):
    """An earlier record that stays. ``runs``: a worker which catches up has to run it; else a rollback may."""

    generation: int
    hash: str
    keys: tuple[str, ...]
    runs: bool = True


class Payload(msgspec.Struct, frozen=True):
    """``document`` is portable; its scripts are told by their positions. ``live``: the earlier records that remain,
    oldest first, each by its hash.

    ``keys`` are what this record does, by name: a record all of whose keys a later one has is superseded by it.
    ``roots``
        Those of who has read the sources, and where they led then.
    ``interpreter``
        That of the compiled code.
    ``restores``, ``parent``
        Generations: the one that a rollback restores, and the one that a rollback from this one would.
    ``began``
        The generation that the release began with.
    ``turned``
        The last one that a rollback made, or ``began``: what is older may not lead to this one.
    ``beginning``
        What the release began with; ``None``: what each worker has imported.
    ``commits``
        The id of the transaction that has staged this.
    ``base``
        The hash of the release's base; see :mod:`flask_hotreload.coordination.base`.
    ``reason``
        Why it was asked for.
    ``at``
        When it was published, on the store's clock.
    """

    deployment: str
    release: str
    generation: int
    transaction: str
    trigger: str
    actor: str | None
    started_at: str
    document: dict[str, Any]
    sources: tuple[SourceReference, ...] = ()
    keys: tuple[str, ...] = ()
    live: tuple[LiveRecord, ...] = ()
    roots: tuple[LedRoot, ...] = ()
    interpreter: str = ""
    restores: int | None = None
    parent: int | None = None
    began: int = 0
    turned: int = 0
    base: str = ""
    beginning: Beginning | None = None
    commits: str | None = None
    reason: tuple[str, ...] = ()
    at: float = 0.0

    @property
    def label(self) -> str | None:
        label: str | None = self.document["label"]
        return label


def seal(payload: Payload, signer: Signs) -> bytes:
    return signer.sign(msgspec.json.encode(payload))


def unseal(
    signed: bytes, signer: Signs, *, deployment: str, release: str, generation: int, transaction: str
) -> Payload:
    """Raise :class:`StoreUnavailable` unless it is signed, and for exactly this place."""
    try:
        payload = msgspec.json.decode(signer.verify(signed), type=Payload)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"a record of the store cannot be read: {error}") from None
    place = (payload.deployment, payload.release, payload.generation, payload.transaction)
    if place != (deployment, release, generation, transaction):
        raise StoreUnavailable(
            f"a record of the store is signed, but for another place: {place}; somebody may be replaying old records"
        )
    return payload


def hash_of(signed: bytes) -> str:
    return hashlib.sha256(signed).hexdigest()


def keys_of(document: Mapping[str, Any], modules: Iterable[str]) -> tuple[str, ...]:
    """What a committed document does: dispatchers, callbacks, and modules that it imported."""
    if document["data"] is None:
        return (WHOLE,)
    keys = {f"module {name}": None for name in modules}
    for entry in document["data"]:
        script = entry.get("scriptPath")
        names = (entry["path"], entry["dispatcher"], entry.get("name"), entry["exclusiveModule"], script)
        keys[f"dispatcher {names!r}"] = None
        if "authorize" in entry:
            keys[f"authorize of {_place(entry)!r}"] = None
        for overload in entry["overload"]:
            if isinstance(overload, str):
                keys[f"callback {overload!r} of {script!r} for {names!r}"] = None
    return tuple(keys)


def remaining(live: Iterable[LiveRecord], keys: Iterable[str], *, clear_old: bool) -> list[LiveRecord]:
    """Those of ``live`` that still do something when a record with ``keys`` has followed."""
    done = set(keys)
    if WHOLE in done:
        return []
    kept = []
    for record in live:
        left = tuple(
            key for key in record.keys if key not in done and not (clear_old and key.startswith("dispatcher "))
        )
        if left:
            kept.append(LiveRecord(record.generation, record.hash, left))
    return kept


def with_kept_settings(document: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """``document`` with the settings that its entries took over from ``earlier`` documents written out.

    A reload keeps the settings of the dispatcher that it replaces; when the earlier record is superseded, nothing
    else would remember them. (An ``authorize`` may be of the earlier module; it keeps its record, see ``keys_of``.)
    """
    if document["data"] is None:
        return dict(document)
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for each in earlier:
        if each["clearOld"] or each["data"] is None:
            kept.clear()
        for entry in each["data"] or ():
            known = kept.setdefault(_place(entry), {})
            known.update({key: entry[key] for key in ("validate", "lock", "aliases") if key in entry})
    data = [{**kept.get(_place(entry), {}), **entry} for entry in document["data"]]
    return {**document, "data": document["data"] if document["clearOld"] else data}


def _place(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["path"], entry.get("name") or entry["dispatcher"]

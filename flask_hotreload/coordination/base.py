"""The base of a release: the sources that its workers have imported when nothing had been reloaded yet.

A worker that starts after something was committed imports these, whatever lies on the disk by then, and catches up
from there. The base is one signed document, and its sources are kept by digest beside those of the journal. It can be
exchanged until the first transaction of the release commits: each record of the journal names the base that it
followed, by its hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from flask_hotreload.coordination.payload import Signs, hash_of, unseal
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.sources import Source

if TYPE_CHECKING:
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.imported import Imported


class BaseModule(msgspec.Struct, frozen=True):
    """Where a module's file lies, as a root and the path below it, and how it is ``shown``: an absolute path."""

    root: str
    path: str
    shown: str


class Base(msgspec.Struct, frozen=True):
    """``files``: root, as it was written → path below it → digest. The rest is by the modules' names.

    ``namespaces``
        The folders of packages that have no file.
    """

    deployment: str
    release: str
    files: dict[str, dict[str, str]]
    modules: dict[str, BaseModule]
    namespaces: dict[str, tuple[str, ...]]

    def digest(self, module: BaseModule) -> str:
        return self.files[module.root][module.path]

    def digests(self) -> set[str]:
        return {digest for files in self.files.values() for digest in files.values()}


def base_of(found: Imported, deployment: str, release: str, earlier: Base | None) -> tuple[Base, dict[str, bytes]]:
    """The base, and its sources by digest. What ``found`` is unsure of is as in the ``earlier`` base, if it is there;
    those sources the store has.
    """
    base = Base(deployment, release, {}, {}, found.namespaces)
    for name, module in found.modules.items():
        base.files.setdefault(module.place.root, {})[module.place.relative] = module.source.digest
        base.modules[name] = BaseModule(module.place.root, module.place.relative, module.shown)
    for name in found.unsure:
        known = None if earlier is None else earlier.modules.get(name)
        if earlier is not None and known is not None:
            base.files.setdefault(known.root, {}).setdefault(known.path, earlier.digest(known))
            base.modules[name] = known
    return base, {module.source.digest: module.source.data for module in found.modules.values()}


def seal_base(base: Base, signer: Signs) -> bytes:
    """The same bytes for the same base."""
    return signer.sign(msgspec.json.encode(base, order="deterministic"))


def base_hash(store: Store, release: str) -> str:
    """By which the journal's records name the base; empty if there is none."""
    sealed = store.base(release)
    return "" if sealed is None else hash_of(sealed)


def committed_base(store: Store, signer: Signs, release: str) -> Base | None:
    """The base that the release's newest record names. ``None``: nothing was committed, or there was no base.

    Raise :class:`StoreUnavailable`, also if anything is not as it was signed.
    """
    records = store.journal(release)
    sealed = store.base(release) if records else None
    if sealed is None:
        return None
    base = open_base(sealed, signer, release)
    newest = records[-1]
    payload = unseal(
        newest.payload,
        signer,
        deployment=base.deployment,
        release=release,
        generation=newest.generation,
        transaction=newest.transaction,
    )
    if payload.base != hash_of(sealed):
        raise StoreUnavailable(
            f"the base of release {release} is signed, but not the one that its journal followed; nothing of it is "
            "executed"
        )
    return base


def open_base(sealed: bytes, signer: Signs, release: str) -> Base:
    """Raise :class:`StoreUnavailable` unless it is signed, and for this release."""
    try:
        base = msgspec.json.decode(signer.verify(sealed), type=Base)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"the base of release {release} cannot be read: {error}") from None
    if base.release != release:
        raise StoreUnavailable(f"the base of release {release} is signed, but for release {base.release}")
    return base


def base_sources(store: Store, base: Base) -> dict[str, Source]:
    """By the modules' names; each with the digest that was signed. Raise :class:`StoreUnavailable`."""
    blobs = store.blobs({base.digest(module) for module in base.modules.values()})
    sources = {}
    for name, module in base.modules.items():
        data = blobs.get(base.digest(module))
        source = None if data is None else Source(module.shown, data)
        if source is None or source.digest != base.digest(module):
            raise StoreUnavailable(f"the store does not hold the source of {module.shown} as it was signed")
        sources[name] = source
    return sources

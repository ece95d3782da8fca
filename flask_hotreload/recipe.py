"""What a generation was made from, so that it can be made once more: all sources, and the documents run on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from flask_hotreload.document import Document, Entry
from flask_hotreload.sources import Snapshot, Source


@dataclass(frozen=True)
class Recipe:
    """``snapshot``: every source of the project, sealed. ``documents``: reloads of dispatchers since the application
    was last made, oldest first, as far as they still do something.
    """

    snapshot: Snapshot
    documents: tuple[Document, ...] = ()

    def followed_by(self, document: Document, sources: dict[str, Source]) -> Recipe:
        """The recipe once a reload of dispatchers has run ``document``, with the ``sources`` that it has read."""
        keys = keys_of(document)
        left = [
            earlier
            for earlier in self.documents
            if not all(_is_done(key, keys, clear_old=document.clear_old) for key in keys_of(earlier))
        ]
        snapshot = self.snapshot.with_sources(sources)
        return Recipe(snapshot, (*left, replace(document, data=_with_kept(document, self.documents), checks=())))


def keys_of(document: Document) -> frozenset[tuple[Any, ...]]:
    """What a document does. One all of whose keys later documents have, too, does nothing any more."""
    keys: set[tuple[Any, ...]] = set()
    for entry in document.data or ():
        names = _place(entry), entry.dispatcher, entry.script_path, entry.exclusive_module
        keys.add(("dispatcher", *names))
        if "authorize" in entry.settings:
            keys.add(("authorize", *_place(entry)))
        keys.update(("callback", each, *names) for each in entry.overload if isinstance(each, str) or callable(each))
        keys.update(("overload", entry.script_path, *each) for each in entry.overload if isinstance(each, dict))
    return frozenset(keys)


def _is_done(key: tuple[Any, ...], by: frozenset[tuple[Any, ...]], *, clear_old: bool) -> bool:
    return key in by or (clear_old and key[0] == "dispatcher")


def _with_kept(document: Document, earlier: Iterable[Document]) -> tuple[Entry, ...]:
    """The entries, with the settings that they took over from those before written out."""
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for each in earlier:
        if each.clear_old:
            kept.clear()
        for entry in each.data or ():
            known = kept.setdefault(_place(entry), {})
            known.update({key: entry.settings[key] for key in ("validate", "lock") if key in entry.settings})
    entries = document.data or ()
    if document.clear_old:
        return entries
    return tuple(replace(entry, settings={**kept.get(_place(entry), {}), **entry.settings}) for entry in entries)


def _place(entry: Entry) -> tuple[str, str]:
    return entry.path, entry.name or entry.own_name

"""The OpenRPC documents of one application: made when they are first asked for, kept as long as their generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from flask import request
from msgspec import Raw

from flask_hotreload.jsonrpc import Method
from flask_hotreload.openrpc import DISCOVER, document

if TYPE_CHECKING:
    from flask_hotreload.generation import Generation


class Discovery:
    """``pinned()`` is the generation that the current request runs: a document tells of nothing else."""

    def __init__(self, title: str, pinned: Callable[[], Generation]) -> None:
        self._title = title
        self._pinned = pinned
        # Text, which keeps nothing of the code alive. Two requests may make the same one at a time.
        self._made: WeakKeyDictionary[Generation, dict[str, dict[str, Raw]]] = WeakKeyDictionary()

    def method(self, path: str) -> Method:
        """``rpc.discover`` of an API path."""

        def discover() -> dict[str, Any]:
            return self.document(path)

        return Method(discover, name=DISCOVER)

    def document(self, path: str) -> dict[str, Any]:
        """The document of an API path, to be written as JSON; its URL as the current request's client sees it."""
        generation = self._pinned()
        made = self._made.setdefault(generation, {})
        if path not in made:
            members = document(
                generation.table.named(path),
                title=self._title,
                version=generation.label or str(generation.number),
                generation=generation.number,
            )
            made[path] = {name: Raw(msgspec.json.encode(member)) for name, member in members.items()}
        members = made[path]
        return {
            "openrpc": members["openrpc"],
            "info": members["info"],
            "servers": [{"url": request.script_root + path}],
            "methods": members["methods"],
            "components": members["components"],
        }

"""The scripts that run in the Redis server: each is one change, or one look, that happens as if alone.

They stand as files in the folder ``lua``, each named as the method of the store that it is for; ``common.lua`` stands
before every one of them. Each answers the server's time first, in seconds and microseconds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from flask_hotreload.coordination.store import RELEASES, REMEMBERED, REPORTS

_FOLDER = Path(__file__).with_name("lua")
_LIMITS = f"local REMEMBERED, REPORTS, RELEASES_KEPT = {REMEMBERED}, {REPORTS}, {RELEASES}\n"


class Script(NamedTuple):
    """``digest``: by which a server that has seen the source knows it."""

    source: str
    digest: str


def _read() -> dict[str, Script]:
    files = {file.stem: file.read_text(encoding="utf-8") for file in _FOLDER.glob("*.lua")}
    common = _LIMITS + files.pop("common")
    sources = {name: common + own for name, own in files.items()}
    return {
        name: Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
        for name, source in sources.items()
    }


SCRIPTS = _read()

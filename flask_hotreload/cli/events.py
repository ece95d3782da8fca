"""Server-sent events out of the bytes of a response, as they come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec


class Event(NamedTuple):
    """``data``: decoded JSON."""

    name: str
    data: Any


COMMENT = Event("comment", None)


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Each event once it is complete, and each comment as a ``COMMENT``: a sign of life.

    What is not JSON, or cut off at the end, is left out.
    """
    name, data = "message", b""
    for line in _lines(chunks):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line.startswith(b":"):
            yield COMMENT
        elif key == b"event":
            name = value.decode(errors="replace")
        elif key == b"data":
            data += value
        elif not line and data:
            try:
                yield Event(name, msgspec.json.decode(data))
            except msgspec.DecodeError:
                pass
            name, data = "message", b""


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")

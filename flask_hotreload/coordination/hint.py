"""What a ring says, as it is sent: who rings, and perhaps news. It may be lost, late or doubled."""

from __future__ import annotations

import msgspec

from flask_hotreload.coordination.records import News

#: No hint is longer than so many bytes.
LONGEST = 4096


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """``by``: the member that rings."""

    by: str
    news: News | None = None


_write = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(Hint).decode


def written(by: str, news: News | None = None) -> bytes:
    """A hint to be sent, without news that are too long."""
    hint = _write(Hint(by, news))
    return hint if len(hint) <= LONGEST else _write(Hint(by))


def read(data: bytes) -> Hint:
    """What was sent; of what cannot be understood, only that somebody rings."""
    try:
        return _read(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Hint("")

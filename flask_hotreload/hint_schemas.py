"""Draft-07 schemas of type hints, with what they share as components.

Each class has one component, also if several hints name it. Two classes of one name that differ have two: those of a
module and of its successor, for instance, while dispatchers of both are served.
"""

from __future__ import annotations

import re
import types
import typing
from datetime import datetime, time
from typing import Annotated, Any, Union

import msgspec
from msgspec import Meta

from flask_hotreload.draft07 import converted

#: Where an OpenRPC document has its components.
_PLACE = "#/components/schemas/"
_MSGSPEC_PLACE = "#/$defs/"
_REFERENCE = re.compile(rb'"\$ref":"#/\$defs/([^"]+)"')

# msgspec says no more than "string" of what need not have an offset from UTC.
_SPELLED: dict[object, Any] = {
    datetime: Annotated[datetime, Meta(extra_json_schema={"description": "a date and a time as in ISO 8601"})],
    time: Annotated[time, Meta(extra_json_schema={"description": "a time of the day as in ISO 8601"})],
}


class HintSchemas:
    """``components`` holds, by name, what the schemas returned so far refer to."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}
        self._made_from: dict[str, bytes] = {}
        self._known: dict[Any, dict[str, Any]] = {}

    def of(self, hint: Any) -> dict[str, Any]:
        """The schema of a type hint; ``{}``, which is any value, for one that JSON Schema has no words for.

        It may be the same object for the same hint: not to be changed.
        """
        try:
            known = self._known.get(hint)
        except TypeError:  # not hashable
            return self._made(hint)
        if known is None:
            known = self._known[hint] = self._made(hint)
        return known

    def _made(self, hint: Any) -> dict[str, Any]:
        try:
            (schema,), inside = msgspec.json.schema_components([_spelled(hint)], schema_hook=_named)
            encoded = {name: _encoded(each) for name, each in inside.items()}
            _encoded(schema)
        except Exception:  # noqa: BLE001  # a hint is foreign code, and so are the defaults inside of it
            return {}
        names = {name: self._name(name, _reachable(name, encoded)) for name in inside}

        def refer(reference: str) -> str:
            name = names.get(reference.removeprefix(_MSGSPEC_PLACE))
            return reference if name is None else _PLACE + name

        for name, each in inside.items():
            self.components.setdefault(names[name], converted(each, refer))
        new: dict[str, Any] = converted(schema, refer)
        return new

    def _name(self, name: str, made_from: bytes) -> str:
        """A name that is free, or stands for the very same schema."""
        number, free = 1, name
        while self._made_from.setdefault(free, made_from) != made_from:
            number += 1
            free = f"{name}_{number}"
        return free


def _spelled(hint: Any) -> Any:
    """``hint`` with more said of it, where it is one of those that msgspec says little of, or a union with one."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_spelled(each) for each in typing.get_args(hint))]  # noqa: UP007  # made at run time
    try:
        return _SPELLED.get(hint, hint)
    except TypeError:  # not hashable
        return hint


def _named(cls: type) -> dict[str, Any]:
    """All that can be said of a class for which JSON has no form."""
    return {"title": cls.__name__}


def _encoded(schema: Any) -> bytes:
    return msgspec.json.encode(schema, order="deterministic")


def _reachable(name: str, encoded: dict[str, bytes]) -> bytes:
    """A schema and all that it refers to, so that two of them are equal if they mean the same."""
    found: dict[str, bytes] = {}
    ahead = [name]
    while ahead:
        each = ahead.pop()
        if each in encoded and each not in found:
            found[each] = encoded[each]
            ahead += [match.decode() for match in _REFERENCE.findall(encoded[each])]
    return b"\n".join(key.encode() + b"=" + found[key] for key in sorted(found))

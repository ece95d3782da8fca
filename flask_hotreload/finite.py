"""NaN and infinities, which JSON cannot hold (RFC 8259, section 6), found in Python values."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from msgspec import Struct

_NUMBERLESS: frozenset[type] = frozenset(
    (str, int, bool, type(None), bytes, bytearray, datetime, date, time, timedelta, UUID)
)


def is_finite(value: object) -> bool:
    """Whether no float or Decimal in ``value`` is NaN or infinite.

    Looks into dicts (their values), lists, tuples, sets, dataclasses, msgspec Structs and attrs classes; what
    it does not know holds no numbers. ``value`` must not contain itself.
    """
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return False
        elif isinstance(item, Decimal):
            if not item.is_finite():
                return False
        elif type(item) not in _NUMBERLESS:
            inner = _members(item)
            # One pass in C passes over the usual list of strings or integers.
            if not _NUMBERLESS.issuperset(map(type, inner)):
                pending.extend(inner)
    return True


def _members(item: object) -> list[object]:
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return list(item)
    if isinstance(item, Struct):
        names = item.__struct_fields__
    elif is_dataclass(item):
        names = tuple(field.name for field in fields(item))
    else:
        names = tuple(field.name for field in getattr(type(item), "__attrs_attrs__", ()))
    return [getattr(item, name, None) for name in names]

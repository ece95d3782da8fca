"""JSON Schema of draft 2020-12, as msgspec writes it, in terms of draft-07.

The two say the same in other words: ``prefixItems`` was a list of ``items``, ``items`` after it ``additionalItems``,
``$defs`` was ``definitions``. What stands beside a ``$ref`` is ignored in draft-07, so that moves into an ``allOf``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask_hotreload.finite import is_finite

_ONE = frozenset(
    ["items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"]
)
_LIST = frozenset(["anyOf", "allOf", "oneOf", "prefixItems"])
_MAP = frozenset(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"])
_RENAMED: dict[Any, str] = {
    "prefixItems": "items",
    "$defs": "definitions",
}
#: OpenAPI's, not JSON Schema's. The tags of a union's members stand in these as well.
_FOREIGN = frozenset({"discriminator"})


def converted(schema: Any, refer: Callable[[str], str] = lambda reference: reference) -> Any:
    """A schema, a dict or a bool, in terms of draft-07. ``refer`` may change each of its references."""
    if not isinstance(schema, dict):
        return schema
    new: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _FOREIGN or (key == "default" and not is_finite(value)):
            continue
        if key == "items" and "prefixItems" in schema:
            new["additionalItems"] = converted(value, refer)
        elif key == "$ref":
            new[key] = refer(value)
        elif key in ("dependentSchemas", "dependentRequired"):
            new.setdefault("dependencies", {}).update(_inner(key, value, refer))
        else:
            new[_RENAMED.get(key) or key] = _inner(key, value, refer)
    return _apart(new)


def annotated(schema: Mapping[str, Any], **annotations: Any) -> dict[str, Any]:
    """A draft-07 schema with further keywords, ``default`` for instance."""
    return _apart({**schema, **annotations})


def _inner(key: str, value: Any, refer: Callable[[str], str]) -> Any:
    if key in _ONE and not isinstance(value, list):
        return converted(value, refer)
    if key in _LIST or key in _ONE:
        return [converted(each, refer) for each in value]
    if key in _MAP:
        return {name: converted(each, refer) for name, each in value.items()}
    return value


def _apart(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema or len(schema) == 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return {**rest, "allOf": [{"$ref": schema["$ref"]}, *rest.get("allOf", ())]}

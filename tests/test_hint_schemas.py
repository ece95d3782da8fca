"""Schemas of type hints, draft-07: they take what a call takes."""

import dataclasses
import enum
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft7Validator
from msgspec import Meta, Struct

from flask_hotreload.binding import Binding, InvalidParams
from flask_hotreload.draft07 import annotated, converted
from flask_hotreload.hint_schemas import HintSchemas

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    """Where it is."""

    x: int
    y: Optional[float] = None  # noqa: UP045  # the old spelling is a hint as well
    tags: list[str] = dataclasses.field(default_factory=list)


class Node(Struct, forbid_unknown_fields=True):
    value: Annotated[int, Meta(gt=0, description="how much")] = 1
    next: "Node | None" = None
    color: Color = Color.RED


class Circle(Struct, tag=True):
    radius: float


class Square(Struct, tag=True):
    side: float


class Flat(Struct, array_like=True, forbid_unknown_fields=True):
    a: int
    b: str = "x"


class Pair(NamedTuple):
    a: int
    b: str = "x"


class Options(TypedDict, total=False):
    depth: int
    prefixItems: str  # the name of a keyword of JSON Schema


class Box(Struct, Generic[T]):
    inside: T


class Unknown:
    """JSON has no form for it."""


DAY = date(2026, 1, 2)

#: Hint → JSON values that a call takes, and such that it refuses.
CASES = [
    (int, [1, -(2**70)], ["1", 1.5, True, None]),
    (float, [1, 1.5], ["1.5", True]),
    (str, ["", "é"], [1, None]),
    (bool, [True], [1, "true"]),
    (None, [None], [0, ""]),
    (Any, [1, None, [], {}], []),
    (bytes, ["eA=="], [1]),
    (datetime, ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05"], [5.5]),
    (datetime | None, ["2026-01-02T03:04:05Z", None], [[]]),
    (Annotated[datetime, Meta(tz=True)], ["2026-01-02T03:04:05Z"], [5.5]),
    (date, ["2026-01-02"], [1]),
    (time, ["03:04:05"], [[]]),
    (timedelta, ["PT5S"], [[]]),
    (Decimal, ["1.50"], [True, []]),
    (UUID, ["12345678-1234-5678-1234-567812345678"], [1]),
    (Color, ["red"], ["green", 1]),
    (Level, [1, 2], [3, "1"]),
    (Literal["a", 1, None], ["a", 1, None], ["b", 2]),
    (Optional[int], [1, None], ["1"]),  # noqa: UP045  # as above
    (int | str, [1, "1"], [1.5, None]),
    (list, [[1, "a"]], [{}]),
    (list[Point], [[], [{"x": 1, "y": 1.5, "tags": ["a"]}]], [[{}], [{"x": "1"}], {"x": 1}]),
    (dict[str, list[Color]], [{"a": ["red"]}], [{"a": ["green"]}, {"a": "red"}]),
    (dict[str, Decimal], [{"a": "1.5"}], [{"a": []}]),
    (tuple[int, str], [[1, "a"]], [[1], [1, 2], [1, "a", 3]]),
    (tuple[int, ...], [[], [1, 2]], [["a"]]),
    (set[int], [[1, 2]], [["a"]]),
    (Annotated[int, Meta(ge=1, lt=5)], [1, 4], [0, 5]),
    (Annotated[str, Meta(min_length=2, pattern="^a")], ["ab"], ["a", "ba"]),
    (Annotated[list[int], Meta(max_length=1)], [[1]], [[1, 2]]),
    (Point, [{"x": 1}, {"x": 1, "y": None}], [{}, {"x": None}, {"x": 1, "tags": [1]}]),
    (Node, [{}, {"next": {"next": None, "value": 3}}], [{"value": 0}, {"next": {"value": 0}}, {"other": 1}]),
    (Circle | Square | None, [{"type": "Circle", "radius": 1}, None], [{"type": "Circle", "side": 1}, {"radius": 1}]),
    (Flat, [[1], [1, "b"]], [[], ["b"], [1, "b", 2]]),
    (Pair, [[1], [1, "b"]], [[], ["b"], [1, "b", 2]]),
    (Options, [{}, {"depth": 1, "prefixItems": "a"}], [{"depth": "1"}, {"prefixItems": 1}]),
    (Box[int], [{"inside": 1}], [{"inside": "1"}]),
    (list[Box[str]], [[{"inside": "1"}]], [[{"inside": 1}]]),
    (Union[list[int], dict[str, int]], [[1], {"a": 1}], [["a"], 1]),  # noqa: UP007  # as above
]


def validator(hint):
    schemas = HintSchemas()
    schema = schemas.of(hint)
    whole = {"allOf": [schema], "components": {"schemas": schemas.components}}
    Draft7Validator.check_schema(whole)
    for each in schemas.components.values():
        Draft7Validator.check_schema(each)
    assert not {"$defs", "prefixItems", "discriminator"} & keywords(whole)
    return Draft7Validator(json.loads(json.dumps(whole, allow_nan=False)))


def keywords(schema):
    """Those of a schema and of all inside of it."""
    if isinstance(schema, list):
        return {found for each in schema for found in keywords(each)}
    if not isinstance(schema, dict):
        return set()
    inner = [value for key, value in schema.items() if key not in ("properties", "default", "enum")]
    return set(schema) | keywords(inner) | keywords(list(schema.get("properties", {}).values()))


def is_taken(hint, value):
    def function(value):
        """Its hint is set below."""

    function.__annotations__["value"] = hint
    try:
        Binding(function).bind(msgspec.json.encode([value]))
    except InvalidParams:
        return False
    return True


@pytest.mark.parametrize(("hint", "taken", "refused"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_schema_takes_what_a_call_takes_and_refuses_what_it_refuses(hint, taken, refused):
    schema = validator(hint)
    for value in taken:
        assert (schema.is_valid(value), is_taken(hint, value)) == (True, True), value
    for value in refused:
        assert (schema.is_valid(value), is_taken(hint, value)) == (False, False), value


@pytest.mark.parametrize("hint", [Unknown, list[Unknown], object, T, "not there", 5])
def test_a_hint_that_json_has_no_form_for_takes_anything(hint):
    schema = HintSchemas().of(hint)
    assert Draft7Validator(schema).is_valid([{"a": 1}])


def test_what_stands_beside_a_reference_counts():
    schemas = HintSchemas()
    schemas.of(Node)
    color = schemas.components["Node"]["properties"]["color"]
    assert color == {"default": "red", "allOf": [{"$ref": "#/components/schemas/Color"}]}
    assert annotated({"$ref": "#/x"}, default=1) == {"default": 1, "allOf": [{"$ref": "#/x"}]}
    assert annotated({"type": "string"}, default="a") == {"type": "string", "default": "a"}


def test_hints_share_the_component_of_a_class():
    schemas = HintSchemas()
    assert schemas.of(Point) == {"$ref": "#/components/schemas/Point"}
    assert schemas.of(list[Point])["items"] == {"$ref": "#/components/schemas/Point"}
    assert list(schemas.components) == ["Point"]
    assert schemas.components["Point"]["description"] == "Where it is."


def module_with_point(hint):
    class Point(Struct):
        x: hint

    class Line(Struct):
        start: Point

    for cls in (Point, Line):
        cls.__module__, cls.__qualname__ = "shop", cls.__name__
    return Line


def test_two_classes_of_one_name_and_module_are_two_components():
    schemas = HintSchemas()
    old, new = module_with_point(int), module_with_point(str)
    assert schemas.of(old) == {"$ref": "#/components/schemas/Line"}
    assert schemas.of(new) == {"$ref": "#/components/schemas/Line_2"}
    assert schemas.components["Line_2"]["properties"]["start"] == {"$ref": "#/components/schemas/Point_2"}
    assert schemas.components["Point_2"]["properties"]["x"] == {"type": "string"}
    assert schemas.components["Point"]["properties"]["x"] == {"type": "integer"}
    assert schemas.of(module_with_point(int)) == {"$ref": "#/components/schemas/Line"}


def test_a_default_that_json_cannot_hold_is_left_out():
    class Limits(Struct):
        high: float = float("inf")
        low: float = 0.0

    schemas = HintSchemas()
    schemas.of(Limits)
    assert schemas.components["Limits"]["properties"] == {
        "high": {"type": "number"},
        "low": {"type": "number", "default": 0.0},
    }


def test_keywords_of_later_drafts_become_those_of_draft_07():
    later = {
        "$defs": {"a": {"prefixItems": [True], "items": False}},
        "properties": {"$defs": {"type": "array", "prefixItems": [{"$ref": "#/$defs/a"}]}},
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"c": {"minProperties": 2}},
        "default": {"prefixItems": 1},
        "enum": [{"$defs": 1}],
    }
    assert converted(later, lambda reference: reference.replace("$defs", "definitions")) == {
        "definitions": {"a": {"items": [True], "additionalItems": False}},
        "properties": {"$defs": {"type": "array", "items": [{"$ref": "#/definitions/a"}]}},
        "dependencies": {"a": ["b"], "c": {"minProperties": 2}},
        "default": {"prefixItems": 1},
        "enum": [{"$defs": 1}],
    }

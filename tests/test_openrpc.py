"""The OpenRPC document of dispatchers: methods, parameters, results, errors."""

import functools
import inspect
import itertools
import json
from dataclasses import dataclass
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta
from openrpc_documents import accepts, method_of, validate

from flask_hotreload.binding import Binding
from flask_hotreload.dispatch import Dispatcher, Settings
from flask_hotreload.jsonrpc import Method
from flask_hotreload.openrpc import document


def dispatcher_of(function, name="run", **options):
    settings = Settings(**options)
    method = Method(function, validate=settings.validate, authorize=settings.authorize)
    return Dispatcher("/api", name, function, settings=settings, method=method)


def document_of(*functions, **options):
    """A valid document of functions under their own names, "run" if they have none."""
    made = [dispatcher_of(each, getattr(each, "__name__", "run"), **options) for each in functions]
    named = {each.name: each for each in made}
    return validate(msgspec.to_builtins(document(named, title="shop", version="v1", generation=3)))


def described(function, **options):
    """The one method of a document."""
    (method,) = document_of(function, **options)["methods"]
    return method


@dataclass
class Item:
    """What can be bought."""

    name: str
    price: float = 0.0


def buy(item: Item, amount: Annotated[int, Meta(gt=0)] = 1, *, note: str | None = None) -> list[Item]:
    """Buy something.

    It is paid at once.

    :param item: what
    :param note: for the receipt
    :returns: all that was bought
    """


# The whole -------------------------------------------------------------------------------------------------------


def test_a_document_of_nothing_is_valid():
    assert document_of()["methods"] == []


def test_the_document_says_what_it_is():
    found = document_of(buy)
    assert found["openrpc"] == "1.4.0"
    assert found["info"] == {"title": "shop", "version": "v1", "x-generation": 3}


def test_a_method_is_described_by_its_hints_and_its_docstring():
    assert described(buy) == {
        "name": "buy",
        "summary": "Buy something.",
        "description": "It is paid at once.",
        "paramStructure": "by-name",
        "params": [
            {
                "name": "item",
                "description": "what",
                "required": True,
                "schema": {"$ref": "#/components/schemas/Item"},
            },
            {
                "name": "amount",
                "required": False,
                "schema": {"type": "integer", "exclusiveMinimum": 0, "default": 1},
            },
            {
                "name": "note",
                "description": "for the receipt",
                "required": False,
                "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
        ],
        "result": {
            "name": "result",
            "description": "all that was bought",
            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}},
        },
        "errors": [{"$ref": "#/components/errors/InvalidParams"}, {"$ref": "#/components/errors/InternalError"}],
    }


def test_methods_are_in_alphabetical_order_whatever_the_order_of_their_registration():
    made = {name: dispatcher_of(buy, name) for name in ("b", "a", "c")}
    listed = document(made, title="", version="", generation=0)["methods"]
    assert [method["name"] for method in listed] == ["a", "b", "c"]


def test_an_alias_is_a_method_that_names_the_other():
    dispatcher = dispatcher_of(buy, "buy")
    found = validate(document({"buy": dispatcher, "get": dispatcher}, title="", version="", generation=0))
    alias = method_of(found, "get")
    assert alias.pop("x-alias-of") == "buy"
    assert {**alias, "name": "buy"} == method_of(found, "buy")


def test_errors_are_shared_and_only_what_authorize_guards_can_be_forbidden():
    found = document_of(buy, authorize=lambda: False)
    assert found["components"]["errors"]["Forbidden"] == {"code": -32001, "message": "Forbidden"}
    assert {error["code"] for error in found["components"]["errors"].values()} == {
        *range(-32603, -32599),
        -32700,
        -32000,
        -32001,
    }
    assert {"$ref": "#/components/errors/Forbidden"} in method_of(found, "buy")["errors"]


def test_settings_do_not_show():
    assert described(buy, lock=True) == described(buy)


# Parameters ------------------------------------------------------------------------------------------------------


def every_signature():
    """Source of parameters, of all kinds in all combinations."""
    signatures = []
    for only, either, rest, named, others in itertools.product(
        ["", "a", "a=1"], ["", "b", "b=1"], ["", "*args"], ["", "c", "c=1"], ["", "**kwargs"]
    ):
        if only == "a=1" and either == "b":
            continue  # Python refuses a required one after it
        star = rest or ("*" if named else "")
        signatures.append(", ".join(filter(None, [only, "/" if only else "", either, star, named, others])))
    return signatures


@pytest.mark.parametrize("signature", every_signature())
def test_a_call_that_follows_the_document_is_accepted(signature):
    function = eval(f"lambda {signature}: 1")
    method = described(function)
    binding = Binding(function)
    if {"a", "c"} <= {each.name for each in binding.parameters if each.required}:
        return  # nobody can call it: one by position only, one by name only
    for params in (method["params"], [param for param in method["params"] if param["required"]]):
        if method["paramStructure"] != "by-name":
            binding.bind(json.dumps([0 for _ in params]).encode())
        if method["paramStructure"] != "by-position":
            binding.bind(json.dumps({param["name"]: 0 for param in params}).encode())


@pytest.mark.parametrize(
    ("function", "structure", "names"),
    [
        (lambda: 1, "either", []),
        (lambda a, b=1: 1, "either", ["a", "b"]),
        (lambda a=1, *, b: 1, "by-name", ["b", "a"]),
        (lambda a, /, b, *, c=1: 1, "by-position", ["a", "b"]),
        (lambda a, *args, c=1: 1, "by-position", ["a", "args"]),
        (lambda a, **kwargs: 1, "by-name", ["a", "kwargs"]),
        (lambda *args, **kwargs: 1, "either", ["args", "kwargs"]),
        (dict, "either", ["args", "kwargs"]),  # it has no signature
    ],
)
def test_the_structure_is_the_one_that_reaches_what_is_listed(function, structure, names):
    method = described(function)
    assert (method["paramStructure"], [param["name"] for param in method["params"]]) == (structure, names)


def test_what_takes_any_number_of_values_is_marked_and_has_the_schema_of_each():
    def add(*numbers: int, **named: str): ...

    numbers, named = described(add)["params"]
    assert numbers == {"name": "numbers", "required": False, "schema": {"type": "integer"}, "x-variadic": True}
    assert (named["schema"], named["x-variadic"]) == ({"type": "string"}, True)


@pytest.mark.parametrize("default", [object(), float("nan"), {"a": [float("inf")]}, msgspec.UNSET, "\ud800", len])
def test_a_default_that_json_has_no_form_for_is_not_told(default):
    def run(value=default): ...

    assert described(run)["params"] == [{"name": "value", "required": False, "schema": {}}]


def test_the_default_of_a_class_stands_beside_its_reference():
    def run(item: Item = Item("tea")): ...  # noqa: B008  # what is meant

    (param,) = described(run)["params"]
    assert param["schema"] == {
        "default": {"name": "tea", "price": 0.0},
        "allOf": [{"$ref": "#/components/schemas/Item"}],
    }


def test_a_schema_takes_what_the_method_takes():
    found = document_of(buy)
    item, amount, note = (param["schema"] for param in method_of(found, "buy")["params"])
    assert accepts(found, item, {"name": "tea"})
    assert not accepts(found, item, {"name": 1})
    assert not accepts(found, amount, 0)
    assert accepts(found, note, None)


def test_what_is_not_checked_takes_anything():
    params = described(buy, validate=False)["params"]
    assert [param["schema"] for param in params] == [{}, {"default": 1}, {"default": None}]


# Results and descriptions ----------------------------------------------------------------------------------------


class Shop:
    """A shop."""

    def sell(self) -> None:
        """Sell it."""

    async def ask(self) -> str:
        """Ask."""

    def __call__(self) -> int:
        """Open it."""


class Nothing:
    def __call__(self) -> "NotThere":  # noqa: F821  # that is the case
        return 1


@pytest.mark.parametrize(
    ("function", "summary", "result"),
    [
        (Shop().sell, "Sell it.", {"type": "null"}),
        (Shop().ask, "Ask.", {"type": "string"}),
        (Shop(), "Open it.", {"type": "integer"}),
        (Item, "What can be bought.", {"$ref": "#/components/schemas/Item"}),
        (Nothing(), None, {}),
        (functools.partial(Shop.sell, None), "Sell it.", {"type": "null"}),
        (functools.wraps(Shop.sell)(lambda *args: 1), "Sell it.", {"type": "null"}),
        (lambda: 1, None, {}),
    ],
)
def test_any_callable_is_described_where_its_hints_were_written(function, summary, result):
    method = described(function)
    assert (method.get("summary"), method["result"]["schema"]) == (summary, result)


def test_a_method_without_a_docstring_has_that_of_the_method_that_it_overrides():
    class Corner(Shop):
        def sell(self) -> None: ...

    assert described(Corner().sell)["summary"] == "Sell it."


def test_no_part_of_a_document_names_where_the_code_is():
    text = json.dumps(document_of(buy, Shop().sell, lambda: 1))
    assert inspect.getfile(buy) not in text
    assert __name__ not in text

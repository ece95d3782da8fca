"""Rules by which params become arguments: Python's own for names and positions, msgspec's for values."""

from __future__ import annotations

import functools
import gc
import inspect
import json
import sys
import types
import uuid
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_hotreload.binding import Binding, InvalidParams, NotStructured

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # exists for the reader of the hint only


def bind(function: Callable[..., object], params: object, **options: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return Binding(function, **options).bind(params if isinstance(params, bytes) else json.dumps(params).encode())


def refusal(function: Callable[..., object], params: object, **options: bool) -> InvalidParams:
    with pytest.raises(InvalidParams) as caught:
        bind(function, params, **options)
    return caught.value


def plain(a, b, c=3):
    return a, b, c


def typed(a: int, b: str = "b") -> None: ...


def positional_only(a: int, b: int = 2, /, c: int = 3) -> None: ...


def keyword_only(a: int, *, b: int, c: int = 3) -> None: ...


def rest(a: int, *more: int, k: str = "k") -> None: ...


def others(a: int, **more: int) -> None: ...


def nothing() -> None: ...


class TestNamesAndPositions:
    @pytest.mark.parametrize(
        ("function", "params", "arguments", "named"),
        [
            (plain, [1, 2], (1, 2), {}),
            (plain, [1, 2, 4], (1, 2, 4), {}),
            (plain, {"b": 2, "a": 1}, (), {"a": 1, "b": 2}),
            (plain, {"b": 2, "a": 1, "c": 0}, (), {"a": 1, "b": 2, "c": 0}),
            (typed, [1], (1,), {}),
            (positional_only, [1], (1,), {}),
            (positional_only, [1, 5, 6], (1, 5, 6), {}),
            (keyword_only, {"a": 1, "b": 2}, (), {"a": 1, "b": 2}),
            (rest, [1], (1,), {}),
            (rest, [1, 2, 3], (1, 2, 3), {}),
            (rest, {"a": 1, "k": "x"}, (), {"a": 1, "k": "x"}),
            (others, [1], (1,), {}),
            (others, {"a": 1, "z": 2, "ключ": 3}, (), {"a": 1, "z": 2, "ключ": 3}),
            (nothing, [], (), {}),
            (nothing, {}, (), {}),
        ],
    )
    def test_what_python_takes_is_taken(self, function, params, arguments, named):
        assert bind(function, params) == (arguments, named)

    @pytest.mark.parametrize(
        ("function", "params", "parameter", "reason"),
        [
            (plain, [1], "b", "required, but not given"),
            (plain, [1, 2, 3, 4], None, "too many: takes at most 3 by position, got 4"),
            (plain, {"a": 1}, "b", "required, but not given"),
            (plain, {"a": 1, "b": 2, "d": 3}, "d", "unknown name; the names are: a, b, c"),
            (plain, {"A": 1, "b": 2}, "A", "unknown name; the names are: a, b, c"),
            (positional_only, {"a": 1}, "a", "can be given by position only"),
            (positional_only, {"c": 1}, "a", "required, and can be given by position only"),
            (keyword_only, [1], "b", "required, and can be given by name only"),
            (keyword_only, [1, 2], None, "too many: takes at most 1 by position, got 2"),
            (rest, [], "a", "required, but not given"),
            (rest, [1, 2, "x"], "more[1]", "Expected `int`, got `str`"),
            (rest, {"a": 1, "more": [2]}, "more", "unknown name; the names are: a, k"),
            (others, {"a": 1, "z": "x"}, "z", "Expected `int`, got `str`"),
            (nothing, [1], None, "too many: takes none by position, got 1"),
            (nothing, {"x": 1}, "x", "unknown name; the names are: none"),
            (typed, ["x"], "a", "Expected `int`, got `str`"),
        ],
    )
    def test_what_python_refuses_is_refused_by_name_and_reason(self, function, params, parameter, reason):
        error = refusal(function, params)
        assert (error.parameter, error.reason) == (parameter, reason)

    @pytest.mark.parametrize("params", [b"1", b'"a"', b"null", b"true", b"-1.5"])
    def test_params_that_are_neither_array_nor_object_are_told_apart(self, params):
        with pytest.raises(NotStructured):
            bind(plain, params)

    def test_a_default_is_neither_converted_nor_passed(self):
        sentinel = object()

        def function(a: int = sentinel, b: list[int] = ["x"]) -> object:  # type: ignore[assignment, list-item]  # noqa: B006
            return a, b

        arguments, named = bind(function, [])
        assert (arguments, named) == ((), {})
        assert bind(function, {"b": [1]}) == ((), {"b": [1]})
        assert function(*arguments, **named) == (sentinel, ["x"])

    def test_of_a_name_given_twice_the_last_value_counts(self):
        assert bind(typed, b'{"a":1,"a":2}') == ((), {"a": 2})
        assert bind(typed, b'{"a":"x","a":2}') == ((), {"a": 2})

    def test_without_validation_arity_and_names_are_still_checked(self):
        assert bind(typed, ["x", 1], validate=False) == (("x", 1), {})
        assert refusal(typed, [], validate=False).parameter == "a"
        assert refusal(typed, [1, 2, 3], validate=False).parameter is None
        assert refusal(typed, {"a": 1, "z": 2}, validate=False).parameter == "z"

    def test_long_names_and_reasons_are_not_sent_back_whole(self):
        error = refusal(plain, {"a": 1, "b": 2, "x" * 10_000: 3})
        assert error.parameter is not None
        assert len(str(error)) < 700

    @settings(deadline=None)  # other work on the machine must not decide
    @given(st.data())
    def test_one_step_and_one_by_one_agree(self, data):
        """The fast decoder is an optimisation of `_bind_each` and of nothing else."""
        function = data.draw(st.sampled_from([plain, typed, positional_only, keyword_only, rest, others, nothing]))
        values = st.one_of(st.integers(), st.text(max_size=2), st.none(), st.floats(allow_nan=False, width=16))
        names = st.sampled_from(["a", "b", "c", "k", "z", "more"])
        params = data.draw(st.lists(values, max_size=4) | st.dictionaries(names, values, max_size=4))
        binding, body = Binding(function), json.dumps(params, allow_nan=True).encode()
        if b"Infinity" in body:
            return

        def outcome(bind_one: Callable[[bytes], object]) -> object:
            try:
                return bind_one(body)
            except InvalidParams as error:
                return error.args

        assert outcome(binding.bind) == outcome(binding._bind_each)


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class Line:
    start: Point
    labels: list[str]

    def __post_init__(self) -> None:
        if self.labels == ["forbidden"]:
            raise ValueError("this label is forbidden")
        if self.labels == ["broken"]:
            raise KeyError("a fault of the type's own")


class Options(TypedDict, total=False):
    depth: int


class Colour(Enum):
    RED = "red"


def hinted(hint: Any) -> Callable[..., object]:
    def function(value):
        return value

    function.__annotations__["value"] = hint
    return function


class TestValues:
    @pytest.mark.parametrize(
        ("hint", "sent", "value"),
        [
            (int, b"5", 5),
            (float, b"5", 5.0),
            (Optional[int], b"null", None),  # noqa: UP045  # this spelling is the subject
            (int | None, b"3", 3),
            (Literal["a", 1], b"1", 1),
            (datetime, b'"2026-01-02T03:04:05Z"', datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
            (date, b'"2026-01-02"', date(2026, 1, 2)),
            (Decimal, b"1.10", Decimal("1.10")),
            (Decimal, b'"1.10"', Decimal("1.10")),
            (uuid.UUID, b'"00000000-0000-0000-0000-000000000001"', uuid.UUID(int=1)),
            (Colour, b'"red"', Colour.RED),
            (Point, b'{"x":1}', Point(1)),
            (Line, b'{"start":{"x":1},"labels":["a"]}', Line(Point(1), ["a"])),
            (Options, b'{"depth":2}', {"depth": 2}),
            (list[Point], b'[{"x":1}]', [Point(1)]),
            (dict[str, list[date]], b'{"a":["2026-01-02"]}', {"a": [date(2026, 1, 2)]}),
            (set[int], b"[1,1]", {1}),
            (tuple[int, ...], b"[1,2]", (1, 2)),
            (bytes, b'"YQ=="', b"a"),
            (Annotated[int, msgspec.Meta(ge=3)], b"3", 3),
            ("list[Point]", b'[{"x":1}]', [Point(1)]),
            ("Optional[Line]", b"null", None),
            (Any, b'[{"a":1.0}]', [{"a": 1.0}]),
            (object, b"[1]", [1]),
            (dict[str, Any], b'{"a":[null]}', {"a": [None]}),
        ],
    )
    def test_values_are_converted_by_hint(self, hint, sent, value):
        for params in (b"[" + sent + b"]", b'{"value":' + sent + b"}"):
            arguments, named = bind(hinted(hint), params)
            assert [*arguments, *named.values()] == [value]
            assert type(next(iter([*arguments, *named.values()]))) is type(value)

    @pytest.mark.parametrize(
        ("hint", "sent", "reason"),
        [
            (int, b'"5"', "Expected `int`, got `str`"),
            (int, b"true", "Expected `int`, got `bool`"),
            (int, b"5.0", "Expected `int`, got `float`"),
            (int, b"1e20", "Expected `int`, got `float`"),
            (int, b"null", "Expected `int`, got `null`"),
            (bool, b"1", "Expected `bool`, got `int`"),
            (str, b"1", "Expected `str`, got `int`"),
            (list[Point], b'[{"x":1},{"x":"1"}]', "Expected `int`, got `str` - at `$[1].x`"),
            (Line, b'{"start":{"x":1}}', "Object missing required field `labels`"),
            (Line, b'{"start":{"x":1},"labels":["forbidden"]}', "this label is forbidden"),
            (dict[str, Any], b"[]", "Expected `object`, got `array`"),
            (list[object], b"{}", "Expected `array`, got `object`"),
            (Annotated[int, msgspec.Meta(ge=3)], b"2", "Expected `int` >= 3"),
        ],
    )
    def test_a_bad_value_is_refused_with_parameter_reason_and_path(self, hint, sent, reason):
        for params in (b"[" + sent + b"]", b'{"value":' + sent + b"}"):
            error = refusal(hinted(hint), params)
            assert (error.parameter, error.reason) == ("value", reason)

    @pytest.mark.parametrize("hint", [Any, int, float, int | float, Decimal, list[int]])
    @pytest.mark.parametrize("sent", [b"NaN", b"Infinity", b"-Infinity", b"nan"])
    def test_nan_and_infinity_are_no_json(self, hint, sent):
        refusal(hinted(hint), b"[" + sent + b"]")

    @pytest.mark.parametrize("hint", [Any, float, int | float, None])
    def test_a_number_too_large_for_a_float_is_refused(self, hint):
        assert refusal(hinted(hint), b"[1e400]").parameter == "value"
        assert refusal(hinted(hint), b"[-1e400]").parameter == "value"

    @pytest.mark.parametrize("hint", [Decimal, Decimal | None, list[Decimal], "dict[str, Money]"])
    @pytest.mark.parametrize("sent", [b'"NaN"', b'"-Infinity"', b'"sNaN"'])
    def test_a_decimal_is_finite_too(self, hint, sent):
        value = {"list[Decimal]": b"[%s]", "dict[str, Money]": b'{"a":{"amount":%s}}'}.get(
            str(hint).replace("decimal.", ""), b"%s"
        )
        error = refusal(hinted(hint), b"[" + value % sent + b"]")
        assert error.reason == "NaN and infinities are not accepted"

    @pytest.mark.parametrize("hint", [Any, int, list[int]])
    @pytest.mark.parametrize("digits", [1, 18, 19, 20, 100, 4000])
    def test_an_integer_arrives_exactly(self, hint, digits):
        number = b"9" * digits
        body = b"[[%s]]" % number if hint == list[int] else b"[%s]" % number
        (value,) = bind(hinted(hint), body)[0]
        assert value in (int(number), [int(number)])

    @pytest.mark.parametrize("hint", [Any, int, float, list[int]])
    def test_an_integer_that_python_will_not_read_is_refused(self, hint):
        number = b"9" * 5000
        error = refusal(hinted(hint), b"[[%s]]" % number if hint == list[int] else b"[%s]" % number)
        assert error.parameter == "value"
        assert "out of range" in error.reason

    def test_what_a_types_own_code_raises_is_not_taken_for_a_bad_value(self):
        with pytest.raises(KeyError, match="fault of the type"):
            bind(hinted(Line), b'[{"start":{"x":1},"labels":["broken"]}]')

    def test_nesting_beyond_all_bounds_is_refused(self):
        refusal(hinted(Any), b"[" * 100_000 + b"]" * 100_000)


@dataclass
class Money:
    amount: Decimal


class Unknown:
    pass


class TestHints:
    @pytest.mark.parametrize(
        "hint", [Unknown, list[Unknown], Unknown | int, Iterable[int], Callable[[], int], type, "Unknown | None"]
    )
    def test_a_class_that_json_cannot_express_means_any_value(self, hint):
        binding = Binding(hinted(hint))
        assert not binding.parameters[0].checked
        assert binding.bind(b'[{"a":1}]') == (({"a": 1},), {})

    @pytest.mark.parametrize(
        "hint", [Point | Line | Money, "str | datetime", "Missing", "list[Missing]", "1 +", "nope()"]
    )
    def test_a_hint_that_cannot_be_used_is_an_error_that_names_it(self, hint):
        with pytest.raises(TypeError, match=r"parameter 'value' of .*function cannot be used: .*validate=False"):
            Binding(hinted(hint))
        assert bind(hinted(hint), [1], validate=False) == ((1,), {})

    def test_an_unresolvable_hint_of_the_result_is_nobodys_business(self):
        def function(a: int) -> Missing: ...

        assert bind(function, [1]) == ((1,), {})

    def test_hints_of_a_closure_are_resolved(self):
        class Local(msgspec.Struct):
            x: int

        def function(a: Local) -> Local:
            return Local(a.x)

        assert bind(function, [{"x": 1}]) == ((Local(1),), {})

    @pytest.mark.parametrize(
        "quoted",
        [
            "Optional['Point']",
            "'Optional[Point]'",
            pytest.param(
                "list['Point']",
                marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="typing resolves it from 3.11 on"),
            ),
        ],
    )
    def test_a_forward_reference_means_the_class_of_its_own_module(self, quoted):
        """typing keeps what Optional["Point"] once meant; a newer copy of the module has another Point."""
        source = (
            "from typing import Optional\nimport msgspec\n"
            f"class Point(msgspec.Struct):\n    x: int\ndef f(p: {quoted}): ..."
        )
        for _ in range(2):
            module = types.ModuleType("staged_points")
            sys.modules["staged_points"] = module
            try:
                exec(compile(source, "staged_points", "exec", dont_inherit=True), module.__dict__)
                (value,), _ = bind(module.f, [{"x": 1}] if "Opt" in quoted else [[{"x": 1}]])
            finally:
                del sys.modules["staged_points"]
            assert type(value if "Opt" in quoted else value[0]) is module.Point

    def test_a_binding_that_is_gone_keeps_no_class_alive(self):
        module = types.ModuleType("gone")
        source = (
            "from dataclasses import dataclass\nclass C: pass\n"
            "@dataclass\nclass D:\n    x: int\ndef f(c: C, d: list[D]): ..."
        )
        exec(compile(source, "gone", "exec", dont_inherit=True), module.__dict__)
        watched = [weakref.ref(module.C), weakref.ref(module.D)]
        binding = Binding(module.f)
        binding.bind(b'[1,[{"x":1}]]')
        del module, binding
        gc.collect()
        assert [each() for each in watched] == [None, None]

    def test_parameters_tell_name_kind_hint_and_default(self):
        told = [(p.name, p.kind.name, p.hint, p.required, p.default, p.checked) for p in Binding(rest).parameters]
        empty = inspect.Parameter.empty
        assert told == [
            ("a", "POSITIONAL_OR_KEYWORD", int, True, empty, True),
            ("more", "VAR_POSITIONAL", int, False, empty, True),
            ("k", "KEYWORD_ONLY", str, False, "k", True),
        ]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Service:
    def method(self, a: int) -> int:
        return a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a

    @staticmethod
    def static(a: int) -> int:
        return a

    @decorated
    def wrapped(self, a: int) -> int:
        return a

    def __call__(self, a: int) -> int:
        return a


class TestCallables:
    @pytest.mark.parametrize(
        "function",
        [
            Service().method,
            Service.of_class,
            Service.static,
            Service().wrapped,
            Service(),
            decorated(decorated(typed)),
            functools.partial(typed, b="x"),
            functools.partial(functools.partial(Service().method)),
            functools.lru_cache(typed),
            Point,
            Money,
        ],
    )
    def test_signature_and_hints_are_those_of_what_is_called_in_the_end(self, function):
        first = Binding(function).parameters[0]
        assert first.hint in (int, Decimal)
        assert refusal(function, [[]]).parameter == first.name

    def test_an_argument_given_by_partial_is_not_asked_for(self):
        assert refusal(functools.partial(plain, 1), [1, 2, 3]).parameter is None
        assert bind(functools.partial(plain, 1), [2]) == ((2,), {})

    def test_a_builtin_with_a_signature_keeps_to_it(self):
        assert refusal(len, [1, 2]).parameter is None
        assert bind(len, [[1]]) == (([1],), {})

    def test_a_builtin_without_a_signature_takes_anything(self):
        assert bind(max, [1, 2, 3]) == ((1, 2, 3), {})
        assert bind(max, {"default": 1}) == ((), {"default": 1})

    def test_names_that_mean_something_to_msgspec_are_ordinary_names(self):
        def function(self, mro, __slots__=1, _private=2, __post_init__=3): ...

        sent = {"self": 1, "_private": 3, "mro": 4, "__slots__": 6}
        assert bind(function, sent) == ((), sent)
        assert bind(function, [1, 2]) == ((1, 2), {})

    def test_what_is_not_callable_is_an_error(self):
        with pytest.raises(TypeError, match="not callable"):
            Binding(3)  # type: ignore[arg-type]  # the point of the test

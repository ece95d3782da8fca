"""What methods return and raise: always one valid answer, and each fault is told to the service once."""

from __future__ import annotations

import collections
import decimal
import enum
import json
import sys
import uuid
from dataclasses import dataclass
from datetime import date, timedelta

import msgspec
import pytest

from flask_hotreload.binding import InvalidParams
from flask_hotreload.errors import JSONRPCError
from flask_hotreload.jsonrpc import CallFailed, Endpoint, Method


class Service:
    """An endpoint with the one method ``m``, and the exceptions that it was told of."""

    def __init__(self, function, *, debug=False, translate=None, **settings) -> None:
        self.errors: list[Exception] = []
        self.handled: list[BaseException | None] = []
        self.endpoint = Endpoint(debug=debug, on_error=self._note, translate=translate)
        self.methods = {"m": Method(function, **settings), "ok": Method(lambda: "fine")}

    def _note(self, error: Exception) -> None:
        self.errors.append(error)
        self.handled.append(sys.exc_info()[1])

    def call(self, *, params: object = (), notify: bool = False) -> dict | None:
        request = {"jsonrpc": "2.0", "method": "m", "params": params} | ({} if notify else {"id": 1})
        answer = self.endpoint.answer(json.dumps(request).encode(), self.methods)
        return None if answer is None else json.loads(answer, parse_constant=pytest.fail)


def raises(error: BaseException):
    def function():
        raise error

    return function


def returns(value: object):
    return Service(lambda: value)


INTERNAL = {"jsonrpc": "2.0", "error": {"code": -32603, "message": "Internal error"}, "id": 1}


class Text(str):
    pass


class Whole(int):
    pass


class Fraction(float):
    pass


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Row:
    x: object


class Record(msgspec.Struct):
    x: object


endless: list[object] = []
endless.append(endless)


class TestResult:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            (True, True),
            ("ascii", "ascii"),
            ("ключ 🔑 \x00 \x7f \u2028", "ключ 🔑 \x00 \x7f \u2028"),
            (2**63, 2**63),
            (-(2**63) - 1, -(2**63) - 1),
            (10**4000, 10**4000),
            (1.5, 1.5),
            (-0.0, -0.0),
            (sys.float_info.max, sys.float_info.max),
            ([None, 1.5, "null"], [None, 1.5, "null"]),
            ("NaN null Infinity", "NaN null Infinity"),
            ({"a": None, "b": [2**70, 1.5]}, {"a": None, "b": [2**70, 1.5]}),
            ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
            (collections.OrderedDict(a=1), {"a": 1}),
            (collections.namedtuple("P", "x y")(1, None), [1, None]),
            ({7}, [7]),
            (b"a", "YQ=="),
            (decimal.Decimal("1.10"), "1.10"),
            (date(2026, 1, 2), "2026-01-02"),
            (timedelta(days=1), "P1D"),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (Row([Record(None)]), {"x": [{"x": None}]}),
            (Level.HIGH, 3),
            (Text("subclass"), "subclass"),
            (Whole(3), 3),
            (Fraction(1.5), 1.5),
            ([Text("in"), Whole(1), None], ["in", 1, None]),
        ],
    )
    def test_is_written_as_json(self, value, expected):
        service = returns(value)
        assert service.call() == {"jsonrpc": "2.0", "result": expected, "id": 1}
        assert service.errors == []

    @pytest.mark.parametrize(
        "bad",
        [
            float("nan"),
            float("inf"),
            -float("inf"),
            Fraction("nan"),
            decimal.Decimal("NaN"),
            decimal.Decimal("-Infinity"),
        ],
    )
    @pytest.mark.parametrize(
        "around",
        [
            lambda bad: bad,
            lambda bad: [1, None, bad],
            lambda bad: {"a": {"b": (2**70, bad)}},
            lambda bad: Row(Record([bad])),
            lambda bad: [Text("x"), {"k": [bad]}],
        ],
        ids=["bare", "list", "beside a large integer", "objects", "beside a subclass"],
    )
    def test_nan_and_infinities_are_never_written(self, bad, around):
        service = returns(around(bad))
        assert service.call() == INTERNAL
        assert [type(error) for error in service.errors] == [ValueError]

    @pytest.mark.parametrize(
        "value",
        [
            object(),
            [{"a": object()}],
            endless,
            10**5000,
            [10**5000],
            "\ud800",
            ["\ud800"],
            {(1, 2): 3},
            {None: 1},
            complex(1),
            range(3),
            (each for each in "ab"),
            len,
            Row(object()),
            Exception("text"),
            msgspec.UNSET,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_that_json_cannot_express_is_an_internal_error(self, value):
        service = returns(value)
        assert service.call() == INTERNAL
        assert len(service.errors) == 1
        assert service.handled == service.errors

    def test_that_cannot_be_expressed_leaves_the_others_of_its_batch_alone(self):
        service = returns([object()])
        requests = [{"jsonrpc": "2.0", "method": name, "id": i} for i, name in enumerate(["ok", "m", "ok"])]
        answers = json.loads(service.endpoint.answer(json.dumps(requests).encode(), service.methods))
        assert [each.get("result", each.get("error")) for each in answers] == ["fine", INTERNAL["error"], "fine"]

    def test_is_what_it_was_when_the_call_ended(self):
        """A later call of the batch changes the same list."""
        items: list[int] = []

        def append():
            items.append(len(items))
            return items

        service = Service(append)
        request = {"jsonrpc": "2.0", "method": "m"}
        batch = [request | {"id": i} for i in range(3)]
        answers = json.loads(service.endpoint.answer(json.dumps(batch).encode(), service.methods))
        assert [each["result"] for each in answers] == [[0], [0, 1], [0, 1, 2]]

    def test_of_a_notification_may_be_anything(self):
        service = returns(object())
        assert service.call(notify=True) is None
        assert service.errors == []


class TestException:
    @pytest.mark.parametrize(
        "error",
        [
            TypeError("f() missing 1 required positional argument: 'data'"),
            ValueError("x"),
            RecursionError(),
            MemoryError(),
            StopIteration(1),
            msgspec.ValidationError("Expected `int`, got `str`"),
            InvalidParams("data", "raised by the method"),
            CallFailed(403, -32001),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            AssertionError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_raised_by_a_method_is_an_internal_error_told_once(self, error):
        service = Service(raises(error))
        assert service.call() == INTERNAL
        assert service.errors == [error]
        assert service.handled == [error]

    def test_raised_by_a_notification_is_told_and_not_answered(self):
        error = ValueError()
        service = Service(raises(error))
        assert service.call(notify=True) is None
        assert service.errors == [error]

    def test_endless_recursion_is_an_internal_error(self):
        def function():
            return function()

        service = Service(function)
        assert service.call() == INTERNAL
        assert [type(error) for error in service.errors] == [RecursionError]

    @pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
    def test_that_ends_more_than_the_call_passes_through(self, error):
        service = Service(raises(error))
        with pytest.raises(type(error)):
            service.call()
        assert service.errors == []

    def test_is_described_in_debug_mode_only(self):
        debug = False
        service = Service(raises(ValueError("secret \ud800")), debug=lambda: debug)
        assert service.call() == INTERNAL
        debug = True
        assert service.call()["error"]["data"] == {"type": "ValueError", "message": "secret \\ud800"}

    def test_whose_text_cannot_be_had_is_described_by_its_type(self):
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        data = Service(raises(Mute()), debug=True).call()["error"]["data"]
        assert data == {"type": Mute.__qualname__, "message": "(its text cannot be had)"}

    def test_of_a_types_own_code_is_an_internal_error(self):
        service = Service(takes_picky)
        assert service.call(params=[{"x": 1}]) == INTERNAL
        assert [type(error) for error in service.errors] == [KeyError]


@dataclass
class Picky:
    x: int

    def __post_init__(self) -> None:
        raise KeyError(self.x)


def takes_picky(p: Picky) -> None: ...


class TestChosenError:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [(0, 0), (False, False), ("", ""), ([], []), ({"a": [1.5]}, {"a": [1.5]}), (Row(1), {"x": 1})],
    )
    def test_carries_its_data(self, data, expected):
        service = Service(raises(JSONRPCError(-5, "текст", data)))
        assert service.call()["error"] == {"code": -5, "message": "текст", "data": expected}
        assert service.errors == []

    def test_without_data_has_no_such_member(self):
        assert Service(raises(JSONRPCError(1, "m"))).call()["error"] == {"code": 1, "message": "m"}

    @pytest.mark.parametrize(
        "error",
        [
            JSONRPCError(1, "m", object()),
            JSONRPCError(1, "m", [float("nan")]),
            JSONRPCError(1, "\ud800"),
            JSONRPCError(1.5, "m"),  # type: ignore[arg-type]  # the point of the test
            JSONRPCError(True, "m"),
            JSONRPCError(1, None),  # type: ignore[arg-type]  # the point of the test
            JSONRPCError(10**5000, "m"),
        ],
    )
    def test_that_json_rpc_cannot_express_is_an_internal_error(self, error):
        service = Service(raises(error))
        assert service.call() == INTERNAL
        assert len(service.errors) == 1
        assert service.handled == service.errors

    def test_may_use_the_specifications_codes_and_is_no_answer_to_a_notification(self):
        for code in (-32700, -32600, -32601, -32602, -32603):
            service = Service(raises(JSONRPCError(code, "m")))
            assert service.call()["error"]["code"] == code
            assert service.call(notify=True) is None

    def test_may_be_translated_from_another_exception(self):
        def translate(error: Exception) -> JSONRPCError | None:
            return JSONRPCError(-32000, "gone", {"status": 410}) if isinstance(error, LookupError) else None

        service = Service(raises(KeyError()), translate=translate)
        assert service.call()["error"] == {"code": -32000, "message": "gone", "data": {"status": 410}}
        assert service.errors == []
        service = Service(raises(ValueError()), translate=translate)
        assert service.call() == INTERNAL
        assert len(service.errors) == 1


class TestAuthorize:
    @pytest.mark.parametrize("no", [False, None, 0, ""])
    def test_a_false_answer_forbids_the_call(self, no):
        called = []
        service = Service(called.append, authorize=lambda: no)
        assert service.call(params=[1])["error"] == {"code": -32001, "message": "Forbidden"}
        assert service.call(params=[1], notify=True) is None
        assert called == []

    def test_it_is_asked_before_the_params_are_looked_at(self):
        service = Service(lambda a: a, authorize=lambda: False)
        assert service.call(params={"z": 1})["error"]["code"] == -32001

    def test_a_true_answer_lets_the_call_through(self):
        assert Service(lambda a: a, authorize=lambda: "user").call(params=[1])["result"] == 1

    def test_what_it_raises_is_treated_like_the_methods_own(self):
        service = Service(len, authorize=raises(JSONRPCError(-5, "log in")))
        assert service.call()["error"] == {"code": -5, "message": "log in"}
        service = Service(len, authorize=raises(InvalidParams(None, "x")))
        assert service.call() == INTERNAL
        service = Service(len, authorize=raises(ValueError()))
        assert service.call() == INTERNAL
        assert len(service.errors) == 1


class TestMethod:
    def test_what_is_called_may_wrap_what_is_bound(self):
        log = []

        def function(a: int) -> int:
            return a

        def wrapper(*args, **kwargs):
            log.append((args, kwargs))
            return function(*args, **kwargs)

        service = Service(function, call=wrapper)
        assert service.call(params=[1])["result"] == 1
        assert service.call(params={"a": 2})["result"] == 2
        assert service.call(params=["x"])["error"]["code"] == -32602
        assert log == [((1,), {}), ((), {"a": 2})]

    def test_is_named_like_its_function_unless_told(self):
        assert Method(len).name == "len"
        assert Method(len, name="size").name == "size"
        assert Method(TestMethod().__class__).name == "TestMethod"
        assert repr(Method(len)) == "<Method 'len'>"

    def test_an_empty_callable_is_called_all_the_same(self):
        class Empty(list):
            def __call__(self) -> str:
                return "called"

        assert Service(len, call=Empty()).call(params=[[]])["error"]["code"] == -32603
        assert Service(Empty()).call()["result"] == "called"

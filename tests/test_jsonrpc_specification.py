"""The JSON-RPC 2.0 specification: its examples (section 7) and its rules, one by one."""

from __future__ import annotations

import json

import pytest

from flask_hotreload.errors import JSONRPCError
from flask_hotreload.jsonrpc import Endpoint, Method


def subtract(minuend, subtrahend):
    return minuend - subtrahend


def sum_(*numbers):
    return sum(numbers)


def fail():
    raise ValueError("a secret")


def choose():
    raise JSONRPCError(7, "chosen", {"why": ["because"]})


METHODS = {
    "subtract": Method(subtract),
    "sum": Method(sum_),
    "update": Method(lambda *_: None),
    "notify_hello": Method(lambda *_: None),
    "notify_sum": Method(lambda *_: None),
    "get_data": Method(lambda: ["hello", 5]),
    "fail": Method(fail),
    "choose": Method(choose),
}

PARSE = {"code": -32700, "message": "Parse error"}
INVALID = {"code": -32600, "message": "Invalid Request"}
NOT_FOUND = {"code": -32601, "message": "Method not found"}


def answer(body: str) -> object:
    text = Endpoint().answer(body.encode(), METHODS)
    return None if text is None else json.loads(text)


def error(error: dict, identity: object = None) -> dict:
    return {"jsonrpc": "2.0", "error": error, "id": identity}


def result(result: object, identity: object) -> dict:
    return {"jsonrpc": "2.0", "result": result, "id": identity}


EXAMPLES = {
    "positional parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        result(19, 1),
    ),
    "positional parameters, the other way round": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        result(-19, 2),
    ),
    "named parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        result(19, 3),
    ),
    "named parameters in another order": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        result(19, 4),
    ),
    "a notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "a notification of an unknown method": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "a call of an unknown method": ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error(NOT_FOUND, "1")),
    "invalid JSON": ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(PARSE)),
    "an invalid Request object": ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', error(INVALID)),
    "a batch of invalid JSON": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]',
        error(PARSE),
    ),
    "an empty array": ("[]", error(INVALID)),
    "an invalid batch that is not empty": ("[1]", [error(INVALID)]),
    "an invalid batch": ("[1,2,3]", [error(INVALID)] * 3),
    "a batch": (
        """[
            {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
            {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
            {"foo": "boo"},
            {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
            {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        [
            result(7, "1"),
            result(19, "2"),
            error(INVALID),
            error(NOT_FOUND, "5"),
            result(["hello", 5], "9"),
        ],
    ),
    "a batch of notifications": (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
}


@pytest.mark.parametrize(("sent", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_example_of_the_specification(sent, expected):
    assert answer(sent) == expected


class TestRequestObject:
    """Section 4."""

    @pytest.mark.parametrize("version", ['"1.0"', '"2"', '"2.0 "', "2.0", "2", "null", '["2.0"]'])
    def test_jsonrpc_must_be_exactly_2_0(self, version):
        assert answer(f'{{"jsonrpc": {version}, "method": "get_data", "id": 1}}') == error(INVALID, 1)

    def test_jsonrpc_must_be_there(self):
        assert answer('{"method": "get_data", "id": 1}') == error(INVALID, 1)

    def test_jsonrpc_may_be_written_with_escapes(self):
        sent = '{"jsonrpc": "2\\u002e0", "method": "get_\\u0064ata", "id": 1}'
        assert answer(sent) == result(["hello", 5], 1)

    @pytest.mark.parametrize("method", ["1", "null", "true", '["get_data"]', '{"a": 1}'])
    def test_method_must_be_a_string(self, method):
        assert answer(f'{{"jsonrpc": "2.0", "method": {method}, "id": 1}}') == error(INVALID, 1)

    def test_method_must_be_there(self):
        assert answer('{"jsonrpc": "2.0", "id": 1}') == error(INVALID, 1)

    @pytest.mark.parametrize("method", ["rpc.", "rpc.discover", "rpc.get_data"])
    def test_names_of_the_specification_are_not_found_unless_it_defines_them(self, method):
        assert answer(f'{{"jsonrpc": "2.0", "method": "{method}", "id": 1}}') == error(NOT_FOUND, 1)

    @pytest.mark.parametrize("params", ['"bar"', "1", "null", "true", "1.5"])
    @pytest.mark.parametrize("method", ["get_data", "no such method"])
    def test_params_must_be_structured(self, params, method):
        invalid = {**INVALID, "data": "params must be an array or an object"}
        assert answer(f'{{"jsonrpc": "2.0", "method": "{method}", "params": {params}, "id": 1}}') == error(invalid, 1)
        # What is no Request object cannot be a notification either.
        assert answer(f'{{"jsonrpc": "2.0", "method": "{method}", "params": {params}}}') == error(invalid)

    @pytest.mark.parametrize("params", ['"params": [], ', '"params": {}, ', ""])
    def test_params_may_be_empty_or_left_out(self, params):
        assert answer(f'{{"jsonrpc": "2.0", {params}"method": "get_data", "id": 1}}') == result(["hello", 5], 1)

    def test_further_members_are_ignored(self):
        sent = '{"jsonrpc": "2.0", "x": [1e999, {"y": null}], "method": "get_data", "id": 1, "result": 5}'
        assert answer(sent) == result(["hello", 5], 1)

    def test_names_of_parameters_are_case_sensitive(self):
        sent = '{"jsonrpc": "2.0", "method": "subtract", "params": {"Minuend": 1, "subtrahend": 2}, "id": 1}'
        assert answer(sent)["error"]["data"]["parameter"] == "Minuend"


class TestNotification:
    """Section 4.1: it is never answered, not even with an error."""

    @pytest.mark.parametrize(
        "call",
        [
            '"method": "get_data"',
            '"method": "no such method"',
            '"method": "subtract", "params": [1]',
            '"method": "subtract", "params": {"a": 1}',
            '"method": "fail"',
            '"method": "choose"',
        ],
    )
    def test_no_answer(self, call):
        assert answer(f'{{"jsonrpc": "2.0", {call}}}') is None
        assert answer(f'[{{"jsonrpc": "2.0", {call}}}]') is None

    def test_id_null_is_no_notification(self):
        assert answer('{"jsonrpc": "2.0", "method": "get_data", "id": null}') == result(["hello", 5], None)


class TestResponseObject:
    """Section 5."""

    def test_result_is_there_even_if_null(self):
        assert answer('{"jsonrpc": "2.0", "method": "update", "id": 1}') == result(None, 1)

    def test_what_a_method_raises_is_an_internal_error_without_its_text(self):
        sent = '{"jsonrpc": "2.0", "method": "fail", "id": 1}'
        assert answer(sent) == error({"code": -32603, "message": "Internal error"}, 1)

    def test_a_method_may_choose_its_error(self):
        sent = '{"jsonrpc": "2.0", "method": "choose", "id": 1}'
        assert answer(sent) == error({"code": 7, "message": "chosen", "data": {"why": ["because"]}}, 1)

    def test_invalid_params_name_the_parameter_and_the_reason(self):
        sent = '{"jsonrpc": "2.0", "method": "subtract", "params": [1], "id": 1}'
        data = {"parameter": "subtrahend", "reason": "required, but not given"}
        assert answer(sent) == error({"code": -32602, "message": "Invalid params", "data": data}, 1)


class TestBatch:
    """Section 6."""

    def test_one_call_in_a_batch_is_answered_with_an_array(self):
        assert answer('[{"jsonrpc": "2.0", "method": "get_data", "id": 1}]') == [result(["hello", 5], 1)]

    def test_ids_that_are_used_twice_are_answered_twice(self):
        sent = '{"jsonrpc": "2.0", "method": "sum", "params": [%d], "id": "same"}'
        assert answer(f"[{sent % 1}, {sent % 2}]") == [result(1, "same"), result(2, "same")]

    def test_a_batch_in_a_batch_is_one_invalid_request(self):
        sent = '[[{"jsonrpc": "2.0", "method": "get_data", "id": 1}], {"jsonrpc": "2.0", "method": "sum", "id": 2}]'
        assert answer(sent) == [error(INVALID), result(0, 2)]

    @pytest.mark.parametrize(
        ("item", "expected"),
        [
            ("1", error(INVALID)),
            ("null", error(INVALID)),
            ("[]", error(INVALID)),
            ("{}", error(INVALID)),
            ('"text"', error(INVALID)),
            ('{"jsonrpc": "2.0", "method": 5, "id": 9}', error(INVALID, 9)),
            (
                '{"jsonrpc": "2.0", "method": "fail", "id": 9}',
                error({"code": -32603, "message": "Internal error"}, 9),
            ),
            ('{"jsonrpc": "2.0", "method": "nope", "id": 9}', error(NOT_FOUND, 9)),
        ],
    )
    def test_a_bad_item_leaves_the_others_alone(self, item, expected):
        good = '{"jsonrpc": "2.0", "method": "sum", "params": [%d], "id": %d}'
        assert answer(f"[{good % (5, 1)}, {item}, {good % (6, 2)}]") == [result(5, 1), expected, result(6, 2)]

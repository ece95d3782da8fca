"""One method called by itself: the body is its params, the answer its bare result."""

from __future__ import annotations

import json

import pytest

from flask_hotreload.errors import JSONRPCError
from flask_hotreload.jsonrpc import CallFailed, Endpoint, Method


def echo(data: str = "Hello world") -> str:
    return data


def call(body: bytes, function=echo, **options) -> object:
    settings = {"authorize": options.pop("authorize")} if "authorize" in options else {}
    return json.loads(Endpoint(**options).call(body, Method(function, **settings)))


def failure(body: bytes, function=echo, **options) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        call(body, function, **options)
    return caught.value


@pytest.mark.parametrize("body", [b'["x"]', b'{"data":"x"}', b' { "data" : "x" } \n'])
def test_params_are_an_array_or_an_object(body):
    assert call(body) == "x"


@pytest.mark.parametrize("body", [b"", b" \r\n", b"[]", b"{}"])
def test_an_empty_body_means_no_params(body):
    assert call(body) == "Hello world"


@pytest.mark.parametrize("value", [None, True, 5, "текст", [1, None], {"a": 1.5}])
def test_the_answer_is_the_bare_result(value):
    assert call(b"", lambda: value) == value


@pytest.mark.parametrize(
    "body",
    [
        b"nope",
        b"[",
        b'["x"] trailing',
        b"[5, nope]",
        b'["\xff"]',
        b"[NaN]",
        rb'["\ud800"]',
        b"\xef\xbb\xbf[]",
        b"[" * 100_000,
        b'{"z":1, nope}',
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_not_json_is_400(body):
    failed = failure(body)
    assert (failed.status, failed.code, failed.message) == (400, -32700, "Parse error")


@pytest.mark.parametrize(
    ("body", "parameter"),
    [(b"[5]", "data"), (b'{"data":null}', "data"), (b'{"z":1}', "z"), (b'["a","b"]', None)],
)
def test_bad_parameters_are_422_and_named(body, parameter):
    failed = failure(body)
    assert (failed.status, failed.code) == (422, -32602)
    assert failed.data["parameter"] == parameter
    assert failed.data["reason"]


@pytest.mark.parametrize("body", [b"5", b'"x"', b"null", b"true"])
def test_json_that_is_no_params_is_422(body):
    failed = failure(body)
    assert (failed.status, failed.data) == (422, "params must be an array or an object")


def test_forbidden_is_403():
    failed = failure(b"[5]", authorize=lambda: False)
    assert (failed.status, failed.code, failed.message) == (403, -32001, "Forbidden")


def test_a_chosen_error_is_400_with_its_code_and_data():
    error = JSONRPCError(7, "chosen", [1])

    def function():
        raise error

    failed = failure(b"", function)
    assert (failed.status, failed.code, failed.message, failed.data) == (400, 7, "chosen", [1])
    assert failed.original is error
    assert json.loads(bytes(failed.error)) == {"code": 7, "message": "chosen", "data": [1]}


@pytest.mark.parametrize("code", [-32602, -32700, -32600])
def test_a_chosen_error_is_not_mistaken_for_ours(code):
    def function(*args):
        raise JSONRPCError(code, "chosen")

    assert failure(b"", function).message == "chosen"


def test_a_translated_exception_is_told_with_its_original():
    error = LookupError()

    def function():
        raise error

    failed = failure(b"", function, translate=lambda _: JSONRPCError(-32000, "Not Found", {"status": 404}))
    assert (failed.code, failed.data, failed.original) == (-32000, {"status": 404}, error)


@pytest.mark.parametrize("function", [lambda: 1 / 0, object, lambda: float("nan")])
def test_the_rest_is_500_told_once_and_without_text(function):
    errors: list[Exception] = []
    failed = failure(b"", function, on_error=errors.append)
    assert (failed.status, failed.code, failed.data) == (500, -32603, None)
    assert errors == [failed.original]


def test_text_of_the_exception_is_given_in_debug_mode():
    failed = failure(b"", lambda: 1 / 0, debug=True)
    assert failed.data == {"type": "ZeroDivisionError", "message": "division by zero"}

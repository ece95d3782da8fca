"""Odd bodies and odd ids: each gets its JSON-RPC error, none an exception."""

from __future__ import annotations

import json

import pytest

from flask_hotreload.jsonrpc import Endpoint, Method

calls: list[object] = []


def echo(data):
    calls.append(data)
    return data


METHODS = {"echo": Method(echo)}


@pytest.fixture(autouse=True)
def _no_calls_yet():
    calls.clear()


def answer(body: bytes, **options: int) -> object:
    text = Endpoint(**options).answer(body, METHODS)
    return None if text is None else json.loads(text)


def call(identity: bytes, data: bytes = b'"x"') -> bytes:
    return b'{"jsonrpc":"2.0","method":"echo","params":[%s],"id":%s}' % (data, identity)


def code(body: bytes, **options: int) -> int:
    response = answer(body, **options)
    assert isinstance(response, dict)
    assert response["id"] is None
    return response["error"]["code"]


class TestId:
    @pytest.mark.parametrize(
        "identity",
        [
            b"1",
            b"0",
            b"-1",
            b'""',
            b'"text"',
            '"ключ 🔑"'.encode(),
            b"null",
            b"1.5",
            b"1.0",
            b"1.10",
            b"1E5",
            b"1e-400",
            b"18446744073709551616",
            b"9" * 400,
            b"9" * 5000,
            b"0.1000000000000000000000000000000001",
            b'"' + b"x" * 10_000 + b'"',
        ],
        ids=lambda identity: identity[:20].decode(),
    )
    def test_is_answered_as_it_was_sent(self, identity):
        expected = b'{"jsonrpc":"2.0","result":"x","id":%s}' % identity
        assert Endpoint().answer(call(identity), METHODS) == expected
        assert Endpoint().answer(b"[%s,%s]" % (call(identity), call(b"7")), METHODS) == (
            b'[%s,{"jsonrpc":"2.0","result":"x","id":7}]' % expected
        )

    @pytest.mark.parametrize("identity", [b"true", b"false", b"[]", b"[1]", b"{}", b'{"a":1}', b"1e400", b"-1e999"])
    def test_of_another_kind_is_refused_and_answered_with_null(self, identity):
        assert code(call(identity)) == -32600
        assert calls == []

    def test_given_twice_counts_as_given_last(self):
        body = b'{"id":true,"jsonrpc":"2.0","method":"echo","params":["x"],"id":2}'
        assert answer(body) == {"jsonrpc": "2.0", "result": "x", "id": 2}

    def test_escapes_are_kept_in_meaning(self):
        assert answer(call(rb'"\u00e9\n\ud83d\udd11"'))["id"] == "é\n🔑"


NO_JSON = {
    "empty": b"",
    "blank": b" \r\n\t",
    "opening brackets": b"[" * 100_000,
    "opening braces": b'{"a":' * 100_000,
    "invalid UTF-8 in a string": call(b"1", b'"\xff"'),
    "invalid UTF-8 in a member that nobody reads": b'{"x":"\xff","jsonrpc":"2.0","method":"echo","id":1}',
    "invalid UTF-8 in an id": call(b'"\xc3("'),
    "overlong UTF-8": call(b"1", b'"\xc0\xaf"'),
    "raw lone surrogate": call(b"1", b'"\xed\xa0\x80"'),
    "escaped lone surrogate": call(b"1", rb'"\ud800"'),
    "escaped lone low surrogate": call(b"1", rb'"\udc00 "'),
    "escaped lone surrogate in an id": call(rb'"\ud800x"'),
    "BOM": b"\xef\xbb\xbf" + call(b"1"),
    "UTF-16": call(b"1").decode().encode("utf-16"),
    "NaN": call(b"1", b"NaN"),
    "Infinity": call(b"1", b"-Infinity"),
    "NaN as id": call(b"NaN"),
    "leading zero": call(b"01"),
    "plus sign": call(b"+1"),
    "bare fraction": call(b".5"),
    "trailing comma": b"[" + call(b"1") + b",]",
    "single quotes": call(b"1").replace(b'"', b"'"),
    "raw control character": call(b"1", b'"\n"'),
    "NUL at the end": call(b"1") + b"\0",
    "two texts": call(b"1") + call(b"2"),
    "a comment": call(b"1") + b"// comment",
    "malformed after a fault that is found first": b'[{"jsonrpc":"1.0"}, nope]',
    "malformed after what is no request": b"5 nope",
}


class TestBody:
    @pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON.keys())
    def test_that_is_not_json_is_a_parse_error(self, body):
        assert code(body) == -32700
        assert calls == []

    @pytest.mark.parametrize("body", [b"1", b'"x"', b"null", b"true", b"{}", b"[]", b'{"a":[]}', b" [ ] "])
    def test_that_is_no_request_is_an_invalid_request(self, body):
        assert code(body) == -32600

    def test_with_arrays_nested_too_deeply_is_refused(self):
        body = b"[" * 5000 + b"]" * 5000
        response = answer(body)
        # How deep is too deep depends on the interpreter: a parse error, or one item that is no request.
        refusals = response if isinstance(response, list) else [response]
        assert [each["error"]["code"] for each in refusals] in ([-32700], [-32600])
        assert answer(call(b"1", body)) is not None

    def test_may_have_white_space_around(self):
        assert answer(b" \r\n\t" + call(b"1") + b"\n") == {"jsonrpc": "2.0", "result": "x", "id": 1}
        assert answer(b"\n[" + call(b"1.5") + b"]\n") == [{"jsonrpc": "2.0", "result": "x", "id": 1.5}]

    @pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5000], ids=["1e400", "-1e400", "5,000 digits"])
    def test_with_a_number_that_cannot_be_exact_is_invalid_params(self, number):
        response = answer(call(b"1", number))
        assert response["error"]["code"] == -32602
        assert response["error"]["data"]["parameter"] == "data"
        assert calls == []

    def test_with_a_large_integer_is_answered_exactly(self):
        assert answer(call(b"1", b"9" * 4000))["result"] == 10**4000 - 1


class TestBatchLimit:
    def test_a_batch_of_the_limit_is_answered(self):
        answers = answer(b"[" + b",".join([call(b"1")] * 3) + b"]", max_batch=3)
        assert [each["result"] for each in answers] == ["x"] * 3

    @pytest.mark.parametrize(
        "item", [call(b"1"), call(b"1.5"), b'{"jsonrpc":"2.0","method":"echo","params":[1]}', b"1"]
    )
    def test_a_larger_batch_is_refused_as_a_whole(self, item):
        assert code(b"[" + b",".join([item] * 4) + b"]", max_batch=3) == -32600
        assert calls == []

"""Any body whatever: no exception, and an answer that an independent reader finds to be JSON-RPC 2.0."""

from __future__ import annotations

import json
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_hotreload.errors import JSONRPCError
from flask_hotreload.jsonrpc import CallFailed, Endpoint, Method


def typed(a: int, b: list[str] | None = None, *, c: float = 1.5) -> object:
    return [a, b, c]


def anything(*args, **kwargs):
    return [args, kwargs]


def refuse(code=1, message="refused", data=None):
    raise JSONRPCError(code, message, data)


def fail(*args):
    raise ValueError(args)


unhurried = settings(deadline=None)  # other work on the machine must not decide

METHODS = {f.__name__: Method(f) for f in (typed, anything, refuse, fail)}


def _strict(text: bytes) -> object:
    def no_constant(name: str) -> object:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text.decode("utf-8"), parse_constant=no_constant, parse_int=str)


def _check_response(response: object) -> None:
    assert isinstance(response, dict)
    assert response["jsonrpc"] == "2.0"
    assert set(response) in ({"jsonrpc", "result", "id"}, {"jsonrpc", "error", "id"})
    assert response["id"] is None or type(response["id"]) in (str, float)  # integers were read as str
    if "error" in response:
        error = response["error"]
        assert {"code", "message"} <= set(error) <= {"code", "message", "data"}
        int(error["code"])
        assert isinstance(error["message"], str)


def check(body: bytes) -> object:
    """The answer to a body, after having found it valid."""
    text = Endpoint(max_batch=20, debug=True).answer(body, METHODS)
    if text is None:
        return None
    answer = _strict(text)
    if isinstance(answer, list):
        assert answer
        for response in answer:
            _check_response(response)
    else:
        _check_response(answer)
    return answer


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.sampled_from("abc"), inner, max_size=4)
    ),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | values,
        "method": st.sampled_from([*METHODS, "nope", "rpc.x"]) | values,
        "params": st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "code", "z"]), values)
        | values,
        "id": st.integers() | st.text(max_size=4) | st.none() | values,
        "extra": values,
    },
)
proper = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "method": st.sampled_from([*METHODS, "nope"]),
        "params": st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), values),
    },
    optional={"id": st.integers() | st.text(max_size=4) | st.none()},
)


@unhurried
@given(st.binary(max_size=60))
@example(b"[" * 100_000)
@example(b"\xef\xbb\xbf{}")
def test_arbitrary_bytes_get_a_valid_answer(body):
    check(body)


@unhurried
@given(st.text('[]{}",:0123456789.eE+-truefalsn\\ud8 \n', max_size=40))
def test_json_like_text_gets_a_valid_answer(body):
    check(body.encode())


@unhurried
@given(values | requests | st.lists(requests | values, max_size=5), st.booleans())
def test_arbitrary_structures_get_a_valid_answer(message, ascii_only):
    check(json.dumps(message, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@unhurried
@given(st.lists(proper, min_size=1, max_size=3), st.data())
def test_mutated_requests_get_a_valid_answer(batch, data):
    body = bytearray(json.dumps(batch if data.draw(st.booleans()) else batch[0]).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(body)))
        length = data.draw(st.integers(0, 4))
        body[start : start + length] = data.draw(
            st.sampled_from([b"", b'"', b"[", b"}", b"\\", b"\xff", b"1e999", b"null", b"\\ud800"])
        )
    check(bytes(body))


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_finite, inner))


@settings(unhurried, max_examples=200)
@given(st.lists(proper.filter(_finite), min_size=1, max_size=8))
def test_each_call_of_a_batch_is_answered_as_if_alone_and_in_order(batch):
    alone = [check(json.dumps(request).encode()) for request in batch]
    expected = [response for response in alone if response is not None]
    assert check(json.dumps(batch).encode()) == (expected or None)
    assert [response["id"] for response in expected] == [
        str(request["id"]) if isinstance(request["id"], int) else request["id"]
        for request in batch
        if "id" in request
    ]


results = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3) | st.just(b"\xcb\x7f\xff"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
)


@settings(unhurried, max_examples=300)
@given(results)
@example([None, b"\xcb\x7f\xff"])
@example([None, -math.nan])
def test_a_result_is_refused_if_and_only_if_it_holds_nan_or_an_infinity(value):
    errors: list[Exception] = []
    try:
        _strict(Endpoint(on_error=errors.append).call(b"", Method(lambda: value)))
    except CallFailed:
        pass
    assert [type(error) for error in errors] == ([] if _finite(value) else [ValueError])


@unhurried
@given(st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_a_direct_call_gives_json_or_fails_as_documented(body):
    for method in METHODS.values():
        try:
            _strict(Endpoint().call(body, method))
        except CallFailed as failed:
            assert failed.status in (400, 422, 500)  # noqa: PT017  # any of them is right here


@unhurried
@given(st.binary(max_size=30) | st.text('[]{}",:0123456789.eE+-truefalsn\\ \n', max_size=30).map(str.encode))
def test_what_is_json_is_decided_as_the_standard_library_does(body):
    def refuse_constant(_: str) -> object:
        raise ValueError

    try:
        text = body.decode("utf-8")
        json.loads(text, parse_constant=refuse_constant)
        is_json = True
    except ValueError:
        is_json = False
    answer = check(body)
    refused = isinstance(answer, dict) and answer.get("error", {}).get("code") == "-32700"
    if not is_json:
        assert refused
    elif "\\u" not in text:  # a lone surrogate's escape is JSON to the standard library
        assert not refused

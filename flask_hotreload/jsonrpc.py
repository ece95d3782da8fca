"""JSON-RPC 2.0 from bytes to bytes: single calls, batches, notifications, and calls of one method by itself.

The answer to any body whatever is valid JSON-RPC 2.0, or nothing when there is nothing to answer:

* -32700 for a body that is not JSON in UTF-8 (a BOM, a lone surrogate, ``NaN``, too many brackets), also where
  only one item of a batch is spoilt;
* -32600 for what is not a request; one such item in a batch leaves the others alone;
* -32601 for an unknown method; -32602 for params that do not fit, with ``data: {"parameter", "reason"}``;
* -32603 for whatever else a method raises, and for a result that JSON cannot express (NaN and infinities are
  never written, and never turned into null);
* -32001 "Forbidden" when the method's ``authorize`` is false.

An ``id`` is a string, a number or null and is answered as it was sent, to the last digit. Of a member that is
given twice, the last one counts. What is not an ``Exception`` (``SystemExit``, gevent's kill) passes through.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final

from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType, ValidationError, msgpack
from msgspec.json import Decoder, Encoder

from flask_hotreload.binding import Binding, InvalidParams, NotStructured
from flask_hotreload.errors import JSONRPCError
from flask_hotreload.finite import is_finite

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
FORBIDDEN: Final = -32001

_MESSAGES = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    FORBIDDEN: "Forbidden",
}

_NOT_STRUCTURED = str(NotStructured())
_MALFORMED = (DecodeError, UnicodeDecodeError, RecursionError)


class Method:
    """What a client can call.

    ``function``
        Its signature and type hints say how params become arguments.
    ``call``
        What is really invoked with them, if it is not ``function`` itself: a wrapper of it.
    ``validate``
        Whether parameters are converted and checked by type hints.
    ``authorize``
        Called without arguments before the params are looked at; a false answer forbids the call.
    """

    __slots__ = ("authorize", "binding", "call", "name")

    def __init__(
        self,
        function: Callable[..., object],
        *,
        name: str | None = None,
        call: Callable[..., object] | None = None,
        validate: bool = True,
        authorize: Callable[[], object] | None = None,
    ) -> None:
        self.name: str = name or getattr(function, "__name__", "") or type(function).__name__
        self.call = function if call is None else call
        self.binding = Binding(function, validate=validate)
        self.authorize = authorize

    def __repr__(self) -> str:
        return f"<Method {self.name!r}>"


_NO_METHODS: Mapping[str, Method] = MappingProxyType({})


class CallFailed(Exception):
    """A call did not come to a result.

    ``status``
        What a call by itself answers over HTTP: 400 not JSON, or a method's own :class:`JSONRPCError`; 403
        forbidden; 422 bad parameters; 500 the rest.
    ``code``, ``message``, ``data``
        The error object (JSON-RPC 2.0, section 5.1); ``data`` is ``None`` where it has none.
    ``original``
        The exception that the method raised, or ``None``.
    ``error``
        The error object as JSON.
    """

    def __init__(
        self,
        status: int,
        code: int,
        message: str | None = None,
        data: object = None,
        *,
        original: Exception | None = None,
    ) -> None:
        message = _MESSAGES[code] if message is None else message
        super().__init__(status, code, message, data)
        self.status = status
        self.code = code
        self.message = message
        self.data = data
        self.original = original
        self.error = Raw(_encode_finite(_Error(code, message, UNSET if data is None else data)))


class _NotARequest(CallFailed):
    def __init__(self) -> None:
        super().__init__(422, INVALID_REQUEST, data=_NOT_STRUCTURED)


class Endpoint:
    """Answers bodies. It keeps no state between them, so that one serves all threads.

    ``max_batch``
        The most calls in a batch; a larger one is refused as a whole with -32600.
    ``debug``
        Whether -32603 tells type and text of the exception, or a callable that says so.
    ``on_error``
        Called once for each exception that becomes -32603, while it is being handled. What it raises passes
        through.
    ``translate``
        Turns an exception of a method into a :class:`JSONRPCError`, or ``None`` for -32603.
    """

    def __init__(
        self,
        *,
        max_batch: int = 1000,
        debug: bool | Callable[[], bool] = False,
        on_error: Callable[[Exception], object] | None = None,
        translate: Callable[[Exception], JSONRPCError | None] | None = None,
    ) -> None:
        self.max_batch = max_batch
        self._debug = debug
        self._on_error = on_error
        self._translate = translate

    def answer(
        self, body: bytes, methods: Mapping[str, Method], built_in: Mapping[str, Method] = _NO_METHODS
    ) -> bytes | None:
        """The answer to a request or a batch; ``None`` when there is none to give (section 4.1, 6).

        ``built_in`` is looked into for names that are not in ``methods``.
        """
        try:
            message = _read(body)
        except _MALFORMED:
            return _encode(_refusal(PARSE_ERROR))
        if not isinstance(message, list):
            response = self._respond(message, methods, built_in)
            return None if response is None else _encode(response)
        if not message:
            return _encode(_refusal())
        if len(message) > self.max_batch:
            reason = f"a batch holds at most {self.max_batch} calls, this one {len(message)}"
            return _encode(_refusal(reason=reason))
        answered = [each for item in message if (each := self._respond(item, methods, built_in)) is not None]
        return _encode(answered) if answered else None

    def call(self, body: bytes, method: Method) -> bytes:
        """The bare result, as JSON, of one method called with ``body`` as its params.

        An empty body means no params. Raises :class:`CallFailed`.
        """
        params = body if body.strip(b" \t\r\n") else b"[]"
        if not _is_utf8(params):
            raise CallFailed(400, PARSE_ERROR)
        try:
            return self._encode_result(self._perform(method, params))
        except CallFailed as failed:
            if failed.status == 422 and not _is_json(params):
                raise CallFailed(400, PARSE_ERROR) from None
            raise

    def _respond(
        self, request: _Request | _Failure, methods: Mapping[str, Method], built_in: Mapping[str, Method]
    ) -> _Response | None:
        if type(request) is _Failure:
            return request
        try:
            method = methods.get(request.method) or built_in.get(request.method)
            value = self._perform(method, request.params)
            if request.id is UNSET:
                return None
            # What is written now cannot be changed by a later call of the batch, nor spoil its answers.
            return _Result(value if _is_plain(value) else Raw(self._encode_result(value)), request.id)
        except CallFailed as failed:
            if request.id is not UNSET:
                return _Failure(failed.error, request.id)
            # Without an id it is a notification, unless it is no request at all.
            return _Failure(failed.error, None) if isinstance(failed, _NotARequest) else None

    def _perform(self, method: Method | None, params: Raw | bytes) -> object:
        """The result of a method; raises CallFailed only."""
        if method is None:
            raise CallFailed(404, METHOD_NOT_FOUND) if _is_structured(params) else _NotARequest()
        if method.authorize is not None:
            self._require(method.authorize)
        try:
            arguments, named = method.binding.bind(params)
        except NotStructured:
            raise _NotARequest from None
        except InvalidParams as error:
            data = {"parameter": error.parameter, "reason": error.reason}
            raise CallFailed(422, INVALID_PARAMS, data=data) from None
        except Exception as error:
            raise self._failed(error) from error
        # Apart from the binding, so that a TypeError of the method's own is never taken for bad params.
        try:
            return method.call(*arguments, **named)
        except Exception as error:
            raise self._failed(error) from error

    def _require(self, authorize: Callable[[], object]) -> None:
        try:
            allowed = bool(authorize())
        except Exception as error:
            raise self._failed(error) from error
        if not allowed:
            raise CallFailed(403, FORBIDDEN)

    def _encode_result(self, value: object) -> bytes:
        try:
            return _encode_finite(value)
        except Exception as error:
            raise self._internal(error) from error

    def _failed(self, error: Exception) -> CallFailed:
        """What a method's exception is answered with; to be called while it is handled."""
        chosen = error if isinstance(error, JSONRPCError) else self._translate(error) if self._translate else None
        if chosen is None:
            return self._internal(error)
        try:
            return _chosen(chosen, original=error)
        except Exception as unspeakable:  # noqa: BLE001  # encoding runs foreign code; what it raises is reported
            return self._internal(unspeakable)

    def _internal(self, error: Exception) -> CallFailed:
        if self._on_error is not None:
            self._on_error(error)
        debug = self._debug() if callable(self._debug) else self._debug
        return CallFailed(500, INTERNAL_ERROR, data=_describe(error) if debug else None, original=error)


class _Request(Struct, gc=False):
    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = Raw(b"[]")
    # The usual ids only; others are read one by one and kept as they were written.
    id: int | str | UnsetType | None = UNSET


class _Members(Struct, gc=False):
    """What may be a request: members of any kind, empty where there is none."""

    jsonrpc: Raw = Raw()
    method: Raw = Raw()
    params: Raw = Raw()
    id: Raw = Raw()


class _Error(Struct, omit_defaults=True):
    code: int
    message: str
    data: object = UNSET


class _Result(Struct, tag_field="jsonrpc", tag="2.0", gc=False):
    result: object
    id: int | str | None


@final
class _Failure(Struct, tag_field="jsonrpc", tag="2.0", gc=False):
    error: Raw
    id: int | str | None


_Response: TypeAlias = _Result | _Failure


def _encode_subclass(value: object) -> object:
    """Of the subclasses of JSON's own types msgspec writes those of dict and list only."""
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value) if base is not str else str.__str__(value)
    raise TypeError(f"objects of type {type(value).__qualname__} have no form in JSON")


_decode_message: Callable[[bytes], _Request | list[_Request | _Failure]] = Decoder(_Request | list[_Request]).decode
_decode_members = Decoder(_Members).decode
_decode_items = Decoder(list[Raw]).decode
_decode_string = Decoder(str).decode
_scan = Decoder(Raw).decode
_encode = Encoder(enc_hook=_encode_subclass).encode
_encode_msgpack = msgpack.Encoder(enc_hook=_encode_subclass).encode
_NONFINITE_FLOAT = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def _encode_finite(value: object) -> bytes:
    """JSON; raises ``ValueError`` for NaN and infinities, and whatever else encoding raises."""
    text = _encode(value)
    # msgspec writes a float's NaN as null and a Decimal's as "NaN". Only where such a word stands, which costs
    # next to nothing to find out, is it worth looking at the values.
    suspicious = b"NaN" in text or b"Infinity" in text or (b"null" in text and _may_hold_nonfinite(value))
    if suspicious and not is_finite(value):
        raise ValueError("NaN and infinities have no form in JSON")
    return text


def _may_hold_nonfinite(value: object) -> bool:
    """False when no float in ``value`` is NaN or infinite, several times faster than looking at each value.

    MessagePack writes a float as 0xcb and its eight bytes, and strings as UTF-8, where 0xcb is never followed by
    0x7f or 0xff. Other bytes may look the same, so True means nothing.
    """
    try:
        return _NONFINITE_FLOAT.search(_encode_msgpack(value)) is not None
    except (OverflowError, RecursionError):  # an integer above 64 bits, or deeper than this form can be
        return True


def _is_plain(value: object) -> bool:
    """Whether a value is immutable and certain to be written without an error."""
    if type(value) is str:
        return value.isascii()
    return value is None or type(value) is bool or (type(value) is int and -(2**63) <= value < 2**63)


def _is_utf8(body: bytes) -> bool:
    # msgspec looks at the encoding of those strings only that it hands out.
    try:
        return body.isascii() or body.decode() is not None
    except UnicodeDecodeError:
        return False


def _is_json(text: bytes) -> bool:
    try:
        _scan(text)
    except _MALFORMED:
        return False
    return True


def _is_structured(params: Raw | bytes) -> bool:
    return bytes(params)[:1] in (b"[", b"{")


def _read(body: bytes) -> _Request | _Failure | list[_Request | _Failure]:
    """The request or requests of a body, with a refusal for each that is none; raises one of _MALFORMED."""
    if not _is_utf8(body):
        raise DecodeError("not UTF-8")
    try:
        return _decode_message(body)
    except ValidationError:
        _scan(body)
    if body.lstrip().startswith(b"["):
        return [_read_item(item) for item in _decode_items(body)]
    return _read_item(body)


def _read_item(text: Raw | bytes) -> _Request | _Failure:
    """One request, or the refusal of what is none. ``text`` is well-formed."""
    try:
        members = _decode_members(text)
    except ValidationError:
        return _refusal()
    try:
        identity = _read_id(bytes(members.id))
    except ValueError as error:
        return _refusal(reason=str(error))
    known = None if identity is UNSET else identity
    if _read_string(members.jsonrpc) != "2.0":
        return _refusal(identity=known)
    method = _read_string(members.method)
    if method is None:
        return _refusal(identity=known)
    params = members.params if bytes(members.params) else Raw(b"[]")
    if not _is_structured(params):
        return _refusal(reason=_NOT_STRUCTURED, identity=known)
    return _Request("2.0", method, params, identity)  # type: ignore[arg-type]  # an id as it was written


def _read_id(text: bytes) -> Raw | UnsetType | None:
    if not text:
        return UNSET
    if text == b"null":
        return None
    if text[:1] not in b'"-0123456789':
        raise ValueError("id must be a string, a number or null")
    if text[:1] != b'"' and not text.lstrip(b"-").isdigit() and not math.isfinite(float(text)):
        raise ValueError("id is out of range")
    return Raw(text)


def _read_string(text: Raw) -> str | None:
    try:
        return _decode_string(text)
    except DecodeError:
        return None


def _refusal(code: int = INVALID_REQUEST, *, reason: str | None = None, identity: Raw | None = None) -> _Failure:
    """The answer to what is no request."""
    return _Failure(CallFailed(400, code, data=reason).error, identity)  # type: ignore[arg-type]  # an id as it was written


def _chosen(error: JSONRPCError, *, original: Exception) -> CallFailed:
    """What a method chose to answer. Raises whatever encoding its data raises."""
    if type(error.code) is bool or not isinstance(error.code, int) or not isinstance(error.message, str):
        raise TypeError("the code of a JSONRPCError must be an integer and its message a string")
    return CallFailed(400, error.code, error.message, error.data, original=original)


def _describe(error: Exception) -> dict[str, str]:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a foreign __str__ can raise anything
        text = "(its text cannot be had)"
    # Text of any origin: a lone surrogate in it must not spoil the answer.
    message = text.encode("utf-8", "backslashreplace").decode()
    return {"type": type(error).__qualname__, "message": message}

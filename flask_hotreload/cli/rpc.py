"""``flask-hotreload rpc``: what an API offers, and calls of it. It needs no token: it asks what any client may."""

from __future__ import annotations

import re
from typing import Any

import click
import msgspec

from flask_hotreload.cli.options import Asked, service_options
from flask_hotreload.cli.outcome import CODE_AT_FAULT, DONE, USAGE, Failure
from flask_hotreload.cli.printing import clean, out, out_json, table

_NAMED = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
#: Of JSON-RPC 2.0, section 5.1: the request is at fault, not what answers it.
_ASKED_WRONGLY = {-32700, -32600, -32601, -32602}


@click.group()
def rpc() -> None:
    """What an API offers, and calls of it."""


def _api_options(function: Any) -> Any:
    for option in (
        click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="To send; may be repeated."),
        click.option("--path", default="/", show_default=True, metavar="PATH", help="The API path."),
    ):
        function = option(function)
    return function


@rpc.command("list")
@service_options
@_api_options
def list_(asked: Asked, path: str, headers: tuple[str, ...]) -> int:
    """The methods of an API."""
    methods = _methods(_described(asked, path, headers))
    if asked.as_json:
        out_json(methods)
        return DONE
    rows = [(f"{method['name']}({_signature(method)})", method.get("summary")) for method in methods]
    table(("method", "what it does"), rows)
    return DONE


@rpc.command()
@service_options
@_api_options
@click.argument("name")
def describe(asked: Asked, path: str, headers: tuple[str, ...], name: str) -> int:
    """One method: its parameters, its result, its documentation."""
    methods = {method["name"]: method for method in _methods(_described(asked, path, headers))}
    if name not in methods:
        there = ", ".join(sorted(methods)) or "none"
        raise Failure(USAGE, f"there is no method {name!r} at {path}; there are: {there}")
    method = methods[name]
    if asked.as_json:
        out_json(method)
        return DONE
    out(f"{clean(name)}({_signature(method)})")
    for key in ("summary", "description"):
        for line in str(method.get(key) or "").splitlines():
            out(f"  {clean(line)}")
    if params := method.get("params"):
        rows = [(each["name"], _of_schema(each), _need(each), each.get("description")) for each in params]
        table(("parameter", "type", "", "what it is"), rows)
    if result := method.get("result"):
        out(f"result: {_of_schema(result)}")
    return DONE


@rpc.command(context_settings={"ignore_unknown_options": True})  # -1 is a number
@service_options
@_api_options
@click.option("--params", "given", metavar="JSON", help="All of them, as a list or an object.")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[VALUE | NAME=VALUE]...")
def call(asked: Asked, path: str, headers: tuple[str, ...], given: str | None, name: str, arguments: Any) -> int:
    """Call a method. Each value is JSON, or else the text that it is."""
    body = {"jsonrpc": "2.0", "id": 1, "method": name, "params": _params(given, arguments)}
    answer = asked.public_connection().call("POST", _slashed(path), body, headers=_headers(headers))
    told = answer.value
    if answer.status != 200 or not isinstance(told, dict):
        raise Failure(USAGE, f"{path} answers no JSON-RPC but {answer.status}: {answer.problem}", answer=_dict(told))
    if "error" in told:
        error = told["error"]
        code = USAGE if error.get("code") in _ASKED_WRONGLY else CODE_AT_FAULT
        data = f": {msgspec.json.encode(error['data']).decode()}" if "data" in error else ""
        raise Failure(code, f"{error.get('message')} ({error.get('code')}){data}", answer=told)
    out_json(told["result"])
    return DONE


def _described(asked: Asked, path: str, headers: tuple[str, ...]) -> Any:
    """The API's OpenRPC document."""
    where = f"{_slashed(path).rstrip('/')}/openrpc.json"
    answer = asked.public_connection().call("GET", where, headers=_headers(headers))
    if answer.status != 200 or not isinstance(answer.value, dict):
        raise Failure(USAGE, f"{where} describes no API: {answer.problem}", answer=_dict(answer.value))
    return answer.value


def _methods(document: Any) -> list[Any]:
    """Those of an OpenRPC document, without references, sorted."""
    methods = document.get("methods", [])
    return sorted((each for each in methods if "name" in each), key=lambda method: str(method["name"]))


def _signature(method: Any) -> str:
    return ", ".join(
        clean(str(each["name"])) + ("" if each.get("required") else "?") for each in method.get("params", [])
    )


def _need(param: Any) -> str:
    if param.get("required"):
        return "required"
    schema = param.get("schema")
    has_default = isinstance(schema, dict) and "default" in schema
    return f"default {msgspec.json.encode(schema['default']).decode()}" if has_default else "optional"


def _of_schema(described: Any) -> str:
    """A JSON Schema's type in a word, or as it stands if that is not enough."""
    schema = described.get("schema")
    if not isinstance(schema, dict) or not schema:
        return "any"
    if isinstance(kind := schema.get("type"), str) and kind not in ("array", "object"):
        return clean(kind)
    shown = {key: value for key, value in schema.items() if key != "default"}
    return clean(msgspec.json.encode(shown).decode())


def _params(given: str | None, arguments: tuple[str, ...]) -> Any:
    if given is not None:
        if arguments:
            raise Failure(USAGE, "--params are all of them: give no others")
        params = _value(given)
        if not isinstance(params, (list, dict)):
            raise Failure(USAGE, "--params must be a JSON list or object")
        return params
    named = {match[1]: _value(match[2]) for each in arguments if (match := _NAMED.fullmatch(each))}
    if named and len(named) != len(arguments):
        raise Failure(USAGE, "parameters are all by position, or all by different names")
    return named or [_value(each) for each in arguments]


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not (colon and name.strip() and each.isprintable()):
            raise Failure(USAGE, f"--header must be like 'X-Key: value', not {each.partition(':')[0]!r}")
        headers[name.strip()] = value.strip()
    return headers


def _slashed(path: str) -> str:
    return "/" + path.strip("/")


def _dict(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None

"""The OpenRPC 1.4 document of what is served at one API path: from type hints and docstrings.

* Each name has an entry under ``methods``, in alphabetical order; an alias has ``x-alias-of``.
* A parameter's schema (JSON Schema draft-07) says what a call accepts: that of its hint, ``{}`` where nothing is
  checked. What ``*args`` and ``**kwargs`` take is one parameter each, marked ``x-variadic``.
* ``paramStructure`` is how a call can give the parameters that are listed. Where neither way reaches all of them,
  those are listed that the better way reaches: by position if ``*args`` takes part, else by name.
* Errors are under ``components``. ``authorize`` shows as the error -32001; other settings do not show.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from flask_hotreload import docstring
from flask_hotreload.binding import Parameter, definition_of, return_hint
from flask_hotreload.dispatch import Dispatcher
from flask_hotreload.draft07 import annotated
from flask_hotreload.finite import is_finite
from flask_hotreload.hint_schemas import HintSchemas

VERSION: Final = "1.4.0"

DISCOVER: Final = "rpc.discover"
"""The method that answers with the document ("Service Discovery Method")."""

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
_REST = inspect.Parameter.VAR_POSITIONAL
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_OTHERS = inspect.Parameter.VAR_KEYWORD

_BY_POSITION = frozenset({_POSITIONAL_ONLY, _EITHER, _REST})
_BY_NAME = frozenset({_EITHER, _KEYWORD_ONLY, _OTHERS})

_ERRORS: dict[str, dict[str, Any]] = {
    "ParseError": {"code": -32700, "message": "Parse error"},
    "InvalidRequest": {
        "code": -32600,
        "message": "Invalid Request",
        "data": "what is wrong with it, if that is known",
    },
    "MethodNotFound": {"code": -32601, "message": "Method not found"},
    "InvalidParams": {
        "code": -32602,
        "message": "Invalid params",
        "data": {"parameter": "the parameter at fault; null if it is none in particular", "reason": "what is wrong"},
    },
    "InternalError": {"code": -32603, "message": "Internal error"},
    "HTTPError": {
        "code": -32000,
        "message": "the description of an HTTP error that the method raised",
        "data": {"status": "its status, a number", "name": "its name"},
    },
    "Forbidden": {"code": -32001, "message": "Forbidden"},
}


def document(named: Mapping[str, Dispatcher], *, title: str, version: str, generation: int) -> dict[str, Any]:
    """The document of the dispatchers ``named``, name → dispatcher: builtins only, all of which JSON can hold."""
    schemas = HintSchemas()
    methods = [_method(name, dispatcher, schemas) for name, dispatcher in sorted(named.items())]
    return {
        "openrpc": VERSION,
        "info": {"title": title, "version": version, "x-generation": generation},
        "methods": methods,
        "components": {"schemas": schemas.components, "errors": _ERRORS},
    }


def _method(name: str, dispatcher: Dispatcher, schemas: HintSchemas) -> dict[str, Any]:
    doc = docstring.parse(_doc(dispatcher.function))
    structure, parameters = _structure(dispatcher.method.binding.parameters)
    errors = ["InvalidParams", "InternalError", *(["Forbidden"] if dispatcher.settings.authorize else [])]
    return {
        "name": name,
        **({} if name == dispatcher.name else {"x-alias-of": dispatcher.name}),
        **_given(summary=doc.summary, description=doc.description),
        "paramStructure": structure,
        "params": [_parameter(each, doc.parameters.get(each.name, ""), schemas) for each in parameters],
        "result": {
            "name": "result",
            **_given(description=doc.result),
            "schema": schemas.of(return_hint(dispatcher.function)),
        },
        "errors": [{"$ref": f"#/components/errors/{error}"} for error in errors],
    }


def _structure(parameters: Iterable[Parameter]) -> tuple[str, list[Parameter]]:
    """``paramStructure`` and the parameters that a call of this structure can give, the required ones first."""
    parameters = list(parameters)
    kinds = {each.kind for each in parameters}
    must = {each.kind for each in parameters if each.required}
    if _KEYWORD_ONLY in must:
        structure = "by-name"
    elif _POSITIONAL_ONLY in must or (_REST in kinds and _OTHERS not in kinds):
        structure = "by-position"
    elif _KEYWORD_ONLY in kinds or (_OTHERS in kinds and _REST not in kinds):
        structure = "by-name"
    else:
        structure = "by-position" if _POSITIONAL_ONLY in kinds else "either"
    reached = {"by-name": _BY_NAME, "by-position": _BY_POSITION, "either": _BY_NAME | _BY_POSITION}[structure]
    listed = [each for each in parameters if each.kind in reached]
    return structure, sorted(listed, key=lambda each: not each.required)


def _parameter(parameter: Parameter, description: str, schemas: HintSchemas) -> dict[str, Any]:
    schema = schemas.of(parameter.hint) if parameter.checked else {}
    return {
        "name": parameter.name,
        **_given(description=description),
        "required": parameter.required,
        "schema": annotated(schema, **_default(parameter)),
        **({"x-variadic": True} if parameter.kind in (_REST, _OTHERS) else {}),
    }


def _default(parameter: Parameter) -> dict[str, Any]:
    """The keyword ``default``; none for a default that JSON has no form for."""
    if parameter.required or parameter.default is inspect.Parameter.empty:
        return {}
    try:
        default = msgspec.to_builtins(parameter.default, str_keys=True)
        msgspec.json.encode(default)
        return {"default": default} if is_finite(default) else {}
    except Exception:  # noqa: BLE001  # a default may be anything, so writing it can raise anything
        return {}


def _given(**members: str) -> dict[str, str]:
    return {name: text for name, text in members.items() if text}


def _doc(function: Callable[..., Any]) -> str | None:
    """What stands in the source about a callable: not about the kind of object that it is."""
    if isinstance(function, type):
        return function.__doc__
    text = (
        inspect.getdoc(function) if inspect.isroutine(function) else getattr(definition_of(function), "__doc__", "")
    )
    return text or (None if inspect.isroutine(function) else type(function).__doc__)

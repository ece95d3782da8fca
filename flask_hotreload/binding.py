"""From the params of a call to the arguments of a Python callable, converted and checked by its type hints.

The rules are Python's own: a parameter is given by position or by name as its kind allows, is required unless
it has a default (defaults are never converted), ``*args`` and ``**kwargs`` take what is left.

* A value is converted by msgspec in strict mode: ``"3"`` or ``3.0`` is no ``int``, ``true`` is no number. ISO
  8601 strings become dates, objects become dataclasses, Structs and TypedDicts, and so on.
* No hint means any JSON value. So does a hint that names a class which JSON cannot express, alone or inside
  another one (``np.ndarray``, ``list[Session]``, ``Callable``): such a parameter is not checked.
* A hint that cannot be resolved, or a union whose members JSON cannot tell apart (``str | datetime``), is a
  ``TypeError`` when the binding is made.
* An integer arrives exactly as it was sent, or the call is refused. NaN and infinities never arrive.
* Of a name that is given twice, the last value counts.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET, DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder
from msgspec.structs import asdict

from flask_hotreload.finite import is_finite

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
_REST = inspect.Parameter.VAR_POSITIONAL
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_OTHERS = inspect.Parameter.VAR_KEYWORD

_ANYTHING = inspect.Signature([inspect.Parameter("args", _REST), inspect.Parameter("kwargs", _OTHERS)])

# What a decoder raises for a value that does not fit; anything else comes from the code of the type itself.
_REFUSED = (DecodeError, RecursionError)

_read_items = Decoder(list[Raw]).decode
_read_members = Decoder(dict[str, Raw]).decode

# Hints that need no closer look; with thousands of dispatchers that saves a third of the time.
_SIMPLE: list[object] = [str, int, bool, float, list, dict, None, type(None), object, Any]

_LONGEST_NAME = 100
_LONGEST_REASON = 500


class InvalidParams(Exception):
    """The params do not fit the callable (JSON-RPC 2.0, section 5.1, -32602).

    ``parameter``
        The name of the parameter at fault, or ``None`` when it is none in particular.
    ``reason``
        One sentence; for a value inside of another one it ends with the path, ``$`` being the parameter.
    """

    def __init__(self, parameter: str | None, reason: str) -> None:
        super().__init__(parameter, reason)
        self.parameter = parameter if parameter is None else _clip(parameter, _LONGEST_NAME)
        self.reason = _clip(reason, _LONGEST_REASON)

    def __str__(self) -> str:
        return self.reason if self.parameter is None else f"{self.parameter}: {self.reason}"


class NotStructured(InvalidParams):
    """The params are neither an array nor an object (JSON-RPC 2.0, section 4.2)."""

    def __init__(self) -> None:
        super().__init__(None, "params must be an array or an object")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a callable.

    ``kind``
        As in :class:`inspect.Parameter`.
    ``hint``
        The resolved type hint, with what ``Annotated`` adds; ``Any`` where there is none.
    ``default``
        ``inspect.Parameter.empty`` if there is none; ``required`` says so too.
    ``checked``
        Whether values are converted and checked by the hint.
    """

    name: str
    kind: inspect._ParameterKind
    hint: Any  # a type hint has no type of its own
    required: bool
    default: Any  # anything may be a default
    checked: bool
    decimal: bool = field(repr=False)
    decode: Callable[[Raw | bytes], Any] = field(repr=False, compare=False)

    def convert(self, value: Raw, name: str | None = None) -> Any:
        """The Python value of a JSON value; ``name`` is the one that the client used, if it is another."""
        try:
            converted = self.decode(value)
        except ValidationError as error:
            raise InvalidParams(name or self.name, str(error)) from None
        except _REFUSED:
            raise InvalidParams(name or self.name, "nested too deeply") from None
        if self.decimal and not is_finite(converted):
            raise InvalidParams(name or self.name, "NaN and infinities are not accepted")
        return converted


class Binding:
    """How the params of a call become the arguments of ``function``; made once, used for every call.

    ``validate=False`` converts and checks no value, but still refuses what the signature does not take. A
    callable without a signature (some builtins) takes anything.

    ``parameters``
        A tuple of :class:`Parameter`, in the order of the signature.

    Raises ``TypeError`` for what is not callable and for a hint that cannot be used, naming it.
    """

    def __init__(self, function: Callable[..., object], *, validate: bool = True) -> None:
        if not callable(function):
            raise TypeError(f"{function!r} is not callable")
        try:
            signature = inspect.signature(function)
        except ValueError:
            signature = _ANYTHING
        where = getattr(function, "__qualname__", None) or repr(function)
        resolve = _HintResolver(function)
        self.parameters = tuple(
            _parameter(each, resolve, where, validate=validate) for each in signature.parameters.values()
        )
        self._by_name = {p.name: p for p in self.parameters if p.kind in (_EITHER, _KEYWORD_ONLY)}
        self._positional = [p for p in self.parameters if p.kind in (_POSITIONAL_ONLY, _EITHER)]
        self._rest = next((p for p in self.parameters if p.kind is _REST), None)
        self._others = next((p for p in self.parameters if p.kind is _OTHERS), None)
        self._optional_positions = any(not p.required for p in self._positional)
        self._optional_names = tuple(p.name for p in self._by_name.values() if not p.required)
        # The common forms are decoded and checked in one step; `_bind_each` is the rule for all of them and
        # finds the words for what is wrong.
        self._decode = self._one_step()

    def __repr__(self) -> str:
        return f"<Binding ({', '.join(p.name for p in self.parameters)})>"

    def bind(self, params: Raw | bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and keyword arguments from the params, a complete JSON text.

        Raises :class:`InvalidParams`, or :class:`NotStructured` when it is neither array nor object. What the
        code of a type raises (a dataclass's ``__post_init__``, say) passes through, unless msgspec takes it
        for a failed check: ``TypeError`` and ``ValueError``.
        """
        if self._decode is None:
            return self._bind_each(params)
        try:
            value = self._decode(params)
        except _REFUSED:
            return self._bind_each(params)
        if isinstance(value, tuple):
            while self._optional_positions and value and value[-1] is UNSET:
                value = value[:-1]
            return value, {}
        named = asdict(value)
        for name in self._optional_names:
            if named[name] is UNSET:
                del named[name]
        return (), named

    def _one_step(self) -> Callable[[Raw | bytes], Any] | None:
        """A decoder to a tuple (given by position) or a Struct (by name); ``None`` where neither will do.

        What is left out is UNSET, which JSON cannot express: the callable's own default applies.
        """
        if any(p.decimal for p in self.parameters):
            return None
        forms: list[Any] = []  # types made here
        if self._rest is None and not any(p.required and p.kind is _KEYWORD_ONLY for p in self.parameters):
            forms.append(_positions(self._positional))
        if self._others is None and not any(
            (p.required and p.kind is _POSITIONAL_ONLY) or p.name.startswith("__") for p in self.parameters
        ):
            forms.append(_names(self._by_name.values()))
        if not forms:
            return None
        return Decoder(forms[0] if len(forms) == 1 else forms[0] | forms[1]).decode

    def _bind_each(self, params: Raw | bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        first = bytes(params).lstrip()[:1]
        try:
            if first == b"[":
                return self._bind_items(_read_items(params)), {}
            if first == b"{":
                return (), self._bind_members(_read_members(params))
        except _REFUSED as error:
            raise InvalidParams(None, str(error)) from None
        raise NotStructured

    def _bind_items(self, items: list[Raw]) -> tuple[Any, ...]:
        positional, given = self._positional, len(items)
        if given > len(positional) and self._rest is None:
            raise InvalidParams(None, f"too many: takes {_count(len(positional))} by position, got {given}")
        for parameter in positional[given:]:
            if parameter.required:
                raise InvalidParams(parameter.name, "required, but not given")
        for parameter in self.parameters:
            if parameter.required and parameter.kind is _KEYWORD_ONLY:
                raise InvalidParams(parameter.name, "required, and can be given by name only")
        arguments = [p.convert(item) for p, item in zip(positional, items, strict=False)]
        if self._rest is not None:
            surplus = enumerate(items[len(positional) :])
            arguments += [self._rest.convert(item, f"{self._rest.name}[{i}]") for i, item in surplus]
        return tuple(arguments)

    def _bind_members(self, members: dict[str, Raw]) -> dict[str, Any]:
        by_position = {p.name for p in self._positional if p.kind is _POSITIONAL_ONLY}
        for name in members:
            if name not in self._by_name and self._others is None:
                if name in by_position:
                    raise InvalidParams(name, "can be given by position only")
                known = ", ".join(self._by_name) or "none"
                raise InvalidParams(name, f"unknown name; the names are: {known}")
        for parameter in self.parameters:
            if parameter.required and parameter.name in by_position:
                raise InvalidParams(parameter.name, "required, and can be given by position only")
            if parameter.required and parameter.name not in members:
                raise InvalidParams(parameter.name, "required, but not given")
        arguments: dict[str, Any] = {}
        for name, value in members.items():
            parameter_or_others = self._by_name.get(name) or self._others
            assert parameter_or_others is not None  # unknown names were refused above
            arguments[name] = parameter_or_others.convert(value, name)
        return arguments


def return_hint(function: Callable[..., object]) -> Any:
    """The resolved type hint of a callable's result; ``Any`` where there is none, or none that can be resolved."""
    if isinstance(function, type):
        return function
    try:
        annotation = inspect.signature(function).return_annotation
        return Any if annotation is inspect.Signature.empty else _HintResolver(function)(annotation)
    except Exception:  # noqa: BLE001  # a hint is foreign code: evaluating one can raise anything
        return Any


def _positions(parameters: list[Parameter]) -> Any:
    forms = tuple(map(_form, parameters))
    defaults = [UNSET for p in parameters if not p.required]
    if not defaults:
        return tuple[forms]  # type: ignore[valid-type]  # a type known at run time only
    names = [f"p{i}" for i in range(len(forms))]
    positions = namedtuple("Positions", names, defaults=defaults)  # type: ignore[misc]  # as above
    positions.__annotations__ = dict(zip(names, forms, strict=True))
    return positions


def _names(parameters: Iterable[Parameter]) -> type[Struct]:
    fields = [(p.name, _form(p)) if p.required else (p.name, _form(p), UNSET) for p in parameters]
    return msgspec.defstruct("Names", fields, forbid_unknown_fields=True, kw_only=True)


def _form(parameter: Parameter) -> Any:
    return parameter.hint if parameter.checked else Any


def _parameter(parameter: inspect.Parameter, resolve: _HintResolver, where: str, *, validate: bool) -> Parameter:
    name = parameter.name
    hint: Any = Any
    decimal = False
    try:
        if parameter.annotation is not parameter.empty:
            hint = resolve(parameter.annotation)
        checked = validate and hint is not Any and not _is_inexpressible(hint)
        decoder = Decoder(hint if checked else Any)
        if checked and hint not in _SIMPLE:
            decimal = _mentions_decimal(msgspec.inspect.type_info(hint))
    except Exception as error:  # a hint is foreign code: evaluating one can raise anything
        if validate:
            raise TypeError(
                f"the type hint {parameter.annotation!r} of parameter {name!r} of {where} cannot be used: {error}; "
                f"change it, or register the function with validate=False"
            ) from error
        checked, decoder = False, Decoder(Any)
    required = parameter.default is parameter.empty and parameter.kind not in (_REST, _OTHERS)
    return Parameter(name, parameter.kind, hint, required, parameter.default, checked, decimal, decoder.decode)


class _HintResolver:
    """Evaluates the hints of one callable where it was defined, strings and forward references included."""

    def __init__(self, function: object) -> None:
        target = definition_of(function)
        self._globals: dict[str, Any] = getattr(target, "__globals__", {})
        # Never the same dict as the globals: typing would then answer a forward reference such as
        # Optional["Point"] from its cache, with the class of an older copy of the module.
        self._locals: dict[str, Any] = {p.__name__: p for p in getattr(target, "__type_params__", ())}
        code = getattr(target, "__code__", None)
        cells = getattr(target, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
            try:
                self._locals[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                pass

    def __call__(self, annotation: Any) -> Any:
        def holder() -> None: ...

        holder.__annotations__ = {"hint": annotation}
        return typing.get_type_hints(holder, self._globals, self._locals, include_extras=True)["hint"]


def definition_of(function: object) -> object:
    """The plain function in which the hints of a callable were written, or else the callable itself."""
    while not isinstance(function, types.FunctionType) or hasattr(function, "__wrapped__"):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, types.MethodType):
            function = function.__func__
        else:
            special = ("__init__", "__new__") if isinstance(function, type) else ("__call__",)
            owner = function if isinstance(function, type) else type(function)
            written = (vars(cls).get(name) for name in special for cls in owner.__mro__)
            function_or_none = next((each for each in written if isinstance(each, types.FunctionType)), None)
            if function_or_none is None:
                break
            function = function_or_none
    return function


def _is_inexpressible(hint: Any) -> bool:
    """Whether a hint names, itself or inside of it, a class for which JSON has no form."""
    if hint in _SIMPLE:
        return False
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return False
    if origin is typing.Annotated:
        return _is_inexpressible(inner[0])
    if origin in (typing.Union, types.UnionType):
        # Any value is an object, so nothing is left to check, which msgspec sees for Any only.
        return any(each is object or _is_inexpressible(each) for each in inner)
    try:
        if isinstance(msgspec.inspect.type_info(hint), msgspec.inspect.CustomType):
            return True
    except TypeError:  # an unsupported form somewhere inside: what it is made of decides
        pass
    return any(_is_inexpressible(each) for each in inner if each is not Ellipsis)


def _mentions_decimal(info: msgspec.inspect.Type) -> bool:
    seen: set[int] = set()
    pending: list[object] = [info]
    while pending:
        node = pending.pop()
        if isinstance(node, msgspec.inspect.DecimalType):
            return True
        if id(node) not in seen and isinstance(node, (Struct, tuple)):
            seen.add(id(node))
            pending.extend(_inner(node))
    return False


def _inner(node: Struct | tuple[object, ...]) -> Iterator[object]:
    if isinstance(node, tuple):
        yield from node
    else:
        yield from (getattr(node, name) for name in node.__struct_fields__)


def _count(number: int) -> str:
    return "none" if number == 0 else f"at most {number}"


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "…"

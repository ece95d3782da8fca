"""Configuration: argument, then ``app.config``, then the environment, then the default; checked once.

The keys are listed in :data:`KEYS`. As an argument a key may be written without its prefix and in lower case:
``HotRPC(app, token="…")`` is ``HOTRELOAD_TOKEN``. In the environment a list is separated by commas.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask_hotreload.origin import Origin

PREFIX = "HOTRELOAD_"
_MINIMUM_TOKEN = 16
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110, section 5.6.2
_DAY = 86400.0
#: How the URLs of stores begin that are reached over a network, or may be.
NETWORK = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Config:
    """The checked configuration of one application. Seconds are floats, sizes are bytes."""

    token: tuple[str, ...]
    http: bool
    url_prefix: str
    max_body: int
    roots: tuple[str, ...] | None
    timeout: float
    prepare_timeout: float
    apply_timeout: float
    max_hold: float
    keep: tuple[str, ...]
    keep_generations: int
    application: str | None
    exempt: tuple[str, ...]
    max_batch: int
    header: str | None
    openrpc: bool
    coordinator: str
    deployment: str | None
    release: str | None
    signing_key: str | None
    in_doubt: float
    stage_seconds: float
    watch: bool

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, Any],
        app_config: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> Config:
        """Raise ``ValueError`` or ``TypeError``, naming the key, for an unknown key or a wrong value."""
        environment = os.environ if environment is None else environment
        given = {_full_name(name): value for name, value in arguments.items()}
        for name in (*given, *(name for name in app_config if name.startswith(PREFIX))):
            if name not in KEYS:
                raise ValueError(f"{name} is not a setting of flask_hotreload; there are {', '.join(sorted(KEYS))}")
        values: dict[str, Any] = {}
        for name, key in KEYS.items():
            if given.get(name) is not None:
                value = given[name]
            elif app_config.get(name) is not None:
                value = app_config[name]
            elif environment.get(name):
                value = _read_text(environment[name], key.read)
            else:
                value = key.default
            values[name.removeprefix(PREFIX).lower()] = key.read(name, value)
        config = cls(**values)
        if config.timeout > config.max_hold:
            raise ValueError(
                f"HOTRELOAD_TIMEOUT ({config.timeout} s) must not be above HOTRELOAD_MAX_HOLD ({config.max_hold} s)"
            )
        if config.coordinator.startswith(NETWORK) and config.signing_key is None:
            raise ValueError(
                "HOTRELOAD_COORDINATOR names Redis, and HOTRELOAD_SIGNING_KEY is not set: whoever can write there "
                'could run code here. Make one with: python -c "import secrets; print(secrets.token_hex(32))" and '
                "give it to every worker"
            )
        return config

    def differing(self, other: Config) -> tuple[str, ...]:
        """The names of the settings that are others in ``other``."""
        return tuple(name for name in KEYS if self._value(name) != other._value(name))

    def _value(self, name: str) -> object:
        return getattr(self, name.removeprefix(PREFIX).lower())


class Key(NamedTuple):
    """How a setting is read. ``read(name, value)`` returns the checked value or raises."""

    default: Any
    read: Callable[[str, Any], Any]


def _full_name(name: str) -> str:
    return name if name.startswith(PREFIX) else PREFIX + name.upper()


def _read_text(text: str, read: Callable[[str, Any], Any]) -> Any:
    if read in (_strings, _tokens, _folders, _paths, _modules):
        return [item.strip() for item in text.split(",") if item.strip()]
    if read is _boolean and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    for convert, kinds in ((float, (_seconds, _seconds_of_a_day)), (int, (_positive, _number))):
        if read in kinds:
            try:
                return convert(text)
            except ValueError:
                return text  # its check says what is wrong with it
    return text


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of seconds ≥ 0, not {value!r}")
    return float(value)


def _seconds_of_a_day(name: str, value: Any) -> float:
    seconds = _seconds(name, value)
    if seconds > _DAY:
        raise ValueError(f"{name} must be at most a day, {_DAY:g} seconds, not {value!r}")
    return seconds


def _whole_number(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


def _positive(name: str, value: Any) -> int:
    return _whole_number(name, value, 1)


def _number(name: str, value: Any) -> int:
    return _whole_number(name, value, 0)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise TypeError(f"{name} must be a string or a list of strings, not {value!r}")
    if not all(isinstance(item, (str, os.PathLike)) for item in items):
        raise TypeError(f"{name} must hold strings only, not {value!r}")
    return tuple(os.fspath(item) for item in items)


def _tokens(name: str, value: Any) -> tuple[str, ...]:
    tokens = _strings(name, value)
    for token in tokens:
        if len(token) < _MINIMUM_TOKEN:
            raise ValueError(
                f"{name} holds a token of {len(token)} characters; at least {_MINIMUM_TOKEN} are needed. "
                'Make one with: python -c "import secrets; print(secrets.token_urlsafe())"'
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(f"{name} holds a token that cannot stand in a header: use printable ASCII, no spaces")
    return tokens


def _modules(name: str, value: Any) -> tuple[str, ...]:
    modules = _strings(name, value)
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{name} holds {module!r}; a module's name is such as 'shop.models'")
    return modules


def _origin(name: str, value: Any) -> str | None:
    text = _text(name, value)
    if text is not None:
        try:
            Origin.read(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return text


def _folders(name: str, value: Any) -> tuple[str, ...] | None:
    return None if value is None else _strings(name, value)


def _paths(name: str, value: Any) -> tuple[str, ...]:
    paths = _strings(name, value)
    for path in paths:
        if not path.startswith("/") or path == "/":
            raise ValueError(f"{name} holds {path!r}; a URL path begins with '/' and names at least one segment")
    return tuple(path.rstrip("/") for path in paths)


def _one_path(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a URL path, not {value!r}")
    return _paths(name, value)[0]


def _coordinator(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    if value not in ("auto", "local") and not value.startswith(("sqlite:///", *NETWORK)):
        scheme = value.partition(":")[0]  # the rest may hold a password
        raise ValueError(
            f"{name} must be 'auto', 'local', 'sqlite:///absolute/path', or a URL of Redis that begins with "
            f"{', '.join(NETWORK)}, not {scheme!r}"
        )
    return value


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return value


def _header(name: str, value: Any) -> str | None:
    header = _text(name, value)
    if header is not None and not _HEADER.fullmatch(header):
        raise ValueError(f"{name} must be the name of a header, such as 'X-Generation', not {value!r}")
    return header


def _secret(name: str, value: Any) -> str | None:
    key = _text(name, value)
    if key is not None and len(key) < _MINIMUM_TOKEN:
        raise ValueError(f"{name} has {len(key)} characters; at least {_MINIMUM_TOKEN} are needed")
    return key


#: Every setting by its full name, with its default; what they mean is told on the page for operators.
KEYS: dict[str, Key] = {
    "HOTRELOAD_TOKEN": Key((), _tokens),
    "HOTRELOAD_HTTP": Key(True, _boolean),
    "HOTRELOAD_URL_PREFIX": Key("/_reload", _one_path),
    "HOTRELOAD_MAX_BODY": Key(1024 * 1024, _positive),
    "HOTRELOAD_ROOTS": Key(None, _folders),
    "HOTRELOAD_TIMEOUT": Key(5.0, _seconds),
    "HOTRELOAD_PREPARE_TIMEOUT": Key(20.0, _seconds),
    "HOTRELOAD_APPLY_TIMEOUT": Key(5.0, _seconds),
    "HOTRELOAD_MAX_HOLD": Key(15.0, _seconds),
    "HOTRELOAD_KEEP": Key((), _modules),
    "HOTRELOAD_KEEP_GENERATIONS": Key(3, _number),
    "HOTRELOAD_APPLICATION": Key(None, _origin),
    "HOTRELOAD_EXEMPT": Key((), _paths),
    "HOTRELOAD_MAX_BATCH": Key(1000, _positive),
    "HOTRELOAD_HEADER": Key(None, _header),
    "HOTRELOAD_OPENRPC": Key(True, _boolean),
    "HOTRELOAD_COORDINATOR": Key("auto", _coordinator),
    "HOTRELOAD_DEPLOYMENT": Key(None, _text),
    "HOTRELOAD_RELEASE": Key(None, _text),
    "HOTRELOAD_SIGNING_KEY": Key(None, _secret),
    "HOTRELOAD_IN_DOUBT": Key(10.0, _seconds),
    "HOTRELOAD_STAGE_SECONDS": Key(600.0, _seconds_of_a_day),
    "HOTRELOAD_WATCH": Key(False, _boolean),
}

"""The reload document: one place that reads every spelling of it and says what is wrong with it.

Python keywords, Python dicts and JSON are the same document; ``snake_case`` and the original's ``camelCase`` are the
same key. Reading never looks at the file system or at the running service.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Union

from flask_hotreload.dispatch import normal_path
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.probation import Probation

Callback = Callable[[Any, Any, Any], object]  #: ``callback(server, module, dispatcher)``
Overload = Union[Mapping[str, Any], Callback, str]  # noqa: UP007  # evaluated at run time, on Python 3.10 too


class EntryDict(TypedDict, total=False):
    """One entry of ``data`` as Python code writes it."""

    dispatcher: str | Callable[..., Any]
    scriptPath: str
    isInstance: bool
    name: str
    aliases: list[str]
    overload: Overload | list[Overload] | None
    path: str
    exclusiveModule: bool
    validate: bool
    lock: bool
    authorize: str | Callable[[], object] | None


@dataclass(frozen=True)
class Entry:
    """One dispatcher of a document. ``None`` where the document says nothing."""

    dispatcher: str | Callable[..., Any]
    script_path: str | None = None
    is_instance: bool = False
    name: str | None = None
    aliases: tuple[str, ...] | None = None
    overload: tuple[Overload, ...] = ()
    path: str = "/"
    exclusive_module: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)  # those of validate, lock, authorize that are given

    @property
    def has_script(self) -> bool:
        """Whether it is a name in a script; else it is live: a callable, or ``"package.module:function"``."""
        return isinstance(self.dispatcher, str) and ":" not in self.dispatcher

    @property
    def own_name(self) -> str:
        """The name that the dispatcher has by itself."""
        if isinstance(self.dispatcher, str):
            return self.dispatcher.rpartition(":")[2]
        return str(getattr(self.dispatcher, "__name__", ""))


@dataclass(frozen=True)
class Check:
    """A call or a URL that must answer as told, on the staged code; under the lock if ``applied``."""

    path: str | None = None
    method: str | None = None
    params: Any = None
    url: str | None = None
    status: int = 200
    contains: str | None = None
    applied: bool = False
    expected: tuple[Any] | None = None  # (result,), or None when any result will do

    def __str__(self) -> str:
        return f"GET {self.url}" if self.url is not None else f"{self.method!r} at {self.path!r}"


@dataclass(frozen=True)
class Document:
    """A checked reload document. ``data`` is ``None`` for the whole source. Seconds are floats.

    ``restores``: the generation that a rollback restores; then there is no ``data``. ``commits``: the id of what was
    staged, and is to be committed now. No document that is read has either.

    ``may_be_retry``: the id is not one that was made up just now, so it may have been used before.
    """

    data: tuple[Entry, ...] | None = None
    clear_old: bool = False
    timeout: float | None = None
    processing_dispatcher_count_max: int = 0
    on_timeout: Literal["proceed", "abort"] = "proceed"
    checks: tuple[Check, ...] = ()
    dry_run: bool = False
    stage: bool = False
    label: str | None = None
    expect: int | None = None
    id: str = ""
    may_be_retry: bool = True
    probation: Probation | None = None
    restores: int | None = None
    commits: str | None = None


def new_id() -> str:
    """An id for a document that was given none."""
    return uuid.uuid4().hex


def read_document(given: Mapping[str, Any]) -> Document:
    """``given`` as a :class:`Document`. Raise :class:`ReloadInvalid` that names the key and the remedy."""
    values = _spelled(given, _DOCUMENT_KEYS, "the document")
    data = values.get("data")
    entries = None if data is None else _read_entries(data)
    clear_old = _boolean(values, "clearOld")
    if entries is None and clear_old:
        raise ReloadInvalid("clearOld needs data: a reload of the whole source replaces everything anyway")
    on_timeout = values.get("onTimeout", "proceed")
    if on_timeout not in ("proceed", "abort"):
        raise ReloadInvalid(f"onTimeout must be 'proceed' or 'abort', not {on_timeout!r}")
    if _boolean(values, "stage") and _boolean(values, "dryRun"):
        raise ReloadInvalid("dryRun and stage exclude each other: stage keeps what a dry run would forget")
    timeout = values.get("timeout")
    if timeout is not None and not _is_number(timeout):
        raise ReloadInvalid(f"timeout must be a number of seconds ≥ 0, not {timeout!r}")
    dry_run, probation = _boolean(values, "dryRun"), _read_probation(values.get("probation"))
    if dry_run and probation is not None:
        raise ReloadInvalid("probation does not go with dryRun: nothing is served that could be watched")
    identity = _text(values, "id")
    return Document(
        data=entries,
        clear_old=clear_old,
        timeout=None if timeout is None else float(timeout),
        processing_dispatcher_count_max=_count(values, "processingDispatcherCountMax") or 0,
        on_timeout=on_timeout,
        checks=tuple(_read_check(check) for check in _listed(values.get("checks"), "checks")),
        dry_run=dry_run,
        stage=_boolean(values, "stage"),
        label=_text(values, "label"),
        expect=_count(values, "expect"),
        id=identity or new_id(),
        may_be_retry=bool(identity),
        probation=probation,
    )


def _read_entries(data: Any) -> tuple[Entry, ...]:
    entries = tuple(_read_entry(entry) for entry in _listed(data, "data"))
    if not entries:
        raise ReloadInvalid("data is an empty list: name at least one dispatcher, or leave data out")
    return entries


def _read_entry(given: Any) -> Entry:
    values = _spelled(given, _ENTRY_KEYS, "an entry of data")
    dispatcher = values.get("dispatcher")
    if not (isinstance(dispatcher, str) and dispatcher) and not callable(dispatcher):
        raise ReloadInvalid(f"dispatcher must be a name in the script, or a callable, not {dispatcher!r}")
    entry = Entry(
        dispatcher=dispatcher,
        script_path=_text(values, "scriptPath"),
        is_instance=_boolean(values, "isInstance"),
        name=_text(values, "name"),
        aliases=_names(values.get("aliases")),
        overload=tuple(_read_overload(item) for item in _listed(values.get("overload"), "overload")),
        path=_api_path(values.get("path")),
        exclusive_module=_boolean(values, "exclusiveModule"),
        settings=_settings(values),
    )
    if not entry.has_script:
        if entry.script_path is not None or entry.exclusive_module or entry.is_instance:
            raise ReloadInvalid("a callable dispatcher comes without scriptPath, exclusiveModule and isInstance")
        if entry.name is None and not entry.own_name.isidentifier():
            raise ReloadInvalid(f"the callable {dispatcher!r} has no usable __name__; give the entry a name")
    if entry.is_instance and (entry.name is not None or entry.aliases is not None):
        raise ReloadInvalid("name and aliases do not go with isInstance: an instance's methods have their own names")
    return entry


def _read_overload(item: Any) -> Overload:
    if isinstance(item, Mapping):
        if not all(isinstance(key, str) for key in item):
            raise ReloadInvalid(f"an overload's keys are names, not {item!r}")
        return dict(item)
    if callable(item):
        callback: Callback = item
        return callback
    if isinstance(item, str) and item:
        return item
    raise ReloadInvalid(f"an overload is a dict of names, a callback, or a callback's name, not {item!r}")


def _read_check(given: Any) -> Check:
    values = _spelled(given, _CHECK_KEYS, "a check")
    applied = _boolean(values, "applied")
    if ("url" in values) == ("method" in values):
        raise ReloadInvalid(
            "a check has either a method (with path, params, result) or a url (with status, contains)"
        )
    if "url" in values:
        _refuse(values, ("path", "params", "result"), "a check of a url")
        url = _text(values, "url")
        if url is None or not url.startswith("/"):
            raise ReloadInvalid(f"a check's url is a path such as '/health', not {values['url']!r}")
        status = values.get("status", 200)
        if isinstance(status, bool) or not isinstance(status, int):
            raise ReloadInvalid(f"a check's status is a number such as 200, not {status!r}")
        return Check(url=url, status=status, contains=_text(values, "contains"), applied=applied)
    _refuse(values, ("status", "contains"), "a check of a method")
    if not isinstance(values["method"], str) or not values["method"]:
        raise ReloadInvalid(f"a check's method is a dispatcher's name, not {values['method']!r}")
    params = values.get("params", [])
    if not isinstance(params, (list, tuple, Mapping)):
        raise ReloadInvalid(f"a check's params are a list or an object, not {params!r}")
    return Check(
        path=_api_path(values.get("path")),
        method=values["method"],
        params=params,
        applied=applied,
        expected=(values["result"],) if "result" in values else None,
    )


def _read_probation(given: Any) -> Probation | None:
    if given is None:
        return None
    values = _spelled(given, _PROBATION_KEYS, "a probation")
    seconds, ratio = values.get("seconds"), values.get("errorRatio")
    most, least = _count(values, "maxErrors"), _count(values, "minRequests")
    if not _is_number(seconds) or not seconds:
        raise ReloadInvalid(f"a probation's seconds must be a number > 0, not {seconds!r}")
    if ratio is not None and not (_is_number(ratio) and ratio <= 1):
        raise ReloadInvalid(f"errorRatio must be a number from 0 to 1, not {ratio!r}")
    if (ratio is None) != (not least):
        raise ReloadInvalid("errorRatio and minRequests (≥ 1) go together: a ratio of few requests says little")
    if most is None and ratio is None:
        raise ReloadInvalid("a probation needs a limit: maxErrors, or errorRatio and minRequests")
    return Probation(float(seconds), most, None if ratio is None else float(ratio), least)


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {name: _boolean(values, name) for name in ("validate", "lock") if name in values}
    if "authorize" in values:
        authorize = values["authorize"]
        if authorize is not None and not callable(authorize) and not (isinstance(authorize, str) and authorize):
            raise ReloadInvalid(f"authorize must be a callable or its name, not {authorize!r}")
        settings["authorize"] = authorize
    return settings


# Keys ------------------------------------------------------------------------------------------------------------


def _spellings(*keys: str, **also: str) -> dict[str, str]:
    """Every accepted spelling → the key as the contract writes it."""
    spellings = {key: key for key in keys}
    spellings.update({_snake(key): key for key in keys})
    spellings.update(also)
    return spellings


def _snake(key: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in key)


_DOCUMENT_KEYS = _spellings(
    "data", "clearOld", "timeout", "processingDispatcherCountMax", "onTimeout", "checks", "dryRun", "stage", "label",
    "expect", "id", "probation",
)  # fmt: skip
_ENTRY_KEYS = _spellings(
    "dispatcher", "scriptPath", "isInstance", "name", "aliases", "overload", "path", "exclusiveModule", "validate",
    "lock", "authorize", dispatcherName="name",
)  # fmt: skip
_PROBATION_KEYS = _spellings("seconds", "maxErrors", "errorRatio", "minRequests")
_CHECK_KEYS = _spellings("path", "method", "params", "result", "url", "status", "contains", "applied")


def _spelled(given: Any, spellings: Mapping[str, str], what: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ReloadInvalid(f"{what} must be an object, not {given!r}")
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = spellings.get(key) if isinstance(key, str) else None
        if name is None:
            valid = ", ".join(dict.fromkeys(spellings.values()))
            raise ReloadInvalid(f"{key!r} is not a key of {what}; the keys are {valid}")
        if name in values:
            raise ReloadInvalid(f"{name!r} is given twice in {what}, in two spellings")
        values[name] = value
    return values


def _refuse(values: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in names:
        if name in values:
            raise ReloadInvalid(f"{name!r} does not go with {what}")


# Values ----------------------------------------------------------------------------------------------------------


def _boolean(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise ReloadInvalid(f"{name} must be true or false, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ReloadInvalid(f"{name} must be a whole number ≥ 0, not {value!r}")
    return value


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise ReloadInvalid(f"{name} must be a string that is not empty, not {value!r}")
    return value


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = _listed(value, "aliases")
    if not all(isinstance(name, str) and name for name in names):
        raise ReloadInvalid(f"aliases must be names, not {value!r}")
    return tuple(names)


def _api_path(value: Any) -> str:
    try:
        return normal_path("/" if value is None else value)
    except ValueError as error:
        raise ReloadInvalid(str(error)) from None


def _listed(value: Any, name: str) -> list[Any]:
    """One thing, or a list of things, as a list."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    if name == "checks":
        raise ReloadInvalid(f"checks must be a list, not {value!r}")
    return [value]

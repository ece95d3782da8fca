"""A reload document as JSON that means the same in another process, also on another host.

Values of an overload are the asker's and must survive JSON unchanged; callables must be nameable as
``package.module:function``. Nothing is pickled: who can write the store must not be able to run code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flask_hotreload.document import Check, Document, Entry
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.interpreter import interpreter

_REMEDY = "each worker's own state is handed over by a callback, which runs in each worker"


def portable(document: Document, script: Callable[[str | None], str]) -> dict[str, Any]:
    """``document`` as JSON values. Raise :class:`ReloadInvalid` naming the entry.

    ``script``: how to tell a script path of the document, or the default for ``None``, to others.
    """
    return {
        "data": None if document.data is None else [_entry(entry, script) for entry in document.data],
        "clearOld": document.clear_old,
        "timeout": document.timeout,
        "processingDispatcherCountMax": document.processing_dispatcher_count_max,
        "onTimeout": document.on_timeout,
        "checks": [_check(check) for check in document.checks],
        "dryRun": document.dry_run,
        "stage": document.stage,
        "label": document.label,
        "expect": document.expect,
        "probation": None if document.probation is None else document.probation.to_dict(),
        "id": document.id,
    }


def with_scripts(written: Mapping[str, Any], script: Callable[[str], str]) -> dict[str, Any]:
    """What :func:`portable` has made, with the script paths that ``script`` makes of those that were told."""
    if written["data"] is None:
        return dict(written)
    data = [
        {**entry, "scriptPath": script(entry["scriptPath"])} if "scriptPath" in entry else entry
        for entry in written["data"]
    ]
    return {**written, "data": data}


def _entry(entry: Entry, script: Callable[[str | None], str]) -> dict[str, Any]:
    where = f"the entry of {entry.own_name or entry.name!r}"
    written: dict[str, Any] = {
        "dispatcher": _named(entry.dispatcher, where),
        "isInstance": entry.is_instance,
        "path": entry.path,
        "exclusiveModule": entry.exclusive_module,
        "overload": [_overload(overload, where) for overload in entry.overload],
        **{key: _setting(value, where) for key, value in entry.settings.items()},
    }
    if entry.has_script:
        written["scriptPath"] = script(entry.script_path)
    if entry.name is not None:
        written["name"] = entry.name
    if entry.aliases is not None:
        written["aliases"] = list(entry.aliases)
    return written


def _overload(overload: Any, where: str) -> Any:
    if isinstance(overload, Mapping):
        return {name: _unchanged(value, f"{where}: overload {name!r}") for name, value in overload.items()}
    return _named(overload, where)


def _setting(value: Any, where: str) -> Any:
    return _named(value, where) if callable(value) else value


def _check(check: Check) -> dict[str, Any]:
    if check.url is not None:
        told: dict[str, Any] = {"url": check.url, "status": check.status}
        return (
            told | ({"contains": check.contains} if check.contains is not None else {}) | {"applied": check.applied}
        )
    told = {"path": check.path, "method": check.method, "applied": check.applied}
    told["params"] = _unchanged(check.params, f"the check of {check}")
    if check.expected is not None:
        told["result"] = _unchanged(check.expected[0], f"the check of {check}")
    return told


def _named(function: Any, where: str) -> str:
    """``package.module:function``, provided that this name leads to ``function`` in the live modules."""
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None) or "", getattr(function, "__qualname__", "")
    found: Any = interpreter.live.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function or module == "__main__":
        raise ReloadInvalid(
            f"{where}: {function!r} cannot be named to the other workers; define it at the top level of a module, "
            "so that it is package.module:function there"
        )
    return f"{module}:{name}"


def _unchanged(value: Any, where: str) -> Any:
    try:
        survives = _same(json.loads(json.dumps(value, allow_nan=False)), value)
    except (TypeError, ValueError, RecursionError):
        survives = False
    if not survives:
        raise ReloadInvalid(
            f"{where}: {value!r} does not survive JSON, and so cannot reach the other workers; {_REMEDY}"
        )
    return value


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout: a tuple is no list, and 1 is not True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)

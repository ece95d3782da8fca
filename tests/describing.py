"""What a module and all that it leads to answer, as plain JSON; and a process that tells it of a fresh import.

Run as a program it reads one question per line, ``[folder, name, further names]``, and answers each in a process that
was forked before anything of the project was imported.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from types import FunctionType, ModuleType

NAMES = ("a", "b", "c", "pkg", "x", "y", "sub", "z")


def describe(namespace):
    """All that the names of a service's namespace lead to, by module."""
    told = {}
    _tell(namespace, told)
    return told


def _tell(namespace, told):
    own = told[namespace["__name__"]] = {}
    for name in sorted(namespace):
        value = namespace[name]
        if isinstance(value, ModuleType):
            if value.__name__.rpartition(".")[2] in NAMES:
                own[name] = f"module {value.__name__}"
                if value.__name__ not in told:
                    _tell(vars(value), told)
        elif name[:1] in "KFC" and name[1:].isdigit():
            own[name] = _tried(_of_value, value)


def _of_value(value):
    if isinstance(value, type):
        return _of_class(value)
    if isinstance(value, FunctionType):
        return [value.__module__, _tried(value)]
    return value


def _of_class(cls):
    made = cls()
    return [
        [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__],
        _tried(made.told),
        isinstance(made, cls),
        getattr(importlib.import_module(cls.__module__), cls.__name__, None) is cls,
        type(pickle.loads(pickle.dumps(made))) is cls,
    ]


def _tried(function, *args):
    try:
        return function(*args)
    except ImportError as error:
        return type(error).__name__  # who imports words it
    except (Exception, SystemExit) as error:  # SystemExit: of a module that a function is the first to import
        return f"{type(error).__name__}: {error}"


def fresh(folder, name, others):
    """What a process tells that has just imported the module ``name``, and then ``others`` as far as they are there.

    ``None``: one of them cannot be imported.
    """
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
        for other in others:
            if _is_there(other):
                importlib.import_module(other)
    except BaseException:
        return None
    return [describe(vars(module)), describe(vars(module))]


def _is_there(name):
    parent = name.rpartition(".")[0]
    if parent and not _is_there(parent):
        return False
    if parent and not hasattr(importlib.import_module(parent), "__path__"):
        return False
    return importlib.util.find_spec(name) is not None


def main():
    import flask  # noqa: F401  # what every question needs, once

    import flask_hotreload  # noqa: F401

    sys.dont_write_bytecode = True
    for line in sys.stdin:
        sys.stdout.flush()
        if os.fork() == 0:
            print(json.dumps(fresh(*json.loads(line))), flush=True)
            os._exit(0)
        if os.wait()[1]:
            sys.exit("a question has no answer")  # who asks sees the end, and does not wait for ever


if __name__ == "__main__":
    main()

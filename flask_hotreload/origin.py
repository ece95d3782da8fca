"""How the running application was made, so that new code can make it again: ``module:expression``.

``expression`` is a name (``app``) or a call with literal arguments (``create_app("prod")``), as gunicorn and the
``flask`` command take it; without one the ``flask`` command's own rule applies.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from flask import Flask
from flask.cli import NoAppException, find_best_app


@dataclass(frozen=True)
class Origin:
    module: str
    expression: str | None

    @classmethod
    def read(cls, text: str) -> Origin:
        """``"module:expression"``. Raise ``ValueError``."""
        module, _, expression = text.partition(":")
        if not module or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{text!r} must be 'module:app' or 'module:create_app()'")
        if expression:
            _parsed(expression)
        return cls(module, expression or None)

    def __str__(self) -> str:
        return self.module if self.expression is None else f"{self.module}:{self.expression}"


def of_caller() -> Origin | None:
    """What gunicorn or the ``flask`` command imports just now, as the calling thread's stack tells."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        place = frame.f_globals.get("__name__"), frame.f_code.co_name
        if place == ("gunicorn.util", "import_app"):
            return _gunicorns(frame.f_locals)
        if place == ("flask.cli", "locate_app"):
            return Origin(frame.f_locals["module_name"], frame.f_locals["app_name"])
        frame = frame.f_back
    return None


def _gunicorns(found: Mapping[str, Any]) -> Origin | None:
    module, _, expression = str(found.get("module", "")).partition(":")
    expression = expression or str(found.get("obj") or "application")
    try:
        return Origin.read(f"{module}:{expression}")
    except ValueError:
        return None


def found_in(modules: Iterable[tuple[str, ModuleType]], app: Flask) -> Origin | None:
    """A global that holds ``app``: in the module that made it, else in the one with the shortest name."""
    found = [
        Origin(name, attribute)
        for name, module in modules
        for attribute, value in vars(module).copy().items()
        if value is app
    ]
    return min(found, key=lambda each: (each.module != app.import_name, len(each.module), str(each)), default=None)


def evaluate(origin: Origin, module: ModuleType, *, made: Callable[[], bool]) -> object:
    """The application of new code, or what stands around it. ``made()``: whether the module has made one already.

    Raise ``LookupError`` if there is nothing of the kind; what the factory raises passes.
    """
    if origin.expression is None:
        if made():
            return None
        try:
            return find_best_app(module)
        except NoAppException as error:
            raise LookupError(str(error)) from None
    name, args, kwargs = _parsed(origin.expression)
    value = vars(module).get(name)
    if value is None:
        raise LookupError(
            f"{module.__name__} has no {name!r}, which makes the application; if another name does, say so with "
            "HOTRELOAD_APPLICATION, as 'module:app' or 'module:create_app()'"
        )
    return value if args is None else value(*args, **kwargs)


def _parsed(expression: str) -> tuple[str, list[Any] | None, dict[str, Any]]:
    """A name, and the arguments if it is called. Raise ``ValueError``."""
    try:
        node = ast.parse(expression.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, None, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            args = [ast.literal_eval(arg) for arg in node.args]
            return node.func.id, args, {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"{expression!r} is neither a name nor a call with literal arguments")

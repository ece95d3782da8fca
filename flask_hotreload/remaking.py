"""Makes the application once more from new code: imports the project, and calls the factory if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from flask_hotreload.errors import LoadError
from flask_hotreload.interpreter import interpreter
from flask_hotreload.origin import Origin, evaluate, found_in

if TYPE_CHECKING:
    from types import ModuleType

    from flask_hotreload.loader import ModuleLoader
    from flask_hotreload.mount import Mount
    from flask_hotreload.staging import Joining

#: How the names begin, and what they hold, of modules that only a reload of dispatchers loads.
_PRIVATE = "_hotreload_"
_EXCLUSIVE = "__only_"

_SETTING = "say how it is made with HOTRELOAD_APPLICATION, as 'module:app' or 'module:create_app()'"


def make_again(loader: ModuleLoader, joined: Joining, *, running: Flask, origin: Origin | None, script: str) -> Mount:
    """Import every project module that is loaded live and still has a source; return the new application's mount.

    ``origin``: how the application was made as far as the server tells; else the live modules are searched for it.
    ``script``: the file in which it was made.

    :raises LoadError: new code fails, or makes no application for this service.
    """
    names = [name for name in interpreter.live.copy() if _is_project(loader, name)]
    live = [(name, interpreter.live[name]) for name in names if name in interpreter.live]
    origin = origin or found_in([*live, ("__main__", interpreter.live["__main__"])], running)
    if origin is None or origin.module == "__main__":
        module = loader.load(script)
    else:
        [module] = loader.import_all([origin.module])
        if origin.module not in loader.staged:
            raise _outside(origin, module)
    made: object = None
    if origin is not None:
        where = origin
        made = loader.run(lambda: evaluate(where, module, made=lambda: bool(joined.mounts)), blame=script)
    loader.import_all(name for name in names if loader.has(name))
    return _chosen(joined.mounts, made, running, script)


def _is_project(loader: ModuleLoader, name: str) -> bool:
    return loader.world.owns(name) and not name.startswith(_PRIVATE) and _EXCLUSIVE not in name


def _outside(origin: Origin, module: ModuleType) -> LoadError:
    file = getattr(module, "__file__", None)
    return LoadError(
        f"{file or origin.module}: the application is {origin}, but this file is none that a reload imports anew: "
        f"add its folder to HOTRELOAD_ROOTS, or {_SETTING}",
        file=file,
    )


def _chosen(mounts: list[Mount], made: object, running: Flask, script: str) -> Mount:
    """The mount of the application that was ``made``; if that is none, the only one, else that of the same name."""
    candidates = [mount for mount in mounts if mount.app is made]
    if not isinstance(made, Flask):
        candidates = mounts
        if len(mounts) > 1:
            candidates = [mount for mount in mounts if mount.app.import_name == running.import_name]
    if len(candidates) == 1:
        return candidates[0]
    if not mounts or isinstance(made, Flask):
        text = f"{script}: importing the new code makes no application with HotRPC(app) or init_app(app); {_SETTING}"
    else:
        names = ", ".join(mount.app.import_name for mount in mounts)
        text = f"{script}: the new code makes several applications ({names}), not one of them like this; {_SETTING}"
    raise LoadError(text, file=script)

"""A project written by a test, live in this process, and staged beside itself."""

from __future__ import annotations

import builtins
import contextvars
import gc
import importlib
import linecache
import sys
import textwrap
import threading

from flask_hotreload.interpreter import interpreter
from flask_hotreload.loader import ModuleLoader
from flask_hotreload.sources import Roots, Snapshot
from flask_hotreload.worlds import live_modules


class Project:
    """A folder that is on ``sys.path`` and is the one root; afterwards nothing of it is loaded."""

    def __init__(self, folder):
        self.folder = folder
        self.roots = Roots([folder])

    def __enter__(self):
        if interpreter.installs:
            gc.collect()  # worlds of generations that another test has left behind
        self._modules = live_modules().copy()
        self._hooks = builtins.__import__, sys.meta_path.copy(), sys.modules
        sys.path.insert(0, str(self.folder))
        sys.dont_write_bytecode, self._dont = True, sys.dont_write_bytecode
        return self

    def __exit__(self, *exc_info):
        assert (builtins.__import__, sys.meta_path, sys.modules) == self._hooks
        assert sys.modules is self._hooks[2]
        sys.path.remove(str(self.folder))
        sys.dont_write_bytecode = self._dont
        for name in live_modules().keys() - self._modules.keys():
            del live_modules()[name]
        linecache.clearcache()

    def write(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return str(file)

    def import_live(self, name):
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def loader(self, *scripts, **options):
        paths = [str(self.folder / script) for script in scripts]
        return ModuleLoader(Snapshot(self.roots.resolve()), scripts=paths, **options)

    def load(self, loader, script, **options):
        return loader.load(str(self.folder / script), **options)


def in_live_context(function):
    """What the function returns on a thread of its own, in an empty context: that of a request for live code."""
    outcome = []

    def call():
        try:
            outcome.append(contextvars.Context().run(function))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(30)
    assert outcome, "the live context is blocked"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]

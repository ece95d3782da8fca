"""A service in this very process, for what needs no server to be measured."""

from __future__ import annotations

import gc
import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask

from flask_hotreload import HotRPC
from flask_hotreload.report import ReloadReport

SCRIPT = """
class Big:
    pass

def first() -> int:
    return {edition}
"""


class Inside:
    """An application with one dispatcher in a file of its own, ``first``, and as many others as are asked for."""

    def __init__(self, folder: Path, dispatchers: int) -> None:
        self._script = folder / "edited.py"
        self._edition = 0
        self.edit()
        self.app = Flask("inside", root_path=str(folder))
        self.rpc = HotRPC(self.app, roots=[str(folder)])
        self.rpc.register_function(importlib.import_module("edited").first, "/api")
        if dispatchers > 1:
            self.rpc.register_instance(_many(dispatchers - 1), "/api")

    def edit(self) -> None:
        self._edition += 1
        self._script.write_text(SCRIPT.format(edition=self._edition))

    def reload(self) -> ReloadReport:
        """Edit the file and reload it; raise if that does not succeed."""
        self.edit()
        return self.rpc.reload([{"dispatcher": "first", "scriptPath": str(self._script), "path": "/api"}])


def _many(number: int) -> object:
    """An instance with ``number`` methods that can be called."""

    def call(self: object, data: str = "") -> str:
        return data

    return type("Many", (), {f"call_{index}": call for index in range(number)})()


@contextmanager
def service(dispatchers: int = 1) -> Iterator[Inside]:
    """One at a time in a process: its file is imported under one name."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sys.path.insert(0, folder)
        try:
            yield Inside(Path(folder).resolve(), dispatchers)
        finally:
            sys.path.remove(folder)
            sys.modules.pop("edited", None)
            importlib.invalidate_caches()
            gc.collect()

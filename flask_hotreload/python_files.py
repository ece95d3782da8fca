"""Which files of a folder are Python sources of the project."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_hotreload.sources import ResolvedRoots


def python_files(roots: ResolvedRoots) -> Iterator[str]:
    """The real path of each ``.py`` file under the roots that is the project's own."""
    for root in dict.fromkeys(roots.real.values()):
        yield from python_files_below(root, roots)


def python_files_below(top: str, roots: ResolvedRoots) -> Iterator[str]:
    """Those in one folder under the roots, and in the folders below it. None, if there is no such folder."""
    for folder, names, files in os.walk(top):
        names[:] = [
            name
            for name in names
            if not name.startswith(".") and name != "__pycache__" and roots.contains(os.path.join(folder, name))
        ]
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".py") and not os.path.islink(path) and roots.contains(path):
                yield path
            elif name.endswith(".py") and roots.contains(os.path.realpath(path)):
                yield os.path.realpath(path)

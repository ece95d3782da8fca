"""Which sources this process is known to have imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from importlib.machinery import SourceFileLoader

import pytest

from flask_hotreload.imported import GRANULARITY, file_of, imported, process_began
from flask_hotreload.sources import Place, Roots

NAMES = ("imported_a", "imported_b", "imported_space", "imported_space.inner", "imported_pkg", "imported_pkg.part")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder to import from; its modules are forgotten afterwards."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    for name in NAMES:
        sys.modules.pop(name, None)


def write(folder, name, text="value = 1\n"):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    importlib.invalidate_caches()
    return file


def later(file):
    """A moment at which no earlier change of the file can still be meant."""
    return os.stat(file).st_ctime_ns + 2 * GRANULARITY


def look(root, since):
    found = imported(Roots([root]).resolve(), lambda name: since)
    ours = {name: module for name, module in found.modules.items() if name in NAMES}
    return ours, [name for name in found.unsure if name in NAMES], found.namespaces


def test_modules_come_with_their_bytes_and_places(root):
    write(root, "imported_pkg/__init__.py", "from . import part\n")
    last = write(root, "imported_pkg/part.py")
    importlib.import_module("imported_pkg")
    modules, unsure, _ = look(root, later(last))
    assert unsure == []
    assert {name: module.place for name, module in modules.items()} == {
        "imported_pkg": Place(str(root), "imported_pkg/__init__.py"),
        "imported_pkg.part": Place(str(root), "imported_pkg/part.py"),
    }
    assert modules["imported_pkg.part"].source.data == b"value = 1\n"
    assert modules["imported_pkg.part"].shown == str(last)


@pytest.mark.parametrize("change", ["written", "replaced", "removed"])
def test_a_file_that_has_changed_since_is_not_told(root, change):
    file = write(root, "imported_a.py")
    since = later(file)
    importlib.import_module("imported_a")
    while time.time_ns() <= since:
        pass
    if change == "written":
        file.write_text("value = 2\n")
        os.utime(file, (1, 1))  # which does not hide it
    elif change == "replaced":
        write(root, "other.py", "value = 2\n").rename(file)
    else:
        file.unlink()
    modules, unsure, _ = look(root, since)
    assert (modules, unsure) == ({}, ["imported_a"])


def test_what_is_behind_a_link_that_was_switched_since_is_not_told(tmp_path, root):
    for release in ("41", "42"):
        file = write(root, f"{release}/imported_a.py", f"value = {release}\n")
    since = later(file)
    current = tmp_path / "current"
    while time.time_ns() <= since:
        pass
    current.symlink_to(root / "42")
    sys.path.insert(0, str(current))
    importlib.import_module("imported_a")
    found = imported(Roots([current]).resolve(), lambda name: since)
    assert "imported_a" in found.unsure
    found = imported(Roots([current]).resolve(), lambda name: os.lstat(current).st_ctime_ns + 2 * GRANULARITY)
    assert found.modules["imported_a"].place == Place(str(current), "imported_a.py")


def test_packages_without_a_file_come_with_their_folders(root):
    file = write(root, "imported_space/inner.py")
    importlib.import_module("imported_space.inner")
    modules, _, namespaces = look(root, later(file))
    assert list(modules) == ["imported_space.inner"]
    assert namespaces == {"imported_space": (str(root / "imported_space"),)}


def test_what_the_interpreter_has_not_imported_by_itself_is_not_told(root):
    class Rewriting(SourceFileLoader):
        def get_data(self, path):
            return b"value = 3\n"

    file = write(root, "imported_a.py")
    spec = importlib.util.spec_from_file_location("imported_a", file, loader=Rewriting("imported_a", str(file)))
    sys.modules["imported_a"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["imported_a"])
    write(root, "imported_b.py")
    sys.modules["imported_pkg"] = importlib.import_module("imported_b")  # a second name
    modules, unsure, _ = look(root, later(root / "imported_b.py"))
    assert (list(modules), unsure) == (["imported_b"], [])
    assert file_of(sys.modules["imported_a"]) is None


def test_a_module_that_is_loaded_lazily_is_not_woken(root):
    file = write(root, "imported_a.py", "raise RuntimeError('woken')\n")
    spec = importlib.util.find_spec("imported_a")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["imported_a"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["imported_a"])
    look(root, later(file))


def test_what_lies_outside_of_the_roots_is_not_told(root):
    found = imported(Roots([root]).resolve(), lambda name: time.time_ns() + 10**12)
    assert found.modules == {}


def test_a_process_began_before_now_and_after_the_machine():
    assert time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) < process_began() < time.time_ns()

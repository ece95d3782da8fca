"""Whose the live modules are is found out once, and anew as soon as it may have become another answer."""

import sys
import weakref
from types import ModuleType

import pytest

from flask_hotreload import inventory as inventory_module
from flask_hotreload.finder import ProjectFinder
from flask_hotreload.inventory import inventory
from flask_hotreload.sources import Roots, Snapshot


class Counting:
    """A finder that owns what is called ``mine``, and counts how often it is asked."""

    targets = {}  # noqa: RUF012  # never changed
    foreign = frozenset()
    edition = "one"

    def __init__(self):
        self.asked = 0

    def owns(self, module):
        self.asked += 1
        return {"mine": True, "nameless": None}.get(getattr(module, "__name__", ""), False)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(inventory_module, "_known", None)


@pytest.fixture
def finder():
    return Counting()


@pytest.fixture
def mine(monkeypatch):
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def test_it_tells_the_project_s_modules_from_those_that_only_their_packages_can_tell(finder, mine, monkeypatch):
    monkeypatch.setitem(sys.modules, "nameless", ModuleType("nameless"))
    monkeypatch.setitem(sys.modules, "blocked", None)
    found = inventory(finder)
    assert (found.owned, found.unsure) == ({"mine"}, {"nameless", "blocked"})
    assert found.names == list(sys.modules)


def test_nobody_is_asked_again_while_the_modules_stay_the_same(finder, mine):
    first, asked = inventory(finder), finder.asked
    assert asked
    assert inventory(finder) is first
    assert finder.asked == asked


def test_what_is_known_to_be_others_is_not_asked_about(finder, mine):
    finder.foreign = {id(module) for module in sys.modules.values() if module is not mine}
    assert inventory(finder).owned == {"mine"}
    assert finder.asked == 1


@pytest.mark.parametrize(
    ("change", "owned"),
    [
        (lambda: sys.modules.update(also=ModuleType("mine")), {"mine", "also"}),
        (lambda: sys.modules.pop("mine"), set()),
        (lambda: sys.modules.update(mine=ModuleType("theirs")), set()),
    ],
    ids=["added", "removed", "another under its name"],
)
def test_another_module_is_seen(finder, mine, monkeypatch, change, owned):
    monkeypatch.setitem(sys.modules, "also", None)  # taken out behind the test
    del sys.modules["also"]
    assert inventory(finder).owned == {"mine"}
    change()
    assert inventory(finder).owned == owned


def test_whoever_has_other_rules_finds_out_for_itself(finder, mine):
    inventory(finder)
    other = Counting()
    other.edition = "two"
    other.owns = lambda module: False
    assert inventory(other).owned == set()
    assert inventory(finder).owned == {"mine"}


def test_no_module_is_held(finder):
    sys.modules["mine"] = ModuleType("mine")
    assert inventory(finder).owned == {"mine"}
    gone = weakref.ref(sys.modules.pop("mine"))
    assert gone() is None


class Odd:
    """What some put in a module's place, and nobody can refer to weakly."""

    __slots__ = ()
    gone = False

    def __del__(self):
        Odd.gone = True


def test_what_would_have_to_be_held_is_asked_about_each_time(finder):
    sys.modules["odd"] = Odd()
    assert inventory(finder) is not inventory(finder)
    del sys.modules["odd"]
    assert Odd.gone


def test_a_blocked_import_is_not_a_module_that_has_gone(finder, monkeypatch):
    monkeypatch.setitem(sys.modules, "blocked", None)
    monkeypatch.setitem(sys.modules, "mine", None)  # taken out behind the test
    sys.modules["mine"] = ModuleType("mine")
    first = inventory(finder)
    assert inventory(finder) is first
    sys.modules["mine"] = None
    assert (inventory(finder).owned, inventory(finder).unsure) == (set(), {"blocked", "mine"})


def test_where_a_root_comes_to_lead_elsewhere_its_modules_are_told_apart_anew(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "one")
    roots = Roots([link])

    def edition(*keep):
        return ProjectFinder(Snapshot(roots.resolve()), keep).edition

    first = edition()
    assert edition() == first
    assert edition("kept") != first
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert edition() != first

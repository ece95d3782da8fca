"""Whatever is edited: after a reload of the whole source the service answers as a process that was just started."""

import itertools
import json
import os
import subprocess
import sys

import describing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.internal.constants_ast import constants_from_module

from flask_hotreload import LoadError
from flask_hotreload.interpreter import interpreter

MODULES = ("a", "b", "c", "pkg", "pkg.x", "pkg.y", "pkg.sub", "pkg.sub.z")
PACKAGES = ("pkg", "pkg.sub")
SERVICE = """
import describing
import a, pkg.x

@rpc.dispatcher("/api")
def tell() -> dict:
    return describing.describe(globals())
"""

a_module = st.sampled_from(MODULES)
a_number = st.integers(0, 2)

an_import = st.sampled_from(
    [
        "import {m}",
        "import {m} as K{n}",
        "from {m} import K{n}",
        "from {m} import C{n}",
        "from {m} import F{n}",
        "from {m} import *",
        "try:\n    from {m} import K{n}\nexcept ImportError:\n    K{n} = -1",
        "import importlib\nimportlib.import_module('{m}')",
        "from pkg import x",
        "from pkg import sub, y as K{n}",
    ]
)
a_function = st.sampled_from(
    [
        "return {v}",
        "return K{n}",
        "return C{n}().told()",
        "from {m} import K{n}\n    return K{n}",
        "import {m}\n    return sorted(set(vars(__import__('sys').modules['{m}'])) & {{'K0', 'K1', 'K2'}})",
        "from {m} import C{n}\n    return isinstance(C{n}(), C{n}) and C{n}().told()",
        "import importlib\n    return importlib.import_module('{m}').F{n}.__module__",
        "raise ValueError({v})",
        "from pkg.sub import z\n    return z.__name__",
    ]
)
a_class = st.sampled_from(
    [
        "class C{n}:\n    def told(self): return {v}",
        "class C{n}(ValueError):\n    def told(self): return [{v}, issubclass(C{n}, ValueError)]",
        "import {m}\nclass C{n}(getattr({m}, 'C0', object)):\n    def told(self): return [{v}, super().__init__()]",
        "from dataclasses import dataclass\n@dataclass\nclass C{n}:\n    value: 'int' = {v}\n"
        "    def told(self): return repr(self)",
        "import enum\nclass C{n}(enum.Enum):\n    ONE = {v}\n    @classmethod\n"
        "    def _missing_(cls, value): return cls.ONE\n    def told(self): return self.name\n"
        "    def __new__(cls, value=0): self = object.__new__(cls); self._value_ = value; return self",
    ]
)
a_fault = st.sampled_from(["1 / 0", "def (:", "import nothing_of_the_kind", "raise SystemExit(3)", "K0 += undefined"])

#: ``(module, slot, text)``: what a slot of a module holds from now on; ``None``: nothing. Without its slot ``"file"``
#: the module has no file.
an_edit = st.one_of(
    st.tuples(a_module, st.builds("import {}".format, a_number), st.none() | an_import),
    st.tuples(a_module, st.builds("K{}".format, a_number), st.none() | st.just("K{n} = {v}")),
    st.tuples(a_module, st.builds("C{}".format, a_number), st.none() | a_class),
    st.tuples(a_module, st.builds("F{}".format, a_number), st.none() | a_function),
    st.tuples(a_module, st.just("fault"), a_fault),
    st.tuples(a_module, st.just("file"), st.sampled_from([None, "there"])),
)
edits = st.lists(st.tuples(an_edit, a_module, st.integers(0, 99)), min_size=4, max_size=14)
#: What is loaded beforehand though the service does not import it; in this order it is imported after the service.
some_modules = st.lists(a_module, max_size=4)


numbers = itertools.count()


class Project:
    """The files of a small project, as edits leave them."""

    def __init__(self, folder):
        self.folder = folder
        self.slots = {name: {"K0": "K0 = 1", "file": "there"} for name in MODULES}

    def edited(self, edit, other, value):
        """The slots after an edit."""
        module, slot, text = edit
        slots = {name: dict(held) for name, held in self.slots.items()}
        held = slots[module]
        if text is None:
            held.pop(slot, None)
        else:
            number = slot[-1] if slot[-1].isdigit() else "0"
            text = text.replace("{{", "{").replace("}}", "}") if "{m}" not in text else text
            text = text.replace("{m}", other).replace("{n}", number).replace("{v}", str(value))
            if slot.startswith("F"):
                text = f"def {slot}():\n    {text}"
            held[slot] = text
        return slots

    def write(self, slots):
        self.slots = slots
        for name, held in slots.items():
            path = self.folder.joinpath(*name.split("."))
            file = path / "__init__.py" if name in PACKAGES else path.with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            if "file" in held:
                order = sorted(held, key=lambda slot: ("fault" in slot, "import" not in slot, slot[0] != "K", slot))
                file.write_text("\n".join(held[slot] for slot in order if slot != "file") + "\n")
            elif file.exists():
                file.unlink()


class Fresh:
    """Asks what a process answers that has just imported the same files."""

    def __init__(self, site):
        self._site = site
        folders = os.path.dirname(describing.__file__), *sys.path
        self._process = subprocess.Popen(
            [sys.executable, describing.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            cwd=site.folder,
        )

    def tells(self):
        """Its first and its second answer; ``None`` if it cannot start."""
        loaded = [name for name in interpreter.live.copy() if name in MODULES]
        print(json.dumps([str(self._site.folder), self._site.name, loaded]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def end(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


@pytest.fixture
def edited(site):
    """The site, its project, and the fresh process to compare with."""
    project = Project(site.folder)
    project.write(project.slots)
    site.serve(SERVICE)
    fresh = Fresh(site)
    yield site, project, fresh
    fresh.end()
    constants_from_module.cache_clear()  # hypothesis looks for constants in modules, and keeps these


def answers_as_a_fresh_process(edited, sequence, loaded=()):
    site, project, fresh = edited
    project.write(Project(site.folder).slots)
    site.rewrite(f"{SERVICE}# {next(numbers)}\n")  # so that the reload is never one that finds nothing to do
    for name in MODULES:
        interpreter.live.pop(name, None)  # what other sequences have left
    assert site.rpc.reload().status == "committed"
    for name in loaded:
        site.load(name)
    before = site.call("tell") and site.call("tell")
    for edit, other, value in sequence:
        good = project.slots
        project.write(project.edited(edit, other, value))
        expected = fresh.tells()
        if expected is None:
            with pytest.raises(LoadError):
                site.rpc.reload()
            assert site.call("tell") == before
            project.write(good)
            continue
        if site.rpc.reload().status == "committed":
            assert site.call("tell") == expected[0]
        before = site.call("tell")
        assert before == expected[1]


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_packages_may_lose_and_regain_their_files(edited):
    sub, pkg = ("pkg.sub", "file"), ("pkg", "file")
    changes = [(*sub, None), (*pkg, None), ("pkg.sub.z", "K1", "K{n} = {v}"), (*sub, "there"), (*pkg, "there")]
    use = ("pkg.x", "import 0", "import {m}\nfrom . import sub")
    answers_as_a_fresh_process(edited, [(edit, "pkg.sub.z", 7) for edit in [use, *changes, *changes]])


def test_a_function_that_is_the_first_to_import_a_module_that_exits_can_catch_that(edited):
    fault = ("pkg.sub.z", "fault", "raise SystemExit(3)")
    function = ("pkg.x", "F0", "from pkg.sub import z\n    return z.__name__")
    answers_as_a_fresh_process(edited, [(fault, "a", 1), (function, "a", 2)])


def test_a_star_import_does_not_find_on_its_own_package_what_is_only_being_imported(edited):
    star = ("pkg.sub.z", "import 2", "from {m} import *")
    answers_as_a_fresh_process(edited, [(star, "pkg.sub", 4), (star, "pkg", 5)], ["pkg.sub.z"])


def test_a_folder_that_has_lost_all_its_files_is_imported_as_an_empty_package(edited):
    lost = [(("pkg.sub", "file", None), "a", 0), (("pkg.sub.z", "file", None), "a", 0)]
    use, idle = (("a", "import 0", "import {m}"), "pkg.sub", 0), (("a", "import 0", None), "a", 0)
    answers_as_a_fresh_process(edited, [*lost, use, idle, use])
    answers_as_a_fresh_process(edited, [lost[0], use, idle, lost[1], use, idle, *reversed(lost)])
    answers_as_a_fresh_process(edited, [(("a", "fault", "1 / 0"), "a", 0), *lost, idle, idle, idle, use])


@settings(max_examples=12, derandomize=True, **COMMON)
@given(sequence=edits, loaded=some_modules)
def test_after_any_edits_the_service_answers_as_a_process_that_was_just_started(edited, sequence, loaded):
    answers_as_a_fresh_process(edited, sequence, loaded)


@pytest.mark.long
@settings(max_examples=500, **COMMON)
@given(sequence=edits, loaded=some_modules)
def test_after_very_many_edits_the_service_answers_as_a_process_that_was_just_started(edited, sequence, loaded):
    answers_as_a_fresh_process(edited, sequence, loaded)

"""Which modules are the project's and come from the snapshot, and which all worlds share."""

import importlib
import os
import py_compile
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder

import pytest
from staged_project import Project, in_live_context

from flask_hotreload.finder import ProjectFinder
from flask_hotreload.loader import ModuleLoader
from flask_hotreload.project import read_project
from flask_hotreload.sources import Roots
from flask_hotreload.worlds import live_modules


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path / "site") as project:
        yield project


def sealed_finder(project):
    return ProjectFinder(read_project(project.roots.resolve(), {}))


def sealed(project, **options):
    """A loader of what is on disk now, and of nothing that comes later."""
    return ModuleLoader(read_project(project.roots.resolve(), {}), **options)


@pytest.mark.parametrize("live_first", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_namespace_packages_are_found_behind_a_link(tmp_path, whole, live_first):
    (tmp_path / "releases" / "42").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/42")
    with Project(tmp_path / "current") as project:
        project.write("flat/inner.py", "VALUE = 1\n")
        project.write("deep/below/inner.py", "VALUE = 2\n")
        script = project.write("api.py", "import flat.inner, deep.below.inner\n")
        if live_first:
            project.import_live("api")
        staged = sealed(project, whole=whole, scripts=[] if whole else [script]).load(script)
        assert (staged.flat.inner.VALUE, staged.deep.below.inner.VALUE) == (1, 2)


@pytest.mark.parametrize("file", ["fast{}", "fast/__init__{}"])
def test_compiled_modules_are_shared_and_come_from_the_disk(project, file):
    project.write("fast/data.txt", "")
    project.write(file.format(EXTENSION_SUFFIXES[0]), "")
    finder = sealed_finder(project)
    assert finder.find_spec("fast", None) is None
    finder.refuse_unread("fast", None)  # which it does not


@pytest.mark.parametrize("whole", [False, True])
def test_a_package_without_its_source_is_shared(project, whole):
    source = project.write("bare/__init__.py", "VALUE = 3\n")
    py_compile.compile(source, cfile=f"{source}c", doraise=True)
    os.remove(source)
    script = project.write("api.py", "import bare\n")
    for _ in range(2):  # at first nobody has imported it
        loader = sealed(project, whole=whole, scripts=[] if whole else [script])
        staged = loader.load(script)
        assert staged.bare is live_modules()["bare"]
        assert staged.bare.VALUE == 3
        loader.abort()


def test_staged_code_may_load_a_shared_module_anew(project):
    project.write("settings.py", "VALUE = 1\n")
    live = project.import_live("settings")
    script = project.write("api.py", "import importlib, settings\nimportlib.reload(settings)\n")
    project.write("settings.py", "VALUE = 20\n")
    assert sealed(project, scripts=[script]).load(script).settings is live
    assert live.VALUE == 20


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_module_that_an_import_hook_loads_is_the_hooks(project, monkeypatch, is_sealed):
    class Wrapped:
        def __init__(self, loader):
            self._loader = loader

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            self._loader.exec_module(module)
            module.HOOKED = True

    class Hook:
        def find_spec(self, name, path=None, target=None):
            if name != "hooked":
                return None
            spec = PathFinder.find_spec(name, path)
            spec.loader = Wrapped(spec.loader)
            return spec

    monkeypatch.setattr(sys, "meta_path", [Hook(), *sys.meta_path])
    project.write("hooked.py", "")
    script = project.write("api.py", "import hooked\n")
    loader = sealed(project, scripts=[script]) if is_sealed else project.loader("api.py")
    assert loader.load(script).hooked.HOOKED


@pytest.mark.parametrize(
    ("name", "file", "place"),
    [("pkg.added", "pkg/added.py", "pkg/added.py"), ("pkg.space", "pkg/space/added.py", "pkg/space")],
)
def test_what_came_later_is_refused_and_named(project, name, file, place):
    project.write("pkg/__init__.py", "")
    project.import_live("pkg")
    script = project.write("api.py", "")
    loader = sealed(project, scripts=[script])
    project.write(file, "")
    with loader.world.staging(), pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert caught.value.name == name
    assert f"{project.folder / place} is not part of what runs" in str(caught.value)
    assert in_live_context(lambda: importlib.import_module(name)).__name__ == name


def test_a_module_that_lies_nowhere_is_not_the_projects(project, monkeypatch):
    monkeypatch.setattr(PathFinder, "find_spec", lambda name, path=None: ModuleSpec(name, object()))
    sealed_finder(project).refuse_unread("odd", None)  # which it does not


def test_hidden_folders_and_an_installed_python_are_not_the_projects(tmp_path):
    hidden = tmp_path / ".heroku" / "python" / "lib" / "csv.py"
    hidden.parent.mkdir(parents=True)
    hidden.write_text("")
    roots = Roots([tmp_path]).resolve()
    assert not roots.contains(str(hidden))
    assert roots.place(str(hidden)) is None
    assert Roots([hidden.parent]).resolve().contains(str(hidden))  # unless that is the root
    library = os.path.dirname(os.__file__)
    above = Roots([os.path.dirname(library)]).resolve()
    assert above.place(os.path.realpath(os.__file__)) is None

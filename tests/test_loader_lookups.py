"""Every way to look a project module up, tried by staged code and by live code at the same time."""

import importlib.resources
import pickle
import pkgutil
import sys

import pytest
from staged_project import Project, in_live_context

from flask_hotreload.worlds import live_modules

PACKAGE = {
    "pkg/__init__.py": """
        NAME = "pkg"
        def __getattr__(name):
            if name == "lazy":
                from pkg import api
                return api.VERSION
            raise AttributeError(name)
    """,
    "pkg/sub/__init__.py": "",
    "pkg/data.txt": "data",
    "pkg/templates/page.html": "page",
    "space/inner.py": "from pkg.api import VERSION\n",
}

# Each defines look(), which tells the version of pkg.api that it finds.
LOOKUPS = {
    "import a.b": "def look():\n    import pkg.api\n    return pkg.api.VERSION",
    "import a.b as c": "def look():\n    import pkg.api as c\n    return c.VERSION",
    "from a import b": "def look():\n    from pkg import api\n    return api.VERSION",
    "from a.b import c": "def look():\n    from pkg.api import VERSION\n    return VERSION",
    "from . import b": "def look():\n    from . import api\n    return api.VERSION",
    "from .b import c": "def look():\n    from .api import VERSION as v\n    return v",
    "from .. import b": "import pkg.sub.deep\ndef look():\n    return pkg.sub.deep.look()",
    "import at the top": "import pkg.api as me\ndef look():\n    return me.VERSION",
    "a.b by a name from the top": "import pkg\ndef look():\n    return pkg.api.VERSION",
    "from a.b import *": "def look():\n    n = {}\n    exec('from pkg.api import *', n)\n    return n['VERSION']",
    "__import__": "def look():\n    return __import__('pkg.api').api.VERSION",
    "__import__ with names": "def look():\n    return __import__('pkg.api', fromlist=['x']).VERSION",
    "__import__, relative": "def look():\n    return __import__('api', globals(), None, ['x'], 1).VERSION",
    "__import__, relative, top": "def look():\n    return __import__('api', globals(), None, (), 1).VERSION",
    "__import__, the package itself": "def look():\n    return __import__('', globals(), None, (), 1).api.VERSION",
    "import_module": "import importlib\ndef look():\n    return importlib.import_module('pkg.api').VERSION",
    "import_module, relative": "import importlib\ndef look(): return importlib.import_module('.api', 'pkg').VERSION",
    "the package's attribute": "import importlib\ndef look(): return importlib.import_module('pkg').api.VERSION",
    "sys.modules": "import sys\ndef look():\n    return sys.modules['pkg.api'].VERSION",
    "sys.modules by its package": "import sys\ndef look():\n    return sys.modules['pkg'].api.VERSION",
    "sys.modules.get of __name__": "import sys\ndef look():\n    return sys.modules.get(__name__).VERSION",
    "all of sys.modules": "import sys\ndef look(): return {k: v for k, v in sys.modules.items()}['pkg.api'].VERSION",
    "pkgutil.resolve_name": "import pkgutil\ndef look():\n    return pkgutil.resolve_name('pkg.api:VERSION')",
    "find_spec": "from importlib.util import find_spec\ndef look():\n"
    "    return VERSION if find_spec('pkg.api') is __spec__ else 0",
    "from_object": "class Prod:\n    V = VERSION\nimport flask\ndef look():\n"
    "    app = flask.Flask('pkg')\n    app.config.from_object('pkg.api.Prod')\n    return app.config['V']",
    "import_string": "import werkzeug.utils as u\ndef look():\n    return u.import_string('pkg.api:VERSION')",
    "a module's __getattr__": "import pkg\ndef look():\n    return pkg.lazy",
    "get_type_hints of a class": "import typing\nclass Own: version = VERSION\nclass A:\n    x: 'Own'\n"
    "def look():\n    return typing.get_type_hints(A)['x'].version",
    "get_type_hints of a function": "import typing\nclass Own: version = VERSION\ndef f(x: 'Own'): pass\n"
    "def look():\n    return typing.get_type_hints(f)['x'].version",
    "a dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass, field, fields, KW_ONLY\n"
    "import typing\n@dataclass\nclass D:\n    c: typing.ClassVar[int] = VERSION\n    _: KW_ONLY\n"
    "    v: int = field(default_factory=lambda: VERSION)\n"
    "def look():\n    assert [f.name for f in fields(D)] == ['v']\n"
    "    assert D.__init__.__globals__['VERSION'] == VERSION\n    return D().v",
    "make_dataclass": "import dataclasses\ndef look():\n"
    "    return dataclasses.make_dataclass('M', [('v', 'int', VERSION)])().v",
    "a NamedTuple": "import typing\nclass Own: version = VERSION\nclass N(typing.NamedTuple):\n    x: 'Own'\n"
    "def look():\n    return typing.get_type_hints(N)['x'].version",
    "an Enum": "import enum, sys\nclass E(enum.Enum):\n    V = VERSION\n"
    "F = enum.Enum('F', {'V': VERSION})\ndef look():\n    return getattr(sys.modules[F.__module__], 'F').V.value",
    "a msgspec Struct": "import msgspec\nclass Inner(msgspec.Struct):\n    v: int = VERSION\n"
    "class S(msgspec.Struct):\n    inner: 'Inner'\n"
    "def look():\n    return msgspec.json.decode(b'{\"inner\":{}}', type=S).inner.v",
    "inspect.getmodule": "import inspect\nclass Own: pass\ndef look():\n    return inspect.getmodule(Own).VERSION",
    "pickle in Python": "import io, pickle\nclass P:\n    v = VERSION\ndef look():\n    f = io.BytesIO()\n"
    "    pickle._Pickler(f).dump(P())\n    f.seek(0)\n    return pickle._Unpickler(f).load().v",
    "copy.deepcopy": "import copy\nclass P:\n    v = VERSION\ndef look():\n    return copy.deepcopy(P()).v",
    "another package's module": "def look():\n    import space.inner\n    return space.inner.VERSION",
}


def source(lookup, version):
    return f"{'from __future__ import annotations' if '__future__' in lookup else ''}\nVERSION = {version}\n" + (
        lookup.replace("from __future__ import annotations\n", "")
    )


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path) as project:
        for path, text in PACKAGE.items():
            project.write(path, text)
        yield project


@pytest.mark.parametrize("whole", [False, True], ids=["dispatcher", "whole"])
@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
def test_each_context_finds_its_own_version(project, lookup, whole):
    """While it is imported too, unless no import would: a new package does not have it yet."""
    asks_early = "\ntry:\n    early = look()\nexcept AttributeError:\n    early = None\n"
    project.write("pkg/sub/deep.py", "def look():\n    from .. import api\n    return api.VERSION\n")
    project.write("pkg/api.py", source(lookup, 1) + (asks_early if whole else ""))
    live = project.import_live("pkg.api")
    if whole or "space" not in lookup:
        assert live.look() == 1
    project.write("pkg/api.py", source(lookup, 2) + asks_early)
    loader = project.loader(whole=whole)
    staged = project.load(loader, "pkg/api.py")
    assert staged.__name__ == "pkg.api"
    assert staged is not live
    expected = None if whole and live.early is None else 2
    assert staged.early == expected
    with loader.world.staging():
        assert staged.look() == 2
        assert in_live_context(live.look) == 1
        assert staged.look() == 2
    assert live.look() == 1
    loader.commit()
    assert staged.look() == in_live_context(staged.look) == 2


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
def test_after_an_abort_everybody_finds_the_old_version(project, lookup):
    project.write("pkg/sub/deep.py", "def look():\n    from .. import api\n    return api.VERSION\n")
    project.write("pkg/api.py", source(lookup, 1))
    live = project.import_live("pkg.api")
    before = live_modules().copy()
    attributes = {name: vars(module).copy() for name, module in before.items() if name.startswith(("pkg", "space"))}
    project.write("pkg/api.py", source(lookup, 2) + "\nlook()\nraise RuntimeError\n")
    loader = project.loader()
    with pytest.raises(Exception, match="RuntimeError"):
        project.load(loader, "pkg/api.py")
    loader.abort()
    own = {name for name in live_modules().keys() - before.keys() if name.startswith(("pkg", "space"))}
    assert not own
    for name, namespace in attributes.items():
        assert vars(before[name]) == namespace
    assert live.look() == 1


def test_c_pickle_sees_live_modules_only_until_the_commit(project):
    project.write("pkg/api.py", "class P:\n    v = 1\n")
    live = project.import_live("pkg.api")
    project.write("pkg/api.py", "class P:\n    v = 2\n")
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    with loader.world.staging():
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(staged.P())
        assert pickle.loads(pickle.dumps(live.P())).v == 1
    loader.commit()
    assert pickle.loads(pickle.dumps(staged.P())).v == 2


def test_a_circular_import_finds_the_staged_half(project):
    for version in (1, 2):
        project.write("pkg/a.py", f"VERSION = {version}\nfrom pkg import b\nfrom . import b as again\n")
        project.write(
            "pkg/b.py",
            f"VERSION = {version}\nfrom pkg import a\nimport pkg.a as by_path\nA = a.VERSION\nB = by_path\n",
        )
        if version == 1:
            live = project.import_live("pkg.a")
    loader = project.loader("pkg/a.py", "pkg/b.py")
    staged = project.load(loader, "pkg/a.py")
    assert (staged.b.A, staged.b.VERSION, staged.b.a) == (2, 2, staged)
    assert staged.b is staged.again is project.load(loader, "pkg/b.py")
    assert staged.b.B is staged
    assert live.b.a is live


def test_a_script_that_is_to_be_loaded_later_is_staged_for_those_before_it(project):
    project.write("pkg/models.py", "class Model: version = 1\n")
    project.write("pkg/api.py", "")
    project.import_live("pkg.models")
    project.import_live("pkg.api")
    project.write("pkg/models.py", "class Model: version = 2\n")
    for way in (
        "from .models import Model",
        "from pkg import models; Model = models.Model",
        "import pkg; Model = pkg.models.Model",
        "import sys, pkg.models; Model = sys.modules['pkg.models'].Model",
        "import importlib; Model = importlib.import_module('pkg.models').Model",
    ):
        project.write("pkg/api.py", way + "\n")
        loader = project.loader("pkg/api.py", "pkg/models.py")
        staged = project.load(loader, "pkg/api.py")
        assert staged.Model.version == 2, way
        assert project.load(loader, "pkg/models.py").Model is staged.Model
        loader.abort()


@pytest.mark.parametrize("scripts", [("pkg/__init__.py", "pkg/api.py"), ("pkg/api.py", "pkg/__init__.py")])
@pytest.mark.parametrize("announced", [True, False])
def test_a_package_that_is_staged_has_its_submodules_old_and_new(project, scripts, announced):
    project.write("pkg/api.py", "VERSION = 1\n")
    project.write("pkg/other.py", "def look():\n    import pkg.api, pkg.other\n    return pkg.api.VERSION\n")
    project.import_live("pkg.api")
    other = project.import_live("pkg.other")
    project.write("pkg/__init__.py", "NAME = 'new'\n")
    project.write("pkg/api.py", "VERSION = 2\n")
    loader = project.loader(*(scripts if announced else ()))
    for script in scripts:
        project.load(loader, script)
    with loader.world.staging():
        import pkg

        assert (pkg.NAME, pkg.api.VERSION, pkg.other, other.look()) == ("new", 2, other, 2)
        assert in_live_context(other.look) == 1
    loader.commit()
    assert live_modules()["pkg"].other is other
    assert other.look() == 2


def test_a_module_that_is_not_named_is_the_live_one(project):
    project.write("pkg/models.py", "class Model: pass\n")
    project.write("pkg/api.py", "from .models import Model\n")
    live = project.import_live("pkg.api")
    project.write("pkg/models.py", "raise RuntimeError('not to be imported')\n")
    loader = project.loader()
    assert project.load(loader, "pkg/api.py").Model is live.Model
    assert list(loader.staged) == ["pkg.api"]


def test_project_modules_that_are_imported_for_the_first_time_are_staged(project):
    project.write("pkg/api.py", "")
    project.import_live("pkg.api")
    project.write("pkg/api.py", "from pkg.new.part import value\nimport top\n")
    project.write("pkg/new/__init__.py", "from . import part\n")
    project.write("pkg/new/part.py", "value = 5\n")
    project.write("top.py", "import pkg.new.part\n")
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    assert list(loader.staged) == ["pkg.api", "pkg.new", "pkg.new.part", "top"]
    assert not {"pkg.new", "pkg.new.part", "top"} & live_modules().keys()
    assert not hasattr(live_modules()["pkg"], "new")
    loader.commit()
    assert live_modules()["top"].pkg.new.part.value == staged.value == 5


def test_third_party_and_standard_modules_are_imported_for_everybody(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("third")
    (elsewhere / "hotreload_third.py").write_text("import sys\nsys.modules['hotreload_third.inner'] = sys\n")
    (elsewhere / "hotreload_third_package").mkdir()
    (elsewhere / "hotreload_third_package" / "__init__.py").write_text("from . import part\n")
    (elsewhere / "hotreload_third_package" / "part.py").write_text("")
    sys.path.append(str(elsewhere))
    live_modules().pop("this_is_loaded_by_nobody", None)
    try:
        project.write("pkg/api.py", "import hotreload_third, hotreload_third_package.part\nimport stringprep\n")
        project.import_live("pkg")
        loader = project.loader(whole=True)
        staged = project.load(loader, "pkg/api.py")
        loader.abort()
    finally:
        sys.path.remove(str(elsewhere))
    assert live_modules()["hotreload_third"] is staged.hotreload_third
    assert "hotreload_third.inner" in live_modules()
    assert live_modules()["hotreload_third_package.part"] is staged.hotreload_third_package.part


def test_a_missing_module_is_missing_as_always(project):
    project.write(
        "pkg/api.py",
        """
        problems = []
        for statement in ("import pkg.nothing", "from pkg import nothing", "from . import nothing",
                          "import nothing_at_all", "import pkg.api.below",
                          "from ... import above", "from pkg.nothing import x"):
            try:
                exec(statement)
            except ImportError as error:
                problems.append((type(error).__name__, error.name))
        """,
    )
    live = project.import_live("pkg.api")
    loader = project.loader()
    assert project.load(loader, "pkg/api.py").problems == live.problems


def test_a_failed_optional_import_leaves_nothing_and_can_be_tried_again(project):
    project.write(
        "pkg/flaky.py", "import pkg.count\npkg.count.N += 1\nif pkg.count.N == 1: raise ImportError('once')\n"
    )
    project.write("pkg/count.py", "N = 0\n")
    project.write(
        "pkg/api.py",
        """
        import sys, pkg
        try:
            from pkg import flaky
        except ImportError:
            assert "pkg.flaky" not in sys.modules
            assert not hasattr(pkg, "flaky")
        from pkg import flaky
        """,
    )
    project.import_live("pkg")
    loader = project.loader()
    project.load(loader, "pkg/api.py")
    assert loader.staged["pkg.count"].N == 2
    assert list(loader.staged) == ["pkg.api", "pkg.count", "pkg.flaky"]


def test_a_module_may_put_another_object_in_its_place(project):
    project.write(
        "pkg/api.py",
        "import sys, types\nclass Own(types.SimpleNamespace): pass\nsys.modules[__name__] = Own(VERSION=2)\n",
    )
    project.import_live("pkg")
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    assert staged.VERSION == 2
    with loader.world.staging():
        import pkg.api

        assert pkg.api is staged
        assert sys.modules["pkg.api"] is staged
    loader.commit()
    assert live_modules()["pkg.api"] is live_modules()["pkg"].api is staged


def test_a_module_may_change_its_class(project):
    project.write(
        "pkg/api.py",
        "import sys, types\nclass M(types.ModuleType):\n    five = property(lambda s: 5)\n"
        "sys.modules[__name__].__class__ = M\n",
    )
    assert project.load(project.loader(), "pkg/api.py").five == 5


def test_a_namespace_package_under_the_root_is_the_projects(project):
    project.write("space/deep/inner.py", "VERSION = 1\n")
    live = project.import_live("space.deep.inner")
    project.write("space/deep/inner.py", "VERSION = 2\nfrom . import second\nfrom space.other import third\n")
    project.write("space/deep/second.py", "")
    project.write("space/other/third.py", "import space.deep.inner as inner\n")
    for whole in (False, True):
        loader = project.loader(whole=whole)
        staged = project.load(loader, "space/deep/inner.py")
        assert staged.third.inner is staged
        assert ("space" in loader.staged) is whole
        assert "space.other" in loader.staged
        loader.abort()
    assert live_modules()["space.deep.inner"] is live


def test_type_checking_imports_are_not_run(project):
    project.write(
        "pkg/api.py",
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import pkg.nothing\n"
        "def f(x: pkg.nothing.X) -> None: ...\n",
    )
    assert project.load(project.loader(), "pkg/api.py").f(1) is None


def test_reloading_a_staged_module_by_hand_stays_in_its_world(project):
    project.write("pkg/part.py", "VERSION = 1\n")
    live = project.import_live("pkg.part")
    project.write("pkg/part.py", "VERSION = 2\n")
    project.write("pkg/api.py", "import importlib, pkg.part\nimportlib.reload(pkg.part)\n")
    loader = project.loader("pkg/part.py", "pkg/api.py")
    assert project.load(loader, "pkg/api.py").pkg is live_modules()["pkg"]
    assert loader.staged["pkg.part"].VERSION == 2
    assert live.VERSION == 1


def test_files_beside_a_staged_module_are_found(project):
    project.write(
        "pkg/api.py",
        """
        import importlib.resources, inspect, pkgutil
        from flask import Blueprint, Flask
        app = Flask(__name__)
        blueprint = Blueprint("b", __name__, template_folder="templates")
        data = pkgutil.get_data(__name__, "data.txt")
        resource = importlib.resources.files(__package__).joinpath("data.txt").read_text()
        below = importlib.resources.files("pkg").joinpath("templates/page.html").read_text()
        text = inspect.getsource(inspect.getmodule(inspect.currentframe()))
        """,
    )
    for live_first in (False, True):
        if live_first:
            project.import_live("pkg.api")
        staged = project.load(project.loader(), "pkg/api.py")
        assert (staged.app.root_path, staged.blueprint.root_path) == (str(project.folder / "pkg"),) * 2
        assert staged.app.import_name == "pkg.api"
        assert (staged.data, staged.resource, staged.below) == (b"data", "data", "page")
        assert "import importlib.resources" in staged.text


def test_a_staged_package_finds_its_data_and_modules(project):
    project.write("pkg/box/__init__.py", "from .inside import X\n__all__ = ['inside']\n")
    project.write("pkg/box/inside.py", "X = 1\n")
    project.write("pkg/box/file.txt", "file")
    loader = project.loader()
    box = project.load(loader, "pkg/box/__init__.py")
    assert (box.__name__, box.__package__, box.__path__) == ("pkg.box", "pkg.box", [str(project.folder / "pkg/box")])
    with loader.world.staging():
        assert pkgutil.get_data("pkg.box", "file.txt") == b"file"
        assert importlib.resources.files("pkg.box").joinpath("file.txt").read_text() == "file"
        assert [found.name for found in pkgutil.iter_modules(box.__path__)] == ["inside"]
        namespace = {}
        exec("from pkg.box import *", namespace)
        assert namespace["inside"].X == 1


def test_a_module_looks_as_an_imported_one_does(project):
    file = project.write("pkg/api.py", "import sys\nframe = sys._getframe()\n")
    staged = project.load(project.loader(), "pkg/api.py")
    assert staged.__file__ == staged.__spec__.origin == staged.frame.f_code.co_filename == file
    assert (staged.__name__, staged.__package__) == ("pkg.api", "pkg")
    assert staged.__spec__.has_location
    assert staged.__spec__.loader is staged.__loader__
    loader = staged.__loader__
    assert loader.get_filename("pkg.api") == file
    assert loader.get_source("pkg.api") == "import sys\nframe = sys._getframe()\n"
    assert loader.get_data(file) == b"import sys\nframe = sys._getframe()\n"
    assert not loader.is_package("pkg.api")
    assert loader.get_code("pkg.api").co_filename == file
    assert not hasattr(staged, "__cached__")

"""One transaction's imports: once each, under which name, with nothing left behind when they fail."""

import gc
import hashlib
import inspect
import linecache
import pickle
import sys
import threading
import traceback
import typing
import weakref

import pytest
from staged_project import Project

from flask_hotreload.errors import LoadError, ReloadInvalid
from flask_hotreload.loader import ModuleLoader
from flask_hotreload.sources import Roots, Snapshot, Source
from flask_hotreload.worlds import live_modules


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path) as project:
        project.write("pkg/__init__.py", "")
        project.write("pkg/api.py", "VERSION = 1\n")
        yield project


# -- once


def test_a_script_is_imported_once_however_often_it_is_asked_for(project):
    project.write("pkg/api.py", "from pkg import count\ncount.RUNS.append(__name__)\n")
    project.write("pkg/count.py", "RUNS = []\n")
    loader = project.loader()
    module = project.load(loader, "pkg/api.py")
    (project.folder / "alias.py").symlink_to(project.folder / "pkg" / "api.py")
    assert project.load(loader, "pkg/api.py") is project.load(loader, "alias.py") is module
    assert loader.staged["pkg.count"].RUNS == ["pkg.api"]


def test_an_exclusive_module_is_its_own_under_its_own_name_in_its_package(project):
    project.write(
        "pkg/api.py", "from . import models\nimport sys\nclass C: pass\nassert sys.modules[__name__].C is C\n"
    )
    project.write("pkg/models.py", "")
    loader = project.loader()
    shared = project.load(loader, "pkg/api.py")
    mine = project.load(loader, "pkg/api.py", exclusive="/api echo")
    assert project.load(loader, "pkg/api.py", exclusive="/api echo") is mine is not shared
    other = project.load(loader, "pkg/api.py", exclusive="/api other")
    assert len({shared, mine, other}) == 3
    assert mine.__name__ == f"pkg.api__only_{hashlib.sha256(b'/api echo').hexdigest()[:12]}"
    assert mine.__package__ == "pkg"
    assert mine.models is shared.models
    loader.commit()
    assert pickle.loads(pickle.dumps(mine.C)) is mine.C
    again = project.loader()
    assert project.load(again, "pkg/api.py", exclusive="/api echo").__name__ == mine.__name__
    assert project.load(again, "pkg/api.py").__name__ == "pkg.api"


def test_exclusive_without_a_text_is_a_module_for_each_call(project):
    loader = project.loader()
    modules = [project.load(loader, "pkg/api.py", exclusive=True) for _ in range(2)]
    assert modules[0] is not modules[1]


def test_an_instance_is_made_once_for_a_module_and_a_class(project):
    project.write("pkg/api.py", "class A:\n    pass\nclass B(A):\n    pass\n")
    loader = project.loader()
    module = project.load(loader, "pkg/api.py")
    other = project.load(loader, "pkg/api.py", exclusive="x")
    assert loader.instance(module, "A") is loader.instance(module, "A")
    assert len({loader.instance(module, "A"), loader.instance(module, "B"), loader.instance(other, "A")}) == 3


def test_the_caller_may_pace_the_import_between_modules(project):
    project.write("pkg/api.py", "from . import a, b\n")
    project.write("pkg/a.py", "")
    project.write("pkg/b.py", "")
    turns = []
    loader = project.loader(give_way=lambda: turns.append(list(loader.staged)))
    project.load(loader, "pkg/api.py")
    # The package first, then each module, known by its name before it is compiled, and again before its body runs.
    assert [names[-1] for names in turns[::2]] == ["pkg", "pkg.api", "pkg.a", "pkg.b"]
    assert turns[::2] == turns[1::2]


def test_the_files_are_read_once_in_a_transaction(project):
    project.import_live("pkg.api")
    loader = project.loader("pkg/api.py")
    project.write("pkg/api.py", "VERSION = 2\n")
    assert project.load(loader, "pkg/api.py").VERSION == 1
    assert project.load(loader, "pkg/api.py", exclusive="x").VERSION == 1


def test_sources_that_another_process_has_read_need_no_disk(project):
    roots = project.roots.resolve()
    files = {
        "far/__init__.py": b"from .away import X\n",
        "far/away.py": b"X = 5\n",
        "far/space/inner.py": b"from far import X\n",
    }
    paths = {path: str(project.folder / path) for path in files}
    snapshot = Snapshot(roots, {paths[f]: Source(paths[f], data) for f, data in files.items()}, sealed=True)
    loader = ModuleLoader(snapshot, whole=True)
    assert loader.load(paths["far/__init__.py"]).X == 5
    assert loader.load(paths["far/space/inner.py"]).X == 5
    assert list(loader.staged) == ["far", "far.away", "far.space", "far.space.inner"]


def test_kept_modules_are_shared_by_all_generations(project):
    project.write("pkg/store/__init__.py", "from . import inner\n")
    project.write("pkg/store/inner.py", "")
    project.write("pkg/api.py", "import pkg.store\nfrom pkg.store import inner\n")
    live = project.import_live("pkg.api")
    loader = project.loader(whole=True, keep=["pkg.store"])
    staged = project.load(loader, "pkg/api.py")
    assert staged.pkg is not live.pkg
    assert staged.pkg.store is live.pkg.store
    assert staged.inner is live.inner
    loader.commit()
    assert live_modules()["pkg.store"] is live.pkg.store


# -- names


def test_a_loaded_file_is_staged_under_the_name_it_has(project):
    project.write("pkg/app.py", "")
    sys.path.insert(0, str(project.folder / "pkg"))
    try:
        project.import_live("app")  # not pkg.app: that is how this process knows it
        assert project.load(project.loader(), "pkg/app.py").__name__ == "app"
    finally:
        sys.path.remove(str(project.folder / "pkg"))


def test_the_file_run_as_main_is_staged_under_its_own_name(project, monkeypatch):
    from types import ModuleType

    main = ModuleType("__main__")
    main.__file__ = project.write("serve.py", "NAME = __name__\n")
    monkeypatch.setitem(live_modules(), "__main__", main)
    loader = project.loader()
    assert project.load(loader, "serve.py").NAME == "serve"
    with loader.world.staging():
        assert sys.modules["__main__"] is main
    loader.commit()
    assert live_modules()["__main__"] is main


def test_a_package_run_as_main_is_staged_under_its_full_name(project, monkeypatch):
    from importlib.util import spec_from_file_location
    from types import ModuleType

    file = project.write("pkg/__main__.py", "from . import api\nNAME = __name__\n")
    main = ModuleType("__main__")
    main.__file__, main.__spec__ = file, spec_from_file_location("pkg.__main__", file)
    monkeypatch.setitem(live_modules(), "__main__", main)
    assert project.load(project.loader(), "pkg/__main__.py").NAME == "pkg.__main__"


@pytest.mark.parametrize(
    ("script", "name"),
    [("pkg/api.py", "pkg.api"), ("pkg/__init__.py", "pkg"), ("single.py", "single"), ("space/x.py", "space.x")],
)
def test_a_file_that_was_never_imported_gets_the_name_by_which_it_can_be(project, script, name):
    project.write("single.py", "")
    project.write("space/x.py", "")
    assert project.load(project.loader(), script).__name__ == name


@pytest.mark.parametrize("script", ["queue.py", "a/handlers.py", "my-script.py", "json.py"])
def test_a_file_without_a_name_of_its_own_gets_a_private_one(project, tmp_path, script):
    other = project.write("handlers.py", "WHO = 'other'\n")
    file = project.write(script, "import dataclasses, typing\n@dataclasses.dataclass\nclass C:\n    x: 'C' = None\n")
    if script.startswith("a/"):
        sys.path.insert(0, str(project.folder / "a"))
        sys.path.insert(0, str(project.folder))
        live_modules()["a"] = sys  # somebody else's
    try:
        live = project.import_live("handlers")
        loader = project.loader()
        module = project.load(loader, script)
    finally:
        if script.startswith("a/"):
            sys.path[:] = [entry for entry in sys.path if entry != str(project.folder / "a")]
            sys.path.remove(str(project.folder))
    stem = script.rpartition("/")[2].removesuffix(".py").replace("-", "_")
    assert module.__name__ == f"_hotreload_{stem}_{hashlib.sha256(script.encode()).hexdigest()[:12]}"
    assert module.__file__ == file
    loader.commit()
    assert live_modules()[module.__name__] is module
    assert live.__file__ == other
    assert pickle.loads(pickle.dumps(module.C())) == module.C()
    assert typing.get_type_hints(module.C) == {"x": module.C}
    again = project.loader()
    assert project.load(again, script).__name__ == module.__name__
    import queue

    assert queue.Queue


def test_two_files_of_one_name_are_two_modules(project):
    for folder in ("a", "b"):
        project.write(f"{folder}.d/handlers.py", f"WHO = {folder!r}\n")
    loader = project.loader()
    modules = [project.load(loader, f"{folder}.d/handlers.py") for folder in ("a", "b")]
    assert [module.WHO for module in modules] == ["a", "b"]
    assert modules[0].__name__ != modules[1].__name__
    loader.commit()
    assert all(live_modules()[module.__name__] is module for module in modules)


def test_a_module_keeps_its_name_and_its_new_files_when_the_release_link_is_switched(tmp_path):
    for release in (41, 42):
        folder = tmp_path / "releases" / str(release) / "service"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "api.py").write_text(f"from . import extra{release}\nVERSION = {release}\n")
        (folder / f"extra{release}.py").write_text("")
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "releases" / "41")
    roots = Roots([current])
    with Project(tmp_path / "releases" / "41") as project:  # as a server that resolved its working folder does
        live = project.import_live("service.api")
        current.unlink()
        current.symlink_to(tmp_path / "releases" / "42")
        loader = ModuleLoader(Snapshot(roots.resolve()))
        staged = loader.load(current / "service" / "api.py")
        assert (staged.__name__, staged.VERSION) == ("service.api", 42)
        assert staged.extra42.__file__ == staged.__file__.replace("api.py", "extra42.py")
        assert live.VERSION == 41


# -- failures


FAILURES = {
    "exception": ("x = 1\n1 / 0\n", 2, ZeroDivisionError),
    "exit": ("import sys\nsys.exit(3)\n", 2, SystemExit),
    "interrupt": ("raise KeyboardInterrupt\n", 1, KeyboardInterrupt),
    "generator exit": ("\nraise GeneratorExit\n", 2, GeneratorExit),
    "own base exception": ("class E(BaseException): pass\n\nraise E\n", 3, BaseException),
    "syntax": ("x = 1\ndef f(:\n", 2, SyntaxError),
    "not utf-8": ("x = 1\n# caf\udce9\n", 2, SyntaxError),
    "null": ("x = 1\n\0\n", 2, SyntaxError),
    "missing import": ("\n\nimport pkg.nothing\n", 3, ModuleNotFoundError),
    "below": ("import pkg.broken\n", 2, ValueError),
    "below, syntax": ("import pkg.unreadable\n", 3, SyntaxError),
    "in the library": ("import json\n\njson.loads('{')\n", 3, ValueError),
    "takes itself away": ("import sys\ndel sys.modules[__name__]\n", None, ImportError),
    "message without text": ("class E(Exception):\n    def __str__(self): 1/0\nraise E\n", 3, Exception),
    "an error with a cause": ("try:\n    1/0\nexcept Exception as e:\n    raise KeyError('k') from e\n", 4, KeyError),
    "out of stack": ("def f(): f()\nf()\n", 1, RecursionError),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_goes_wrong_is_a_load_error_and_nothing_live_has_changed(project, failure):
    text, line, kind = FAILURES[failure]
    live = project.import_live("pkg.api")
    before = live_modules().copy()
    package = vars(before["pkg"]).copy()
    lines = linecache.cache.copy()
    threads, path = threading.enumerate(), sys.path.copy()
    project.write("pkg/broken.py", "def f():\n    raise ValueError('below')\nf()\n")
    project.write("pkg/unreadable.py", "\n\nx = = 1\n")
    file = project.folder / "pkg" / "api.py"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    loader = project.loader()
    with pytest.raises(LoadError) as caught:
        project.load(loader, "pkg/api.py")
    loader.abort()
    error = caught.value
    assert isinstance(error.original, kind)
    below = {"below": "broken.py", "below, syntax": "unreadable.py"}.get(failure, "api.py")
    assert error.file == str(file.with_name(below))
    assert error.line == line
    place = error.file if line is None else f"{error.file}:{line}"
    assert str(error).startswith(f"{place}: {type(error.original).__name__}")
    assert pickle.loads(pickle.dumps(LoadError(str(error), file=error.file, line=error.line))).line == error.line
    assert loader.staged == {}
    assert {n for n in live_modules().keys() - before.keys() if n.startswith("pkg")} == set()
    assert live_modules()["pkg.api"] is live
    assert vars(live_modules()["pkg"]) == package
    assert linecache.cache.get(str(file)) == lines.get(str(file))
    assert (threading.enumerate(), sys.path) == (threads, path)


def test_the_traceback_quotes_the_lines_that_ran_and_hides_the_machinery(project):
    file = project.write(
        "pkg/api.py",
        "from pkg.low import f\ntry:\n    f()\nexcept KeyError as e:\n    raise TypeError('up') from e\n",
    )
    project.write("pkg/low.py", "def f():\n    raise KeyError('deep')  # the line that ran\n")
    loader = project.loader("pkg/api.py", "pkg/low.py")
    for path in ("pkg/api.py", "pkg/low.py"):
        project.write(path, "something = 'else'\n" * 9)
    with pytest.raises(LoadError) as caught:
        loader.load(file)
    text = caught.value.traceback
    assert "raise KeyError('deep')  # the line that ran" in text
    assert "raise TypeError('up') from e" in text
    assert text.index("KeyError") < text.index("TypeError: up")
    assert text.endswith("TypeError: up\n")
    assert "something" not in text
    assert "flask_hotreload" not in text
    assert "importlib" not in text


def test_a_load_error_holds_no_tracebacks_of_new_code(project):
    project.write("pkg/api.py", "try:\n    1/0\nexcept Exception as e:\n    raise KeyError('k') from e\n")
    with pytest.raises(LoadError) as caught:
        project.load(project.loader(), "pkg/api.py")
    assert caught.value.original.__traceback__ is None
    assert caught.value.original.__cause__.__traceback__ is None


@pytest.mark.parametrize("path", ["../outside.py", "pkg", "site-packages/x.py"])
def test_a_script_that_may_not_be_loaded_is_the_documents_fault(project, path):
    project.write("site-packages/x.py", "")
    for ask in (lambda: project.loader(path), lambda: project.load(project.loader(), path)):
        with pytest.raises(ReloadInvalid):
            ask()


def test_a_missing_script_is_named(project):
    for ask in (lambda: project.loader("pkg/no.py"), lambda: project.load(project.loader(), "pkg/no.py")):
        with pytest.raises(LoadError) as caught:
            ask()
        assert caught.value.file == str(project.folder / "pkg" / "no.py")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "not there"), ("A = 5\n", "no class"), ("def A(): pass\n", "no class")],
)
def test_a_class_that_is_not_there_is_a_load_error(project, text, reason):
    project.write("pkg/api.py", text)
    loader = project.loader()
    with pytest.raises(LoadError, match=reason) as caught:
        loader.instance(project.load(loader, "pkg/api.py"), "A")
    assert caught.value.file == str(project.folder / "pkg" / "api.py")


def test_a_constructor_that_raises_is_a_load_error_with_its_line(project):
    project.write("pkg/api.py", "class A:\n    def __init__(self):\n        raise SystemExit('no')\n")
    loader = project.loader()
    with pytest.raises(LoadError) as caught:
        loader.instance(project.load(loader, "pkg/api.py"), "A")
    assert (caught.value.line, str(caught.value.original)) == (3, "no")


# -- commit and abort


def test_a_commit_puts_new_modules_in_place_and_on_their_packages(project):
    project.import_live("pkg.api")
    project.write("pkg/api.py", "VERSION = 2\nfrom .new import part\n")
    project.write("pkg/new/__init__.py", "")
    project.write("pkg/new/part.py", "")
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    names = list(loader.staged)
    loader.commit()
    import pkg.api

    assert pkg.api is staged
    assert pkg.new.part is staged.part is live_modules()["pkg.new.part"]
    assert list(loader.staged) == names == ["pkg.api", "pkg.new", "pkg.new.part"]


def test_after_a_commit_tracebacks_quote_the_source_that_runs(project):
    file = project.write("pkg/api.py", "def f():\n    return 1\n")
    live = project.import_live("pkg.api")
    assert inspect.getsource(live.f) == "def f():\n    return 1\n"
    before = linecache.cache.get(file)
    project.write("pkg/api.py", "def f():\n    raise KeyError  # new\n")
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    assert linecache.cache.get(file) == before
    loader.commit().quote()
    project.write("pkg/api.py", "# edited again, not reloaded\n" * 5)
    with pytest.raises(KeyError) as caught:
        staged.f()
    assert "raise KeyError  # new" in "".join(traceback.format_exception(caught.value))
    assert inspect.getsource(staged.f) == "def f():\n    raise KeyError  # new\n"


def test_no_bytecode_is_read_or_written(project):
    import os
    import py_compile

    file = project.write("pkg/api.py", "VERSION = 1\n")
    sys.dont_write_bytecode = False
    stale = py_compile.compile(file)
    times = os.stat(file)
    project.write("pkg/api.py", "VERSION = 2\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time: the .pyc looks fresh
    project.write("pkg/fresh.py", "from .api import VERSION\n")
    staged = project.load(project.loader(), "pkg/fresh.py")
    assert staged.VERSION == 2
    assert os.listdir(os.path.dirname(stale)) == [os.path.basename(stale)]


def test_an_abort_leaves_no_new_module_alive(project):
    project.import_live("pkg.api")
    project.write(
        "pkg/api.py",
        "from . import fresh\nfrom dataclasses import dataclass\n@dataclass\nclass C:\n    x: 'C' = None\nc = C()\n",
    )
    project.write("pkg/fresh.py", "from . import api\n")
    loader = project.loader()
    project.load(loader, "pkg/api.py")
    loader.instance(loader.staged["pkg.api"], "C")
    dead = [weakref.ref(module) for module in loader.staged.values()]
    assert len(dead) == 2
    loader.abort()
    gc.collect()
    assert [ref() for ref in dead] == [None, None]


def test_a_failed_import_leaves_no_new_module_alive(project):
    project.import_live("pkg.api")
    project.write("pkg/api.py", "from . import fresh\nclass E(Exception): pass\nraise E\n")
    project.write("pkg/fresh.py", "")
    loader = project.loader()
    with pytest.raises(LoadError) as caught:
        project.load(loader, "pkg/api.py")
    fresh = weakref.ref(loader.staged["pkg.fresh"])
    loader.abort()
    error = caught.value
    del caught
    gc.collect()
    assert fresh() is None
    assert type(error.original).__name__ == "E"


def test_old_modules_go_when_nobody_is_pinned_to_them(project):
    dead = [weakref.ref(project.import_live("pkg.api"))]
    for version in range(2, 8):
        project.write("pkg/api.py", f"VERSION = {version}\nimport pkg.api\n")
        loader = project.loader()
        dead.append(weakref.ref(project.load(loader, "pkg/api.py")))
        loader.commit()
    del loader
    gc.collect()
    assert [ref() is None for ref in dead] == [True] * 6 + [False]


def test_a_module_keeps_only_its_own_source_alive(project):
    project.write("pkg/other.py", "")
    loader = project.loader("pkg/api.py", "pkg/other.py")
    module = project.load(loader, "pkg/api.py")
    snapshot = weakref.ref(loader._snapshot)
    loader.commit()
    del loader
    gc.collect()
    assert snapshot() is None
    assert module.__loader__.get_source("pkg.api") == "VERSION = 1\n"


def test_an_import_that_hangs_changes_nothing_when_it_ends_after_the_abort(project):
    from types import ModuleType

    live = project.import_live("pkg.api")
    live_modules()["hotreload_hang"] = holder = ModuleType("hotreload_hang")
    holder.inside, holder.go_on = threading.Event(), threading.Event()
    project.write(
        "pkg/api.py",
        "import sys, hotreload_hang as h\nh.inside.set()\nh.go_on.wait(30)\n"
        "sys.modules['pkg.api'] = 5\nsys.modules['pkg'].api = 5\nimport pkg.more\n",
    )
    project.write("pkg/more.py", "")
    loader = project.loader()
    errors = []

    def work():
        try:
            project.load(loader, "pkg/api.py")
        except LoadError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert holder.inside.wait(30)
    loader.abort()
    holder.go_on.set()
    thread.join(30)
    assert "is over" in str(errors[0])
    assert errors[0].line == 6
    assert live_modules()["pkg.api"] is live_modules()["pkg"].api is live
    assert "pkg.more" not in live_modules()
    assert loader.staged == {}


def test_routes_in_a_module_that_is_reloaded_alone_leave_flasks_error_to_the_caller(project):
    project.write("pkg/app.py", "from flask import Flask\napp = Flask(__name__)\n")
    project.write("pkg/views.py", "from .app import app\n@app.get('/')\ndef index():\n    return 'ok'\n")
    live = project.import_live("pkg.views")
    assert live.app.test_client().get("/").text == "ok"
    loader = project.loader()
    with pytest.raises(LoadError) as caught:
        project.load(loader, "pkg/views.py")
    assert isinstance(caught.value.original, AssertionError)
    assert "setup method" in str(caught.value.original)
    assert (caught.value.file, caught.value.line) == (live.__file__, 2)
    assert live.app.test_client().get("/").text == "ok"

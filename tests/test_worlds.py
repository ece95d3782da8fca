"""Two worlds of modules: what a live context sees, what a staging one sees, and how the hooks come and go."""

import builtins
import copy
import gc
import importlib
import os
import subprocess
import sys
import threading
from types import ModuleType

import pytest
from staged_project import Project, in_live_context

from flask_hotreload import interpreter as interpreter_module
from flask_hotreload import worlds as worlds_module
from flask_hotreload.modules_view import ModulesView
from flask_hotreload.worlds import ABSENT, World, current, live_modules, set_pinned


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path) as project:
        project.write("pkg/__init__.py", "")
        project.write("pkg/api.py", "VERSION = 1\n")
        yield project


@pytest.fixture
def pinned():
    """A cell for the world that the contexts of this test are pinned to."""
    cell, before = [None], interpreter_module._pinned
    set_pinned(lambda: cell[0])
    yield cell
    set_pinned(before)


@pytest.fixture(autouse=True)
def _no_world_of_other_tests():
    if interpreter_module.interpreter.installs:
        gc.collect()
    assert not interpreter_module.interpreter.installs


class NoProject:
    """A finder of a project without files."""

    targets = {}  # noqa: RUF012  # never changed
    foreign = frozenset()
    edition = None

    def owns(self, module):
        return False

    def find_spec(self, name, path):
        return None

    def refuse_unread(self, name, path):
        pass


@pytest.fixture
def installed():
    """The hooks are in place, and the calling context is a live one."""
    world = World(NoProject())
    with world.installed():
        yield world


# -- the hooks come and go


def test_the_interpreter_is_as_before_after_the_last_uninstall():
    before = sys.modules, builtins.__import__, list(sys.meta_path)
    worlds = World(NoProject()), World(NoProject(), fallback=False)
    for world in worlds:
        world.install()
    worlds[0].uninstall()
    assert isinstance(sys.modules, ModulesView)
    assert builtins.__import__ is not before[1]
    worlds[1].uninstall()
    assert sys.modules is before[0]
    assert (builtins.__import__, list(sys.meta_path)) == before[1:]


def test_uninstall_without_install_is_refused():
    with pytest.raises(RuntimeError):
        World(NoProject()).uninstall()


def test_an_import_hook_that_others_put_on_top_stays():
    original = builtins.__import__
    calls = []
    world = World(NoProject())
    world.install()
    below = builtins.__import__

    def theirs(*args, **kwargs):
        calls.append(args[0])
        return below(*args, **kwargs)

    builtins.__import__ = theirs
    try:
        world.uninstall()
        assert builtins.__import__ is theirs
        with world.installed():
            # Ours is underneath already; it is not piled up.
            assert builtins.__import__ is theirs
        import json  # noqa: F401

        assert calls == ["json"]
    finally:
        builtins.__import__ = below
    world.install()
    world.uninstall()
    assert builtins.__import__ is original


def test_installs_of_many_threads_end_with_everything_restored():
    before = sys.modules, builtins.__import__, list(sys.meta_path)
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(200):
            with World(NoProject()).staging():
                assert sys.modules["sys"] is sys
                import json  # noqa: F401

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.modules is before[0]
    assert (builtins.__import__, list(sys.meta_path)) == before[1:]


def test_another_thread_that_is_half_through_the_finders_misses_none():
    seen = []
    finders = sys.meta_path
    world = World(NoProject())
    world.install()
    inside = iter(sys.meta_path)
    next(inside)
    world.uninstall()
    seen.extend(inside)
    assert seen == list(finders)


def test_a_world_that_is_left_is_no_longer_current():
    world, inner = World(NoProject()), World(NoProject())
    with world.staging():
        with inner.staging():
            assert current() is inner
        assert current() is world
        assert in_live_context(current) is None
    assert current() is None


# -- sys.modules, seen by a live context


def test_a_live_context_sees_exactly_the_interpreters_dictionary(installed):
    view, real = sys.modules, live_modules()
    assert isinstance(view, dict)
    assert view is not real
    assert view == real
    assert real == view
    assert (view != real) is False
    assert list(view) == list(real)
    assert list(reversed(view)) == list(reversed(real))
    assert len(view) == len(real)
    assert bool(view)
    assert dict(view) == {**view} == view.copy() == copy.copy(view) == real
    assert type(view.copy()) is dict
    assert list(view.items()) == list(real.items())
    assert list(view.keys()) == list(real)
    assert list(view.values()) == list(real.values())
    assert repr(view) == repr(real)
    assert view | {} == {} | view == real
    assert "sys" in view
    assert view.get("sys") is view["sys"] is sys
    assert view.get("no-such-module") is None
    assert view.get("no-such-module", 5) == 5
    assert (view == {}) is False
    with pytest.raises(KeyError):
        view["no-such-module"]
    with pytest.raises(TypeError):
        hash(view)


def test_what_a_live_context_writes_is_in_the_interpreters_dictionary(installed):
    view, real = sys.modules, live_modules()
    one, two = ModuleType("hotreload_one"), ModuleType("hotreload_two")
    view["hotreload_one"] = one
    assert real["hotreload_one"] is one
    assert view.setdefault("hotreload_one", two) is one
    assert view.setdefault("hotreload_two", two) is two
    assert view.popitem() == ("hotreload_two", two)
    assert view.pop("hotreload_one") is one
    assert view.pop("hotreload_one", None) is None
    with pytest.raises(KeyError):
        view.pop("hotreload_one")
    view.update(hotreload_one=one)
    view |= {"hotreload_two": two}
    assert view is sys.modules
    del view["hotreload_one"], view["hotreload_two"]
    with pytest.raises(KeyError):
        del view["hotreload_two"]
    assert not {"hotreload_one", "hotreload_two"} & real.keys()


def test_a_view_that_somebody_kept_works_on_after_the_uninstall():
    with World(NoProject()).installed():
        kept = sys.modules
    assert kept["sys"] is sys
    assert kept == sys.modules


def test_a_blocked_name_stays_blocked_for_everybody(project):
    live_modules()["hotreload_blocked"] = None
    project.import_live("pkg.api")
    world = project.loader("pkg/api.py").world
    with world.staging(), pytest.raises(ModuleNotFoundError, match="halted"):
        import hotreload_blocked
    with world.installed(), pytest.raises(ModuleNotFoundError, match="halted"):
        import hotreload_blocked  # noqa: F401
    with world.staging():
        sys.modules["pkg.api"] = None
        with pytest.raises(ModuleNotFoundError, match="halted"):
            from pkg.api import VERSION  # noqa: F401
    assert live_modules()["pkg.api"].VERSION == 1


# -- sys.modules, seen by a staging context


def test_a_staging_context_writes_project_names_for_itself_and_others_for_all(project):
    live = project.import_live("pkg.api")
    world = project.loader("pkg/api.py").world
    staged, other = ModuleType("pkg.api"), ModuleType("hotreload_other")
    with world.staging():
        sys.modules["pkg.api"] = staged
        sys.modules["hotreload_other"] = other
        assert sys.modules["pkg.api"] is staged
        assert dict(sys.modules)["pkg.api"] is staged
        assert in_live_context(lambda: sys.modules["pkg.api"]) is live
        assert in_live_context(lambda: sys.modules["hotreload_other"]) is other
        del sys.modules["hotreload_other"]
    assert live_modules()["pkg.api"] is live
    assert "hotreload_other" not in live_modules()


def test_a_name_that_staged_code_deletes_is_gone_for_it_alone_and_imports_anew(project):
    project.write("pkg/other.py", "RUNS = []\n")
    live = project.import_live("pkg.other")
    world = project.loader("pkg/api.py").world
    with world.staging():
        assert sys.modules["pkg.other"] is live
        del sys.modules["pkg.other"]
        assert "pkg.other" not in sys.modules
        assert "pkg.other" not in list(sys.modules)
        assert len(sys.modules) == len(list(sys.modules))
        assert in_live_context(lambda: sys.modules["pkg.other"]) is live
        with pytest.raises(KeyError):
            del sys.modules["pkg.other"]
        import pkg.other

        assert pkg.other is sys.modules["pkg.other"] is not live
        assert in_live_context(lambda: importlib.import_module("pkg").other) is live


def test_a_module_that_staged_code_makes_up_is_seen_by_staged_code_alone(project):
    project.write(
        "pkg/api.py",
        """
        import sys, types
        sys.modules["hotreload_alias"] = sys.modules[__name__]
        sys.modules.setdefault("hotreload_made_up", types.ModuleType("hotreload_made_up"))
        import hotreload_alias, hotreload_made_up
        """,
    )
    loader = project.loader()
    project.load(loader, "pkg/api.py")
    assert not {"hotreload_alias", "hotreload_made_up"} & live_modules().keys()
    loader.commit()
    assert live_modules()["hotreload_alias"] is live_modules()["pkg.api"]


def test_without_fallback_no_live_project_module_is_seen(project):
    live = project.import_live("pkg.api")
    world = project.loader(whole=True).world
    with world.staging():
        assert "pkg" not in sys.modules
        assert "pkg.api" not in sys.modules
        assert "pytest" in sys.modules
        import pkg.api

        assert pkg.api is not live
        assert pkg is not live_modules()["pkg"]
        assert importlib.import_module("pytest") is pytest
    assert live_modules()["pkg.api"] is live


# -- packages that both worlds share


def test_a_shared_package_is_one_object_whose_submodule_depends_on_the_context(project):
    live = project.import_live("pkg.api")
    package = live_modules()["pkg"]
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    assert type(package) is ModuleType
    with loader.world.staging():
        import pkg

        assert pkg is package
        assert package.api is staged
        assert in_live_context(lambda: package.api) is live
        assert isinstance(package, ModuleType)
        package.api = "overwritten here"
        assert package.api == "overwritten here"
        assert in_live_context(lambda: package.api) is live
        del package.api
        assert not hasattr(package, "api")
        assert in_live_context(lambda: hasattr(package, "api"))
    assert package.api is live
    assert type(package) is ModuleType


def test_a_live_context_can_rebind_the_submodule_of_a_shared_package(project):
    project.import_live("pkg.api")
    package = live_modules()["pkg"]
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    with loader.world.staging():

        def rebind():
            package.api = "live"
            assert package.api == "live"
            del package.api
            assert not hasattr(package, "api")
            with pytest.raises(AttributeError):
                del package.api
            package.api = "live again"

        in_live_context(rebind)
        assert package.api is staged
    assert package.api == "live again"


def test_a_package_with_a_type_and_a_getattr_of_its_own_keeps_them(project):
    project.write(
        "pkg/__init__.py",
        """
        import sys, types
        class Special(types.ModuleType):
            kind = "special"
        sys.modules[__name__].__class__ = Special
        def __getattr__(name):
            if name == "lazy":
                return "lazily"
            raise AttributeError(name)
        """,
    )
    project.import_live("pkg.api")
    package = live_modules()["pkg"]
    special = type(package)
    loader = project.loader()
    staged = project.load(loader, "pkg/api.py")
    with loader.world.staging():
        assert package.api is staged
        assert (package.kind, package.lazy) == ("special", "lazily")
        assert isinstance(package, special)
        assert not hasattr(package, "missing")
    assert type(package) is special


def test_a_package_that_shows_something_else_under_the_name_still_does(project):
    project.write("pkg/__init__.py", "from .api import api\n")
    project.write("pkg/api.py", "def api(): return 1\n")
    package = project.import_live("pkg")
    function = package.api
    project.write("pkg/user.py", "from pkg import api\nimport pkg.api\nfrom .api import api as new\n")
    project.write("pkg/api.py", "def api(): return 2\n")
    loader = project.loader("pkg/api.py", "pkg/user.py")
    user = project.load(loader, "pkg/user.py")
    assert user.api is function
    assert user.new() == 2
    loader.commit()
    assert package.api is function


# -- circles: what is imported is bound on its package when its import has ended, not before

#: What ``pkg.deep.user`` may ask for while it is imported by ``pkg.child``.
ASKED_IN_A_CIRCLE = {
    "from": "from pkg import child\nsaw = child.__name__",
    "from, relative": "from .. import child\nsaw = child.__name__",
    "from, several": "from pkg import NAME, child as c, other as o\nsaw = NAME, c.__name__, o.__name__",
    "from, of itself": "from pkg.deep import user\nsaw = user.__name__",
    "from, missing": "try:\n    from pkg import child, missing\nexcept ImportError as e:\n    saw = str(e)[:27]",
    "from, not yet": "try:\n    from pkg.child import LATER\nexcept ImportError as e:\n    saw = e.name",
    "import": "import pkg.child\nsaw = hasattr(pkg, 'child')",
    "import as": "import pkg.child as c\nsaw = c.__name__",
    "import as, of itself": "import pkg.deep.user as c\nsaw = c.__name__",
    "import as, of neither": "import pkg.deep.other as c\nsaw = c.me is c, c.deep.__name__",
    "star": "from pkg import *\nsaw = 'child' in globals(), 'deep' in globals(), 'other' in globals()",
    "star of itself": "from pkg.deep import *\nsaw = 'user' in globals(), 'other' in globals()",
    "hasattr": "import pkg\nsaw = hasattr(pkg, 'child'), 'child' in dir(pkg), 'child' in vars(pkg)",
    "hasattr after from": "import pkg\nfrom pkg import child\nsaw = hasattr(pkg, 'child'), type(pkg).__name__",
    "hasattr after import as": "import pkg\nimport pkg.child as c\nsaw = hasattr(pkg, 'child'), type(pkg).__name__",
    "import_module": "import importlib\nsaw = importlib.import_module('pkg.child').__name__",
    "from after import_module": "import importlib\nimportlib.import_module('pkg.named')\nfrom pkg.named import saw",
    "__import__": "import pkg\nsaw = __import__('pkg', globals(), None, ['child'], 0) is pkg",
    "__import__, top": "import pkg\nsaw = __import__('pkg.child') is pkg",
    "many names": "\n".join(f"v{n} = {n}" for n in range(300)) + "\nfrom pkg import child as c\nsaw = c.__name__",
    "many names, as": "\n".join(f"v{n} = {n}" for n in range(300)) + "\nimport pkg.child as c\nsaw = c.__name__",
    "exec": "exec('import pkg.child as c', globals())\nsaw = c.__name__",
    "a function": "def f():\n    global c, child\n    import pkg.child as c\n    from pkg import child\nsaw = f()",
}


@pytest.mark.parametrize("asked", ASKED_IN_A_CIRCLE.values(), ids=ASKED_IN_A_CIRCLE)
@pytest.mark.parametrize("hooks", [0, 2])
def test_a_circle_of_new_modules_shows_what_it_shows_in_a_process_that_was_just_started(project, asked, hooks):
    """Whether or not others have hooked ``__import__`` meanwhile."""
    project.write("pkg/__init__.py", "NAME = 'pkg'\nfrom pkg import other\n")
    project.write("pkg/other.py", "")
    project.write("pkg/child.py", "import pkg.deep.user as user\nLATER = 1\n")
    project.write("pkg/named.py", "import pkg.back\nsaw = pkg.back.saw\n")
    project.write("pkg/back.py", "from pkg import named\nimport pkg.named as again\nsaw = named is again\n")
    project.write("pkg/deep/__init__.py", "import pkg.deep.other\n")
    project.write("pkg/deep/other.py", "import pkg.deep as deep, pkg.deep.other as me\n")
    project.write("pkg/deep/user.py", f"{asked}\n")
    live = project.import_live("pkg.child")
    loader = project.loader(whole=True)
    with loader.world.installed(), pytest.MonkeyPatch.context() as patch:
        for _ in range(hooks):
            patch.setattr(builtins, "__import__", hooked(builtins.__import__))
        staged = project.load(loader, "pkg/child.py")
    assert staged.user.saw == live.user.saw
    assert staged.user is not live.user
    for name, module in loader.staged.items():
        assert {*vars(module), "__cached__"} == {*vars(live_modules()[name]), "__cached__"}
        for value in vars(module).values():
            assert not isinstance(value, ModuleType) or value is loader.staged.get(value.__name__, value)


def hooked(below):
    """An import hook of somebody else, on top of that ``below``."""

    def their_import(*args, **options):
        return below(*args, **options)

    return their_import


def test_a_module_that_fails_leaves_on_a_new_package_what_was_there(project):
    project.write("pkg/__init__.py", "bad = 'an attribute'\n")
    project.write("pkg/bad.py", "import pkg\nassert pkg.bad == 'an attribute'\n1 / 0\n")
    project.write(
        "pkg/api.py", "import pkg\ntry:\n    import pkg.bad\nexcept ZeroDivisionError:\n    seen = pkg.bad\n"
    )
    assert project.load(project.loader(whole=True), "pkg/api.py").seen == "an attribute"


def test_who_takes_a_module_from_its_new_package_waits_while_another_thread_imports_it(project):
    project.import_live("pkg")
    live_modules()["hotreload_half"] = holder = ModuleType("hotreload_half")
    holder.inside, holder.go_on = threading.Event(), threading.Event()
    project.write("pkg/slow.py", "import hotreload_half as h\nh.inside.set()\nh.go_on.wait(30)\ndone = True\n")
    world = project.loader(whole=True).world
    seen = []

    def take():
        with world.staging():
            from pkg import slow

            seen.append(slow.done)

    threads = [threading.Thread(target=take) for _ in range(2)]
    threads[0].start()
    assert holder.inside.wait(30)
    threads[1].start()
    while not world._waiting and threads[1].is_alive():  # nothing else tells that the second thread waits
        threads[1].join(0.001)
    holder.go_on.set()
    for thread in threads:
        thread.join(30)
    assert seen == [True, True]


# -- generations


def test_a_committed_world_is_the_live_one_for_contexts_still_in_it(project):
    project.import_live("pkg.api")
    loader = project.loader()
    with loader.world.staging():
        first = project.load(loader, "pkg/api.py")
        loader.commit()
        assert current() is None
        assert sys.modules["pkg.api"] is first
        second_loader = project.loader()

        def reload_once_more():
            project.load(second_loader, "pkg/api.py")
            second_loader.commit()

        in_live_context(reload_once_more)
        assert sys.modules["pkg.api"] is second_loader.staged["pkg.api"] is not first


def test_a_pinned_context_goes_on_in_its_generation(project, pinned):
    old = project.import_live("pkg.api")
    package = live_modules()["pkg"]
    project.write("pkg/api.py", "VERSION = 2\nfrom . import fresh\n")
    project.write("pkg/fresh.py", "from .api import VERSION\n")
    loader = project.loader()
    new = project.load(loader, "pkg/api.py")
    past = loader.commit().past()
    assert package.api is new
    with past.installed():
        pinned[0] = past
        import pkg.api
        from pkg import api

        assert pkg.api is api is importlib.import_module("pkg.api") is sys.modules["pkg.api"] is old
        assert not hasattr(package, "fresh")
        assert "pkg.fresh" not in sys.modules
        pinned[0] = None
        assert package.api is new
        assert package.fresh is sys.modules["pkg.fresh"]


def test_an_old_generation_survives_several_commits_as_it_was(project, pinned):
    project.write("pkg/other.py", "VERSION = 1\n")
    first = project.import_live("pkg.api")
    other = project.import_live("pkg.other")
    exchanges = []
    for version, script in ((2, "api"), (3, "api"), (4, "other")):
        project.write(f"pkg/{script}.py", f"VERSION = {version}\n")
        loader = project.loader()
        project.load(loader, f"pkg/{script}.py")
        exchanges.append(loader.commit())
    past = exchanges[0].past()
    for exchange in exchanges[1:]:
        past.preserve(exchange.displaced)
    with past.installed():
        pinned[0] = past
        assert importlib.import_module("pkg.api") is first
        assert importlib.import_module("pkg").other is sys.modules["pkg.other"] is other
        pinned[0] = None
    assert sys.modules["pkg.api"].VERSION == 3
    assert sys.modules["pkg.other"].VERSION == 4


def test_what_a_pinned_context_is_first_to_import_is_its_own(project, pinned):
    project.import_live("pkg.api")
    project.write("pkg/late.py", "from pkg.api import VERSION\n")
    project.write("pkg/api.py", "VERSION = 2\n")
    loader = project.loader()
    project.load(loader, "pkg/api.py")
    past = loader.commit().past()
    with past.installed():
        pinned[0] = past
        import pkg.late

        assert pkg.late.VERSION == 1
        assert in_live_context(lambda: "pkg.late" in live_modules()) is False
        pinned[0] = None
        assert not hasattr(live_modules()["pkg"], "late")


def test_a_whole_generation_takes_every_place_and_leaves_no_module_behind(project, pinned):
    project.write("pkg/gone.py", "")
    old = project.import_live("pkg.api")
    gone = project.import_live("pkg.gone")
    package = live_modules()["pkg"]
    project.write("pkg/api.py", "VERSION = 2\n")
    loader = project.loader(whole=True)
    new = project.load(loader, "pkg/api.py")
    exchange = loader.commit()
    assert "pkg.gone" not in sys.modules
    assert sys.modules["pkg"] is not package
    assert sys.modules["pkg"].api is new
    past = exchange.past()
    assert past.fallback is False
    with past.installed():
        pinned[0] = past
        import pkg

        assert pkg is package
        assert (pkg.api, pkg.gone) == (old, gone)
        pinned[0] = None


def test_the_displaced_record_tells_what_was_not_there(project):
    old = project.import_live("pkg.api")
    project.write("pkg/api.py", "from . import fresh\n")
    project.write("pkg/fresh.py", "")
    loader = project.loader()
    project.load(loader, "pkg/api.py")
    displaced = loader.commit().displaced
    package = live_modules()["pkg"]
    assert displaced.modules == {"pkg.api": old, "pkg.fresh": ABSENT}
    assert displaced.attributes == {"pkg.api": (package, old), "pkg.fresh": (package, ABSENT)}


def test_a_closed_world_imports_nothing_more_and_holds_nothing(project):
    live = project.import_live("pkg.api")
    project.write("pkg/more.py", "")
    loader = project.loader()
    with loader.world.staging():
        staged = project.load(loader, "pkg/api.py")
        assert sys.modules["pkg.api"] is staged
        loader.abort()
        with pytest.raises(ImportError, match="is over"):
            importlib.import_module("pkg.more")
        sys.modules["pkg.api"] = staged
        assert len(loader.world.staged()) == 0
    assert sys.modules["pkg.api"] is live
    assert "pkg.more" not in sys.modules


# -- threads


def test_a_hanging_staged_import_delays_no_live_import_of_the_same_name(project):
    project.import_live("pkg")
    gates = project.import_live("threading").Event(), threading.Event()
    live_modules()["hotreload_gates"] = holder = ModuleType("hotreload_gates")
    holder.first, (holder.inside, holder.go_on) = True, gates
    project.write(
        "pkg/slow.py",
        """
        import hotreload_gates as gates
        if gates.first:
            gates.first = False
            gates.inside.set()
            gates.go_on.wait(30)
        """,
    )
    loader = project.loader()
    staging = threading.Thread(target=project.load, args=(loader, "pkg/slow.py"))
    staging.start()
    assert gates[0].wait(30)
    live = in_live_context(lambda: importlib.import_module("pkg.slow"))
    assert in_live_context(lambda: __import__("pkg.slow").slow) is live
    gates[1].set()
    staging.join(30)
    assert loader.staged["pkg.slow"] is not live
    assert live_modules()["pkg.slow"] is live


def test_a_module_body_runs_once_however_many_threads_of_the_staging_import_it(project):
    project.import_live("pkg")
    live_modules()["hotreload_runs"] = holder = ModuleType("hotreload_runs")
    holder.runs, holder.go_on = [], threading.Event()
    holder.threads = threading.Barrier(4)
    project.write(
        "pkg/once.py",
        """
        import hotreload_runs as holder
        holder.runs.append(1)
        holder.go_on.wait(30)
        done = True
        """,
    )
    project.write(
        "pkg/starter.py",
        """
        import contextvars, threading
        import hotreload_runs as holder
        seen = []
        def work():
            holder.threads.wait(30)
            from pkg import once
            import pkg.once
            seen.append((once is pkg.once, once.done))
        contexts = [contextvars.copy_context() for _ in range(3)]
        threads = [threading.Thread(target=context.run, args=(work,)) for context in contexts]
        for thread in threads:
            thread.start()
        holder.threads.wait(30)
        holder.go_on.set()
        for thread in threads:
            thread.join(30)
        """,
    )
    loader = project.loader()
    starter = project.load(loader, "pkg/starter.py")
    assert holder.runs == [1]
    assert starter.seen == [(True, True)] * 3
    assert "pkg.once" not in live_modules()


def test_two_threads_that_import_in_a_circle_do_not_wait_for_each_other(project):
    project.import_live("pkg")
    live_modules()["hotreload_meet"] = holder = ModuleType("hotreload_meet")
    holder.both = threading.Barrier(2)
    for one, other in (("left", "right"), ("right", "left")):
        project.write(
            f"pkg/{one}.py", f"import hotreload_meet as m\nm.both.wait(30)\nimport pkg.{other}\nNAME = {one!r}\n"
        )
    loader = project.loader()
    world = loader.world
    outcome = []

    def work(name):
        with world.staging():
            outcome.append(world.load(name).NAME)

    threads = [threading.Thread(target=work, args=(f"pkg.{name}",)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcome) == ["left", "right"]


def test_who_waits_for_a_module_is_let_go_when_the_world_closes(project):
    project.import_live("pkg")
    live_modules()["hotreload_close"] = holder = ModuleType("hotreload_close")
    holder.inside, holder.go_on = threading.Event(), threading.Event()
    project.write("pkg/slow.py", "import hotreload_close as h\nh.inside.set()\nh.go_on.wait(30)\n")
    world = project.loader().world
    errors = []

    def work():
        try:
            with world.staging():
                world.load("pkg.slow")
        except ImportError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert holder.inside.wait(30)
    threads[1].start()
    while not world._waiting:  # nothing else tells that the second thread waits
        threads[1].join(0.001)
    world.close()
    threads[1].join(30)
    assert not threads[1].is_alive()
    assert len(errors) == 1
    holder.go_on.set()
    threads[0].join(30)
    assert len(errors) == 2


def test_a_forked_child_starts_with_free_locks():
    script = """
import os, signal, sys, threading
from flask_hotreload.interpreter import interpreter
from flask_hotreload.worlds import World
from test_worlds import NoProject

world = World(NoProject())
held, go_on = threading.Event(), threading.Event()

def hold():
    with interpreter._lock, world._lock:
        held.set()
        go_on.wait(30)

threading.Thread(target=hold, daemon=True).start()
held.wait(30)
child = os.fork()
if child == 0:
    signal.alarm(20)
    with world.staging():
        world.close()
    os._exit(0)
go_on.set()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, timeout=60, check=False, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()


def test_live_imports_and_readers_of_sys_modules_go_on_while_worlds_come_and_go(project):
    project.write("pkg/api.py", "from . import part\nVERSION = part.VERSION\n")
    project.write("pkg/part.py", "VERSION = 1\n")
    live = project.import_live("pkg.api")
    package = live_modules()["pkg"]
    project.write("pkg/part.py", "VERSION = 2\n")
    stop, problems, rounds = threading.Event(), [], []

    def serve():
        while not stop.is_set():
            from pkg import api
            from pkg.api import VERSION

            seen = (
                api is package.api is importlib.import_module("pkg.api") is sys.modules["pkg.api"] is live,
                VERSION == 1,
                "pkg.late" not in sys.modules,
                len(list(sys.modules.items())) > 100,
            )
            if not all(seen):
                problems.append(seen)
            rounds.append(1)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    project.write("pkg/api.py", "from . import part, late\nVERSION = part.VERSION\n")
    project.write("pkg/late.py", "import pkg.api\n")
    for _ in range(15):
        loader = project.loader("pkg/api.py", "pkg/part.py")
        assert project.load(loader, "pkg/api.py").VERSION == 2
        loader.abort()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not problems
    assert len(rounds) > 15


def test_importlibs_own_machinery_finds_the_world_where_it_tells_no_one_that_it_imports(project, monkeypatch):
    monkeypatch.setattr(worlds_module, "_NEEDS_LOADING", object())
    project.write("pkg/a.py", "import importlib\nb = importlib.import_module('pkg.b')\nVERSION = 1\n")
    project.write("pkg/b.py", "import importlib\na = importlib.import_module('.a', __package__)\n")
    live = project.import_live("pkg.a")
    project.write("pkg/a.py", "import importlib\nb = importlib.import_module('pkg.b')\nVERSION = 2\n")
    loader = project.loader("pkg/a.py", "pkg/b.py")
    staged = project.load(loader, "pkg/a.py")
    assert staged.b.a is staged
    assert staged.b is not live.b
    assert live_modules()["pkg"].b is live.b
    with loader.world.staging():
        assert importlib.import_module("pkg").b is staged.b
    loader.commit()
    assert live_modules()["pkg"].b is live_modules()["pkg.b"] is staged.b

"""Where the script of a reload may lie, and as which module it is imported."""

import json
import os
import subprocess
import sys

import pytest

from flask_hotreload import LoadError, ReloadInvalid

APP = """
@rpc.dispatcher("/api")
def who() -> str:
    return "the application"
"""
WHO = "def who() -> list: return [__name__, __package__]"


@pytest.fixture
def service(site):
    return site.serve(APP)


def entry(script, name="who", **keys):
    return {"dispatcher": name, "scriptPath": script, "path": "/api", **keys}


def test_a_script_inside_a_package_imports_relatively(service):
    service.write("shop/__init__.py", "NAME = 'shop'")
    service.write("shop/prices.py", "FACTOR = 2")
    service.write(
        "shop/api.py",
        """
        from . import NAME, prices
        from .prices import FACTOR
        def who() -> list: return [__name__, __package__, NAME, prices.FACTOR, FACTOR]
        """,
    )
    report = service.reload(entry("shop/api.py"))
    assert service.call("who") == ["shop.api", "shop", "shop", 2, 2]
    assert set(report.modules) == {"shop", "shop.api", "shop.prices"}
    service.write("shop/prices.py", "FACTOR = 3")
    assert service.reload(entry("shop/api.py")).modules == ("shop.api",)
    assert service.call("who")[3:] == [2, 2]  # what is not named is not imported anew
    service.reload(entry("shop/api.py"), entry("shop/prices.py", "factor", overload={"factor": lambda: 1}))
    assert service.call("who")[3:] == [3, 3]


def test_a_file_that_the_application_never_imported_becomes_an_ordinary_module(service):
    service.write("handlers.py", WHO)
    assert "handlers" not in sys.modules
    service.reload(entry("handlers.py"))
    assert service.call("who") == ["handlers", ""]
    assert sys.modules["handlers"].who is service.rpc.get("who", "/api")


def test_the_live_module_is_exchanged_with_the_commit(service):
    service.write("handlers.py", WHO)
    old = service.load("handlers")
    service.reload(entry("handlers.py"))
    assert sys.modules["handlers"] is not old
    assert sys.modules["handlers"].who is service.rpc.get("who", "/api")


def test_two_files_of_the_same_name_are_two_modules(service):
    service.write("a/handlers.py", "def who() -> list: return ['a', __name__]")
    service.write("b/handlers.py", "def other() -> list: return ['b', __name__]")
    service.reload(entry("a/handlers.py"), entry("b/handlers.py", "other"))
    (a, one), (b, other) = service.call("who"), service.call("other")
    assert (a, b) == ("a", "b")
    assert one != other
    service.write("a/handlers.py", "def who() -> list: return ['new a', __name__]")
    service.reload(entry("a/handlers.py"))
    assert service.call("who") == ["new a", one]
    assert service.call("other") == ["b", other]


def test_a_file_named_like_a_standard_module_leaves_that_alone(service):
    import queue

    service.write("queue.py", "import heapq\ndef who() -> list: return [__name__ == 'queue', heapq.__name__]")
    service.reload(entry("queue.py"))
    assert service.call("who") == [False, "heapq"]
    assert sys.modules["queue"] is queue
    assert queue.Queue


# The application's own file --------------------------------------------------------------------------------------


def test_the_applications_own_file_starts_nothing_and_its_extension_is_a_handle(service):
    service.rewrite(
        """
        started = app.extensions["hotreload"] is rpc
        @rpc.dispatcher("/api")
        def who() -> list:
            return [started, rpc.generation, rpc.script_path, len(rpc.status()["dispatchers"])]
        @app.get("/new")
        def new(): return "only a reload of the whole source brings this"
        """
    )
    live = service.rpc, service.app
    service.rpc.reload([{"dispatcher": "who", "path": "/api"}])
    assert service.call("who") == [True, 1, live[0].script_path, 1]
    assert service.client().get("/new").status_code == 404
    assert service.load(service.name).rpc is not live[0]
    assert service.load(service.name).rpc.generation == 1
    assert (service.rpc, service.app) == live


def test_a_reloaded_dispatcher_can_reload(service):
    code = """
    VERSION = 2
    @rpc.dispatcher("/api")
    def who() -> int:
        return VERSION
    @rpc.dispatcher("/api")
    def deploy() -> int:
        return rpc.reload([{"dispatcher": name, "path": "/api"} for name in ("who", "deploy")]).generation
    """
    service.rewrite(code)
    service.rpc.reload([{"dispatcher": name, "path": "/api"} for name in ("who", "deploy")])
    service.rewrite(code.replace("VERSION = 2", "VERSION = 3"))
    assert (service.call("who"), service.call("deploy"), service.call("who")) == (2, 2, 3)
    assert (service.call("deploy"), service.call("who")) == (3, 3)


@pytest.mark.parametrize("late", [False, True])
def test_an_extension_without_an_application_is_a_handle_too(site, late):
    """As in a file with an application factory, which nobody calls while the file is imported anew."""
    factory = """
    from flask import Flask
    from flask_hotreload import HotRPC
    rpc = HotRPC()
    @rpc.dispatcher("/api")
    def who() -> list: return [1, rpc.generation]
    def create_app():
        app = Flask(__name__)
        rpc.init_app(app)
        return app
    """
    site.write("factory.py", factory)
    module = site.load("factory")
    module.app = module.create_app()
    site.adopt(module)
    if late:
        assert site.call("who") == [1, 0]
    site.write("factory.py", factory.replace("[1,", "[2,"))
    site.rpc.reload([{"dispatcher": "who", "scriptPath": site.module.__file__, "path": "/api"}])
    assert site.call("who") == [2, 1]


def test_an_extension_that_new_code_makes_for_the_running_application_is_a_handle(site):
    site.write("base.py", "from flask import Flask\napp = Flask(__name__)")
    api = """
    from base import app
    from flask_hotreload import HotRPC
    rpc = HotRPC(app)
    @rpc.dispatcher("/api")
    def who() -> list: return [1, rpc.generation]
    """
    site.write("api.py", api)
    site.adopt(site.load("api"))
    site.write("api.py", api.replace("[1,", "[2,"))
    site.reload(entry("api.py"))
    assert site.call("who") == [2, 1]
    assert site.app.extensions["hotreload"] is site.rpc


MAIN = """
import json, sys
from flask import Flask
from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)
state = []

@rpc.dispatcher("/api")
def who(): return [1, __name__, state]

def hand_over(server, module, dispatcher):
    module.state = state

if __name__ == "__main__":
    state.append("made by the main run")
    client = app.test_client()
    answers = [client.post("/api/who").json]
    source = open(__file__).read()
    open(__file__, "w").write(source.replace("[1, __name__", "[2, __name__", 1))
    entry = {"dispatcher": "who", "path": "/api", "overload": hand_over}
    report = rpc.reload([entry])
    answers.append(client.post("/api/who").json)
    again = {**entry, "name": "again", "overload": "__main__:hand_over"}
    rpc.reload([{**entry, "overload": "main:hand_over"}, again])
    answers.append(client.post("/api/again").json)
    print(json.dumps({"answers": answers, "modules": report.modules, "main": sys.modules["__main__"].state,
                      "script": rpc.script_path}))
"""


def test_the_file_that_is_run_as_main_is_staged_under_its_stem(site):
    file = site.write("main.py", MAIN)
    done = subprocess.run(
        [sys.executable, "-W", "error", file], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    state = ["made by the main run"]
    assert json.loads(done.stdout) == {
        "answers": [[1, "__main__", state], [2, "main", state], [2, "main", state]],
        "modules": ["main"],
        "main": state,
        "script": file,
    }


# What may not be loaded, or not in this way ----------------------------------------------------------------------


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize(
    "line", ["@app.route('/new')\ndef new(): return ''", "@app.before_request\ndef hook(): return 'hooked'"]
)
def test_a_file_that_sets_up_the_application_is_told_to_reload_the_whole_source(service, line, served):
    if served:
        service.call("who")
    rules = {rule.rule for rule in service.app.url_map.iter_rules()}
    file = service.write("handlers.py", f"from {service.name} import app\n{line}\n{WHO}")
    with pytest.raises(LoadError, match="reload the whole source") as caught:
        service.reload(entry("handlers.py"))
    assert caught.value.file == file
    assert caught.value.line in (2, 3)
    assert isinstance(caught.value.original, AssertionError)
    assert service.call("who") == "the application"
    assert {rule.rule for rule in service.app.url_map.iter_rules()} == rules
    assert service.client().get("/new").status_code == 404


@pytest.mark.parametrize("where", ["outside", "link", "folder", "site-packages", "virtual environment"])
def test_what_lies_outside_the_roots_is_a_bad_document(service, tmp_path_factory, where):
    outside = tmp_path_factory.mktemp("outside") / "handlers.py"
    outside.write_text(WHO)
    script = {
        "outside": str(outside),
        "link": "linked.py",
        "folder": "shop",
        "site-packages": "lib/site-packages/handlers.py",
        "virtual environment": ".venv/lib/handlers.py",
    }[where]
    (service.folder / "linked.py").symlink_to(outside)
    (service.folder / "shop").mkdir()
    service.write("lib/site-packages/handlers.py", WHO)
    service.write(".venv/lib/handlers.py", WHO)
    service.write(".venv/pyvenv.cfg", "")
    with pytest.raises(ReloadInvalid, match=os.path.basename(script)):
        service.reload(entry(script))
    assert service.call("who") == "the application"


def test_a_root_can_be_configured(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "plugin.py").write_text("def who() -> str: return 'the plugin'")
    site.serve(APP, roots=[str(site.folder), str(folder)])
    site.reload(entry(str(folder / "plugin.py")))
    assert site.call("who") == "the plugin"


def test_a_root_that_is_a_link_may_be_switched(site, tmp_path_factory):
    releases = tmp_path_factory.mktemp("releases")
    for number in (41, 42):
        (releases / str(number)).mkdir()
        (releases / str(number) / "handlers.py").write_text(f"def who() -> int: return {number}")
    current = site.folder / "current"
    current.symlink_to(releases / "41")
    site.serve(APP, roots=[str(current)])
    site.reload(entry("current/handlers.py"))
    assert site.call("who") == 41
    current.unlink()
    current.symlink_to(releases / "42")
    site.reload(entry("current/handlers.py"))
    assert site.call("who") == 42

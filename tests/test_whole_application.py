"""What the new application of a reload of the whole source brings, and what belongs to the process."""

import gc
import logging

import pytest
from conftest import TOKEN, call

from flask_hotreload import LoadError, ReloadInvalid

ECHO = """
@rpc.dispatcher("/api")
def echo() -> int:
    return {edition}

@app.get("/")
def home():
    return "home {edition}"
"""


def page(site, url="/"):
    with site.client().get(url) as response:
        return response.status_code, response.get_data(as_text=True), response.headers.getlist("X-Around")


# The new application ---------------------------------------------------------------------------------------------


def test_hooks_error_handlers_and_extensions_are_those_of_the_new_code(site):
    body = """
    @app.before_request
    def before():
        g.before = ["before {edition}"]

    @app.errorhandler(404)
    def missing(error):
        return g.before + ["missing {edition}"], 404

    app.extensions["own"] = {edition}

    @app.get("/own")
    def own():
        from flask import current_app
        return [*g.before, current_app.extensions["own"], current_app.extensions["hotreload"] is rpc]
    """
    site.serve(body.replace("{edition}", "1"))
    site.rewrite(body.replace("{edition}", "2"))
    site.rpc.reload()
    with site.client().get("/own") as own, site.client().get("/nowhere") as nowhere:
        assert own.get_json() == ["before 2", 2, True]
        assert nowhere.get_json() == ["before 2", "missing 2"]


AROUND = """
def around(name, inner):
    def application(environ, start_response):
        def start(status, headers, *more):
            return start_response(status, [*headers, ("X-Around", name)], *more)
        return inner(environ, start)
    return application
"""


def wrapped(edition):
    return f"""
import types
{AROUND}
def around_later(name):
    app.wsgi_app = around(name, app.wsgi_app)
{ECHO.format(edition=edition)}
around_later("outer {edition}")
"""


def test_middleware_around_the_extension_belongs_to_the_process_is_applied_once_and_told_once(site, caplog):
    caplog.set_level(logging.INFO, logger="flask_hotreload")
    site.serve(wrapped(1))
    assert page(site) == (200, "home 1", ["outer 1"])
    for edition in (2, 3):
        site.rewrite(wrapped(edition))
        site.rpc.reload()
        assert page(site) == (200, f"home {edition}", ["outer 1"])
    told = [record.message for record in caplog.records if "after HotRPC(app)" in record.message]
    assert len(told) == 1
    assert "until a restart" in told[0]


def test_middleware_inside_of_the_extension_belongs_to_the_generation(site, caplog):
    caplog.set_level(logging.INFO, logger="flask_hotreload")

    def write(edition):
        text = f"""
from flask import Flask
from flask_hotreload import HotRPC
{AROUND}
app = Flask(__name__)
app.wsgi_app = around("inner {edition}", app.wsgi_app)
rpc = HotRPC(app)
{ECHO.format(edition=edition)}
"""
        site.write(f"{site.name}.py", text)

    write(1)
    site.adopt(site.load(site.name))
    write(2)
    site.rpc.reload()
    assert page(site) == (200, "home 2", ["inner 2"])
    assert not [record for record in caplog.records if "after HotRPC(app)" in record.message]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("from flask import Flask\napp = Flask(__name__)", "HotRPC"),
        ("app = None", "HOTRELOAD_APPLICATION"),
        (
            "from flask import Flask\nfrom flask_hotreload import HotRPC\nrpc, app = HotRPC(), Flask(__name__)",
            "init_app",
        ),
    ],
)
def test_new_code_without_the_extension_is_refused(site, code, told):
    site.serve(ECHO.format(edition=1))
    site.write(f"{site.name}.py", code)
    with pytest.raises(LoadError, match=told) as caught:
        site.rpc.reload()
    assert caught.value.file.endswith(f"{site.name}.py")
    assert page(site)[:2] == (200, "home 1")


ANOTHER = "another = Flask('another')\nHotRPC(another)\n"


@pytest.mark.parametrize(
    "code",
    [
        "app = Flask(__name__)\n" + ANOTHER,  # the application that runs has the extension no longer, another one has
        "one, two = Flask('one'), Flask('two')\nHotRPC(one), HotRPC(two)\napp = lambda environ, start: []",
    ],
)
def test_no_other_application_of_the_new_code_is_taken_for_the_one_that_runs(site, code):
    site.serve(ECHO.format(edition=1))
    site.write(f"{site.name}.py", f"from flask import Flask\nfrom flask_hotreload import HotRPC\n{code}")
    with pytest.raises(LoadError, match="HOTRELOAD_APPLICATION"):
        site.rpc.reload()
    assert page(site)[:2] == (200, "home 1")


def test_of_several_applications_of_the_new_code_the_one_that_the_name_leads_to_is_taken(site):
    site.serve(ECHO.format(edition=1))
    site.rewrite(ECHO.format(edition=2) + ANOTHER)
    assert site.rpc.reload().status == "committed"
    assert page(site)[:2] == (200, "home 2")
    assert site.rpc.status()["pending"] == []


# Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"timeout": "soon"}, "HOTRELOAD_TIMEOUT"),
        ({"token": "short"}, "HOTRELOAD_TOKEN"),
        ({"nonsense": 1}, "HOTRELOAD_NONSENSE"),
    ],
)
@pytest.mark.parametrize("where", ["arguments", "app.config"])
def test_new_code_whose_settings_are_wrong_is_refused(site, settings, told, where):
    site.serve(ECHO.format(edition=1))
    if where == "arguments":
        site.settings = settings
        site.rewrite(ECHO.format(edition=2))
    else:
        [(name, value)] = settings.items()
        site.rewrite(ECHO.format(edition=2))
        text = (site.folder / f"{site.name}.py").read_text()
        config = f"app.config['HOTRELOAD_{name.upper()}'] = {value!r}\nrpc = HotRPC(app)"
        site.write(f"{site.name}.py", text.replace(next(x for x in text.splitlines() if "HotRPC(app" in x), config))
    with pytest.raises(LoadError, match=told) as caught:
        site.rpc.reload()
    assert caught.value.file.endswith(f"{site.name}.py")
    assert page(site)[:2] == (200, "home 1")


def test_settings_that_differ_in_new_code_stay_until_a_restart_and_are_warned_of(site):
    site.serve(ECHO.format(edition=1), timeout=3.0)
    site.settings = {"token": "another-token-entirely", "timeout": 3.0, "max_batch": 7}
    site.rewrite(ECHO.format(edition=2))
    report = site.rpc.reload()
    assert report.status == "committed"
    assert [warning.partition(" ")[0] for warning in report.warnings] == ["HOTRELOAD_TOKEN", "HOTRELOAD_MAX_BATCH"]
    assert "another-token" not in str(report)
    assert all("restart" in warning for warning in report.warnings)
    with site.control(token=TOKEN) as old, site.control(token="another-token-entirely") as new:
        assert (old.status_code, new.status_code) == (200, 401)


# Several applications --------------------------------------------------------------------------------------------


def two_sites(site, other_folder):
    """One service, and another one in its own folder; both are served by this process."""
    site.serve(ECHO.format(edition=1))
    other = type(site)(other_folder)
    other.settings = {}
    other.rewrite(ECHO.format(edition=1))
    return other


def test_applications_with_roots_of_their_own_are_reloaded_each_for_itself(site, monkeypatch):
    folder = site.folder
    site.folder = folder / "one"
    (folder / "two").mkdir()
    monkeypatch.syspath_prepend(str(folder / "one"))
    monkeypatch.syspath_prepend(str(folder / "two"))
    other = two_sites(site, folder / "two")
    other.adopt(other.load(other.name))
    other.rewrite(ECHO.format(edition=2))
    report = other.rpc.reload()
    assert report.modules == (other.name,)
    assert (page(site)[1], page(other)[1]) == ("home 1", "home 2")
    site.rewrite(ECHO.format(edition=3))
    assert site.rpc.reload().modules == (site.name,)
    assert (page(site)[1], page(other)[1]) == ("home 3", "home 2")
    assert (call(site.client(), "echo"), call(other.client(), "echo")) == (3, 2)


def test_applications_that_share_a_root_are_not_reloaded_as_long_as_both_are_there(site):
    other = two_sites(site, site.folder)
    other.adopt(other.load(other.name))
    page(other)
    site.rewrite(ECHO.format(edition=2))
    with pytest.raises(ReloadInvalid, match="HOTRELOAD_ROOTS") as caught:
        site.rpc.reload()
    assert other.app.name in str(caught.value)
    assert (page(site)[1], page(other)[1]) == ("home 1", "home 1")
    assert site.rpc.status()["in_flight"] == 0
    del caught
    forget(other)
    assert site.rpc.reload().status == "committed"
    assert page(site)[1] == "home 2"


def forget(other):
    from flask_hotreload.interpreter import interpreter

    del interpreter.live[other.name]
    (other.folder / f"{other.name}.py").unlink()
    other.module = other.app = other.rpc = None
    gc.collect()


# An extension object that outlives its generations ---------------------------------------------------------------

KEPT = """
from flask_hotreload import HotRPC
rpc = HotRPC(token={token!r}, keep=["kept_{name}"])

@rpc.dispatcher("/api")
def lasting() -> str:
    return "kept"

class Members:
    def member(self) -> str:
        return "kept member"

rpc.register_instance(Members(), "/members")

def expose(function):
    rpc.register_function(function, "/api")
    return function
"""

FACTORY = """
from flask import Flask
from kept_{name} import expose, rpc

@rpc.dispatcher("/api")
def fresh() -> int:
    return {edition}

@expose
def exposed() -> int:
    return {edition}

{more}

def create_app():
    app = Flask(__name__)
    rpc.init_app(app)

    @rpc.dispatcher("/api")
    def inside() -> int:
        return {edition}

    app.add_url_rule("/", view_func=lambda: "home {edition}")
    return app

app = create_app()
"""


class KeptSite:
    def __init__(self, site):
        self.site = site
        site.write(f"kept_{site.name}.py", KEPT.format(token=TOKEN, name=site.name))
        self.write(1)
        site.adopt(site.load(site.name))

    def write(self, edition, more=""):
        text = FACTORY.format(name=self.site.name, edition=edition, more=more)
        self.site.write(f"{self.site.name}.py", text)

    def answers(self):
        names = ["fresh", "exposed", "inside", "lasting"]
        return [*(self.site.call(name) for name in names), self.site.call("member", path="/members")]


@pytest.fixture
def kept(site):
    return KeptSite(site)


def test_what_a_kept_module_has_registered_is_served_by_every_generation(kept):
    rpc = kept.site.rpc
    for edition in (1, 2, 3):
        if edition > 1:
            kept.write(edition)
            report = rpc.reload()
            assert report.modules == (kept.site.name,)
        assert kept.answers() == [edition, edition, edition, "kept", "kept member"]
    rpc.rollback()
    assert kept.answers() == [2, 2, 2, "kept", "kept member"]
    kept.write(4)
    rpc.reload()
    assert kept.answers() == [4, 4, 4, "kept", "kept member"]


@pytest.mark.parametrize(
    "more", ["1 / 0", "def create_app(): 1 / 0\ncreate_app()", "@rpc.dispatcher('/api')\ndef inside(): 0"]
)
def test_an_aborted_reload_leaves_nothing_on_a_kept_extension_object(kept, more):
    rpc = kept.site.rpc
    before = vars(rpc).copy()
    kept.write(2, more)
    for _ in range(2):
        with pytest.raises(LoadError):
            rpc.reload()
        assert kept.answers() == [1, 1, 1, "kept", "kept member"]
        assert vars(rpc) == before
    kept.write(3)
    rpc.reload()
    assert kept.answers() == [3, 3, 3, "kept", "kept member"]


def test_a_kept_extension_object_that_new_code_is_the_first_to_use_serves_it(site):
    site.serve(ECHO.format(edition=1), keep=[f"kept_{site.name}"])
    site.write(f"kept_{site.name}.py", KEPT.format(token=TOKEN, name=site.name))
    for edition in (2, 3):
        site.write(f"{site.name}.py", FACTORY.format(name=site.name, edition=edition, more=""))
        site.rpc.reload()
        assert [site.call(name) for name in ("fresh", "exposed", "inside", "lasting")] == [edition] * 3 + ["kept"]
    assert site.load(f"kept_{site.name}").rpc.generation == 2

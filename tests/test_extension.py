"""``HotRPC`` as a Flask extension: set-up, registration, names and URLs."""

import functools
import json

import pytest
from conftest import Refused, call
from flask import Blueprint, Flask, url_for
from flask.cli import routes_command

from flask_hotreload import HotRPC


@pytest.fixture
def app():
    return Flask(__name__)


@pytest.fixture
def rpc(app):
    return HotRPC(app)


def rules(app):
    return sorted((rule.rule, sorted(rule.methods)) for rule in app.url_map.iter_rules() if rule.endpoint != "static")


class Ledger:
    def __init__(self):
        self.data = []

    def add(self, amount: int) -> int:
        self.data.append(amount)
        return len(self.data)

    def _secret(self) -> str:
        return "secret"

    @property
    def broken(self):
        raise AssertionError("a property is not read")

    class Entry:
        pass


# Set-up ----------------------------------------------------------------------------------------------------------


def test_the_application_knows_its_extension(app):
    rpc = HotRPC(app)
    assert app.extensions["hotreload"] is rpc
    assert rpc.generation == 0


def test_registrations_before_init_app_are_served_after_it(app):
    rpc = HotRPC()
    rpc.register_function(lambda: 1, "/api", name="one")

    @rpc.dispatcher("/api")
    def two() -> int:
        return 2

    rpc.register_instance(Ledger(), "/api")
    rpc.unregister("one", "/api")
    assert repr(rpc) == "<HotRPC without an application>"
    rpc.init_app(app)
    assert (call(app.test_client(), "two"), call(app.test_client(), "add", 5)) == (2, 1)
    with pytest.raises(Refused, match="Method not found"):
        call(app.test_client(), "one")


def test_what_needs_the_application_says_so_before_init_app():
    rpc = HotRPC()
    for use in (
        rpc.status,
        rpc.history,
        rpc.reload,
        lambda: rpc.get("a"),
        lambda: rpc.generation,
        lambda: rpc.script_path,
    ):
        with pytest.raises(RuntimeError, match="call init_app"):
            use()


def test_a_second_extension_for_one_application_is_refused_with_the_remedy(app, rpc):
    for second in (lambda: HotRPC(app), lambda: rpc.init_app(app)):
        with pytest.raises(RuntimeError, match=r"app\.extensions\['hotreload'\]"):
            second()
    assert app.extensions["hotreload"] is rpc


def test_the_root_of_an_application_of_no_known_file_is_its_own_folder_and_not_the_one_above(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "foreign.py").write_text("def broken(")
    monkeypatch.chdir(tmp_path / "mine")
    service = HotRPC(Flask("of_no_file"))._served
    assert list(service.roots.resolve().real.values()) == [str(tmp_path / "mine")]


def test_each_of_several_applications_has_its_own_dispatchers():
    one, other = Flask("one_app"), Flask("other_app")
    first, second = HotRPC(one), HotRPC(other)
    first.register_function(lambda: "one", "/api", name="who")
    second.register_function(lambda: "other", "/api", name="who")
    first.reload([{"dispatcher": lambda: "new", "name": "who", "path": "/api"}])
    assert (call(one.test_client(), "who"), call(other.test_client(), "who")) == ("new", "other")
    assert (first.generation, second.generation) == (1, 0)


def test_an_application_that_no_module_made_has_its_root_path_for_its_root(tmp_path):
    (tmp_path / "service").mkdir()
    (tmp_path / "beside.py").mkdir()  # not to be read
    rpc = HotRPC(Flask("made_nowhere", root_path=str(tmp_path / "service")))
    assert rpc._service.roots.folders == (str(tmp_path / "service"),)


def test_script_path_is_the_file_in_which_the_application_was_made(site):
    site.serve()
    assert site.rpc.script_path == str(site.folder / f"{site.name}.py")
    assert site.rpc._getScriptPath(True) == site.rpc.script_path
    assert site.rpc._getScriptPath() == str(site.folder)


# Registration ----------------------------------------------------------------------------------------------------


def test_the_decorator_returns_the_function_itself(rpc):
    def echo(data: str) -> str:
        return data

    assert rpc.dispatcher("/api")(echo) is echo
    assert rpc.get("echo", "/api") is echo


def test_a_bare_decorator_is_a_type_error_with_the_remedy(rpc):
    with pytest.raises(TypeError, match="parentheses"):

        @rpc.dispatcher
        def echo():
            pass


def test_the_default_path_is_the_root(app, rpc):
    @rpc.dispatcher()
    def echo(data: str) -> str:
        return data

    assert call(app.test_client(), "echo", "hi", path="/") == "hi"
    assert app.test_client().post("/echo", json=["hi"]).get_json() == "hi"


def test_a_function_is_served_under_its_name_or_another_and_its_aliases(app, rpc):
    def echo(data: str) -> str:
        return data

    echo._alias = ["parrot", "mimic"]
    rpc.register_function(echo, "/api", name="say", aliases=("tell",))
    client = app.test_client()
    assert {call(client, name, "hi") for name in ("say", "tell", "parrot", "mimic")} == {"hi"}
    with pytest.raises(Refused, match="Method not found"):
        call(client, "echo", "hi")
    [described] = rpc.status()["dispatchers"]
    assert (described["name"], described["aliases"]) == ("say", ["tell", "parrot", "mimic"])


@pytest.mark.parametrize("alias", ["parrot", ("parrot",), ["parrot", "one", "parrot"]])
def test_aliases_are_a_string_or_several_and_double_names_do_not_count(app, rpc, alias):
    rpc.register_function(lambda: 1, "/api", name="one", aliases=alias)
    assert rpc.status()["dispatchers"][0]["aliases"] == ["parrot"]
    assert call(app.test_client(), "parrot") == 1


@pytest.mark.parametrize("path", ["/api", "/api/", "api", "//api//"])
def test_slashes_at_the_ends_of_a_path_do_not_count(app, rpc, path):
    rpc.register_function(lambda: 1, path, name="one")
    assert rpc.get("one", "/api/")() == 1
    assert call(app.test_client(), "one") == 1


@pytest.mark.parametrize("name", ["", " ", "rpc.list", "a<b>", "a?b", "a#b", "/a", "a/"])
def test_a_name_that_could_not_stand_in_a_url_or_is_reserved_is_refused(rpc, name):
    with pytest.raises(ValueError, match=r"cannot name|reserved"):
        rpc.register_function(lambda: 1, "/api", name="one", aliases=[name])


@pytest.mark.parametrize("path", [5, None, "/a<b>", "/a?b"])
def test_a_path_that_is_no_plain_path_is_refused(rpc, path):
    with pytest.raises(ValueError, match="an API path is a plain string"):
        rpc.register_function(lambda: 1, path, name="one")


def test_names_with_dots_percents_and_unicode_are_served(app, rpc):
    names = ("a.b", "100%", "größe", "a b")
    for name in names:
        rpc.register_function(functools.partial(str, name), "/api.v1", name=name)
    for name in names:
        assert call(app.test_client(), name, path="/api.v1") == name
    assert app.test_client().post("/api.v1/a.b").get_json() == "a.b"


def test_what_is_no_callable_is_refused(rpc):
    with pytest.raises(TypeError, match="a dispatcher is a callable"):
        rpc.register_function(5)


def test_an_unknown_setting_is_refused(rpc):
    with pytest.raises(TypeError, match="timeout"):
        rpc.register_function(lambda: 1, name="one", timeout=5)


def test_a_hint_that_cannot_be_resolved_is_refused_when_it_is_registered(rpc):
    def echo(data: "Missing") -> str:  # noqa: F821  # the point
        return data

    with pytest.raises(TypeError, match="Missing"):
        rpc.register_function(echo, "/api")


def test_an_instance_serves_its_public_methods(app, rpc):
    rpc.register_instance(Ledger(), "/api", prefix="ledger.", include_private=["_secret"])
    client = app.test_client()
    assert call(client, "ledger.add", 5) == 1
    assert call(client, "ledger.add", 5) == 2
    assert call(client, "ledger._secret") == "secret"
    assert {each["name"] for each in rpc.status()["dispatchers"]} == {"ledger.add", "ledger._secret"}


def test_a_filter_leaves_methods_out(rpc):
    with pytest.raises(ValueError, match="no public method"):
        rpc.register_instance(Ledger(), "/api", filter=lambda name, method: name != "add")
    rpc.register_instance(Ledger(), "/api", filter=lambda name, method: name == "add")
    assert [each["name"] for each in rpc.status()["dispatchers"]] == ["add"]


def test_get_finds_a_function_by_any_name_and_an_instance_by_its_class(rpc):
    ledger = Ledger()
    rpc.register_instance(ledger, "/api")
    assert rpc.get("Ledger", "/api") is ledger
    assert rpc.get("add", "api/") == ledger.add
    for name, path in (("sub", "/api"), ("add", "/"), ("Entry", "/api")):
        with pytest.raises(LookupError, match=name):
            rpc.get(name, path)


# Names that are taken --------------------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_refused_unless_it_replaces(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one", aliases=["uno"])
    for taken in ("one", "uno"):
        with pytest.raises(ValueError, match=f"'{taken}' is taken at path '/api'.*replace=True"):
            rpc.register_function(lambda: 2, "/api", name=taken)
    assert call(app.test_client(), "one") == 1


def test_replace_takes_the_name_over(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one", aliases=["uno"])
    rpc.register_function(lambda: 2, "/api", name="one", replace=True)
    client = app.test_client()
    assert (call(client, "one"), call(client, "uno")) == (2, 1)


def test_the_same_name_at_another_path_is_another_dispatcher(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one")
    rpc.register_function(lambda: 2, "/v2", name="one")
    assert (call(app.test_client(), "one"), call(app.test_client(), "one", path="/v2")) == (1, 2)


@pytest.mark.parametrize("url", ["/api", "/api/one"])
@pytest.mark.parametrize("methods", [["POST"], ["GET", "POST"], ["PUT", "POST"]])
def test_a_view_that_answers_post_there_is_a_collision(app, rpc, url, methods):
    app.add_url_rule(url, "view", lambda: "view", methods=methods)
    with pytest.raises(ValueError, match=f"POST {url} is answered by 'view' already"):
        rpc.register_function(lambda: 1, "/api", name="one")
    assert app.test_client().open(url, method="POST").text == "view"
    assert rpc.status()["dispatchers"] == []


@pytest.mark.parametrize("before", [True, False])
def test_a_view_that_answers_get_only_lives_beside_a_dispatcher(app, before):
    def view():
        return "view"

    if before:
        app.add_url_rule("/api", view_func=view)
    rpc = HotRPC(app)
    rpc.register_function(lambda: 1, "/api", name="one")
    if not before:
        app.add_url_rule("/api", view_func=view)
    client = app.test_client()
    assert client.get("/api").text == "view"
    assert call(client, "one") == 1


@pytest.mark.parametrize(("path", "name"), [("/_reload", "one"), ("/_reload/x", "one"), ("/", "_reload")])
def test_nothing_is_served_below_the_control_prefix(rpc, path, name):
    with pytest.raises(ValueError, match="control prefix"):
        rpc.register_function(lambda: 1, path, name=name)
    assert rpc.status()["dispatchers"] == []


def test_what_only_looks_like_the_control_prefix_is_free(app, rpc):
    rpc.register_function(lambda: 1, "/_reloaded", name="one")
    assert call(app.test_client(), "one", path="/_reloaded") == 1


def test_without_control_routes_the_prefix_is_free(app):
    rpc = HotRPC(app, http=False)
    rpc.register_function(lambda: 1, "/_reload", name="one")
    assert call(app.test_client(), "one", path="/_reload") == 1


# Unregistering and late registration -----------------------------------------------------------------------------


def test_what_is_unregistered_is_gone_with_its_aliases_and_its_urls(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one", aliases=["uno"])
    rpc.register_function(lambda: 2, "/api", name="two")
    rpc.unregister("uno", "/api")
    client = app.test_client()
    assert client.post("/api/one").status_code == client.post("/api/uno").status_code == 404
    assert call(client, "two") == 2
    with pytest.raises(LookupError, match="'one' is not served"):
        rpc.unregister("one", "/api")


def test_what_was_unregistered_can_be_registered_anew(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one")
    rpc.unregister("one", "/api")
    rpc.register_function(lambda: 2, "/api", name="one")
    assert call(app.test_client(), "one") == 2


def test_registration_is_refused_with_the_remedy_once_requests_are_served(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one")
    call(app.test_client(), "one")
    for late in (
        lambda: rpc.register_function(lambda: 2, "/api", name="two"),
        lambda: rpc.register_instance(Ledger(), "/api"),
        lambda: rpc.unregister("one", "/api"),
    ):
        with pytest.raises(RuntimeError, match=r"rpc\.reload\("):
            late()
    assert call(app.test_client(), "one") == 1


# URLs ------------------------------------------------------------------------------------------------------------


def test_there_is_one_static_rule_for_each_path_its_document_and_each_name(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one", aliases=["uno"])
    assert rules(app) == [
        ("/api", ["OPTIONS", "POST"]),
        ("/api/one", ["OPTIONS", "POST"]),
        ("/api/openrpc.json", ["GET", "HEAD", "OPTIONS"]),
        ("/api/uno", ["OPTIONS", "POST"]),
    ]


def test_flask_routes_lists_them(app, rpc):
    rpc.register_function(lambda: 1, "/api", name="one")
    listed = app.test_cli_runner().invoke(routes_command).output
    assert "/api/one" in listed
    assert "POST" in listed


def test_url_for_builds_the_urls_of_views(app):
    @app.get("/user/<int:number>")
    def user(number):
        return url_for("user", number=number + 1)

    rpc = HotRPC(app)
    rpc.register_function(lambda: url_for("user", number=7), "/api", name="where")
    client = app.test_client()
    assert client.get("/user/5").text == "/user/6"
    assert call(client, "where") == "/user/7"
    rpc.reload([{"dispatcher": lambda: url_for("user", number=9), "name": "elsewhere", "path": "/v2"}])
    assert call(client, "elsewhere", path="/v2") == "/user/9"
    assert client.get("/user/5").text == "/user/6"


@pytest.mark.parametrize(
    ("url", "status"), [("/api", 405), ("/api/one", 405), ("/api/two", 404), ("/favicon.ico", 404)]
)
def test_get_is_answered_as_in_any_application(app, rpc, url, status):
    rpc.register_function(lambda: 1, "/api", name="one")
    assert app.test_client().get(url).status_code == status


@pytest.mark.parametrize("reloaded", [False, True])
def test_options_of_the_applications_own_views_survive(app, reloaded):
    @app.get("/automatic")
    def automatic():
        return ""

    @app.route("/own", methods=["OPTIONS", "GET"])
    def own():
        return "own"

    rpc = HotRPC(app)

    @app.put("/later")
    def later():
        return ""

    rpc.register_function(lambda: 1, "/api", name="one")
    if reloaded:
        rpc.reload([{"dispatcher": lambda: 2, "name": "two", "path": "/v2"}])
    client = app.test_client()
    assert set(client.options("/automatic").allow) == {"GET", "HEAD", "OPTIONS"}
    assert set(client.options("/later").allow) == {"PUT", "OPTIONS"}
    assert client.options("/own").text == "own"
    assert set(client.options("/api").allow) == {"POST", "OPTIONS"}


def test_blueprints_beside_the_dispatchers_are_served_before_and_after_a_reload(app):
    blueprint = Blueprint("shop", __name__, url_prefix="/shop", subdomain=None)

    @blueprint.get("/<int:number>")
    def item(number):
        return url_for(".item", number=number)

    rpc = HotRPC(app)
    app.register_blueprint(blueprint)
    rpc.register_function(lambda: 1, "/shop", name="one")
    rpc.reload([{"dispatcher": lambda: 2, "name": "two", "path": "/shop"}])
    assert app.test_client().get("/shop/5").text == "/shop/5"
    assert call(app.test_client(), "two", path="/shop") == 2


def test_what_is_served_can_be_told_as_json(rpc):
    rpc.register_function(lambda: 1, "/api", name="one", authorize=lambda: True)
    rpc.register_function(len, "/api", validate=False)
    assert json.loads(json.dumps(rpc.status())) == rpc.status()

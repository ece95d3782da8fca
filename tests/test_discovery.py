"""``rpc.discover`` and ``GET <path>/openrpc.json``: the document of what the request runs."""

import gc
import weakref

import pytest
from cluster import ask, cluster, service
from conftest import Refused, call
from flask import Flask, request
from openrpc_documents import method_of, validate

from flask_hotreload import HotRPC

HANDLER = '''
def price(item: {hint}) -> int:
    """{doc}"""
    return 1
'''


@pytest.fixture
def app():
    return Flask(__name__)


@pytest.fixture
def rpc(app):
    return HotRPC(app)


@pytest.fixture
def client(app):
    return app.test_client()


def document(client, path="/api"):
    with client.get(f"{path.rstrip('/')}/openrpc.json") as response:
        assert (response.status_code, response.mimetype) == (200, "application/json"), response.text
        return validate(response.get_json())


def names(client, path="/api"):
    return [method["name"] for method in document(client, path)["methods"]]


def serve(site):
    site.write("handlers.py", HANDLER.format(hint="str", doc="The first."))
    return site.serve("from handlers import price\nrpc.register_function(price, '/api')")


# In one generation -----------------------------------------------------------------------------------------------


def test_both_ways_give_the_same_document(app, rpc, client):
    rpc.register_function(lambda item: 1, "/api", name="price", aliases=["cost"])
    found = document(client)
    assert call(client, "rpc.discover") == found
    assert [method["name"] for method in found["methods"]] == ["cost", "price"]
    assert found["info"] == {"title": app.name, "version": "0", "x-generation": 0}


def test_each_path_has_its_own(rpc, client):
    rpc.register_function(lambda: 1, "/", name="one")
    rpc.register_function(lambda: 2, "/v2", name="two")
    assert (names(client, "/"), names(client, "/v2")) == (["one"], ["two"])
    assert call(client, "rpc.discover", path="/")["servers"] == [{"url": "/"}]
    assert call(client, "rpc.discover", path="/v2")["servers"] == [{"url": "/v2"}]


def test_the_url_is_the_one_that_the_client_sees(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    response = client.get("/api/openrpc.json", environ_overrides={"SCRIPT_NAME": "/shop"})
    assert response.get_json()["servers"] == [{"url": "/shop/api"}]
    assert document(client)["servers"] == [{"url": "/api"}]


def test_discovery_is_a_call_like_others_in_a_batch(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    batch = [{"jsonrpc": "2.0", "id": id, "method": method} for id, method in enumerate(["one", "rpc.discover"])]
    notification = {"jsonrpc": "2.0", "method": "rpc.discover"}
    first, second = client.post("/api", json=[*batch, notification]).get_json()
    assert (first["result"], second["result"]) == (1, document(client))
    assert client.post("/api", json=notification).status_code == 204


def test_discovery_takes_no_parameters(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    with pytest.raises(Refused) as refused:
        call(client, "rpc.discover", 1)
    assert refused.value.code == -32602


def test_other_reserved_names_are_unknown(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    with pytest.raises(Refused) as refused:
        call(client, "rpc.describe")
    assert refused.value.code == -32601


def test_it_is_no_dispatcher(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    assert client.post("/api/rpc.discover", json=[]).status_code == 404
    assert [each["name"] for each in rpc.status()["dispatchers"]] == ["one"]


def test_hooks_run_and_may_refuse_it(app, rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")

    @app.before_request
    def refuse():
        return ("not for you", 403) if request.path.endswith("/openrpc.json") else None

    assert client.get("/api/openrpc.json").status_code == 403
    assert call(client, "one") == 1


def test_what_is_registered_after_it_was_asked_for_is_in_it(rpc):
    rpc.register_function(lambda: 1, "/api", name="one")
    service = rpc._service
    with service.app.test_request_context():
        assert b"one" in bytes(service.current._views._discovery.document("/api")["methods"])
    rpc.register_function(lambda: 2, "/api", name="two")
    assert names(service.app.test_client()) == ["one", "two"]


# URLs ------------------------------------------------------------------------------------------------------------


def test_a_path_without_dispatchers_has_none(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    rpc.unregister("one", "/api")
    assert client.get("/api/openrpc.json").status_code == 404


@pytest.mark.parametrize("methods", [["GET"], ["GET", "POST"], None])
def test_a_view_that_answers_get_there_is_a_collision(app, rpc, client, methods):
    app.add_url_rule("/api/openrpc.json", "view", lambda: "view", methods=methods)
    with pytest.raises(ValueError, match=r"GET /api/openrpc\.json is answered by 'view' already.*HOTRELOAD_OPENRPC"):
        rpc.register_function(lambda: 1, "/api", name="one")
    assert client.get("/api/openrpc.json").text == "view"
    assert rpc.status()["dispatchers"] == []


def test_a_dispatcher_may_be_called_like_the_document(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="openrpc.json")
    assert names(client) == ["openrpc.json"]
    assert client.post("/api/openrpc.json").get_json() == 1


def test_a_path_may_be_called_like_a_document(rpc, client):
    rpc.register_function(lambda: 1, "/api", name="one")
    rpc.register_function(lambda: 2, "/api/openrpc.json", name="two")
    assert (names(client), names(client, "/api/openrpc.json")) == (["one"], ["two"])
    assert call(client, "two", path="/api/openrpc.json") == 2


def test_a_dispatcher_whose_url_is_that_of_another_path_is_a_collision(rpc):
    rpc.register_function(lambda: 1, "/api", name="openrpc.json")
    with pytest.raises(ValueError, match=r"POST /api/openrpc\.json is answered by"):
        rpc.register_function(lambda: 2, "/api/openrpc.json", name="two")


def test_switched_off_there_is_nothing(app, client):
    app.add_url_rule("/api/openrpc.json", "view", lambda: "view")
    HotRPC(app, openrpc=False).register_function(lambda: 1, "/api", name="one")
    assert client.get("/api/openrpc.json").text == "view"
    with pytest.raises(Refused) as refused:
        call(client, "rpc.discover")
    assert refused.value.code == -32601


# Over reloads ----------------------------------------------------------------------------------------------------


def test_after_a_reload_it_tells_of_the_new_code(site):
    serve(site)
    client = site.client()
    before = document(client)
    assert method_of(before, "price")["summary"] == "The first."
    site.write("handlers.py", HANDLER.format(hint="int", doc="The second."))
    site.reload("price", label="v2")
    after = document(client)
    assert method_of(after, "price")["summary"] == "The second."
    assert method_of(after, "price")["params"][0]["schema"] == {"type": "integer"}
    assert after["info"] == {"title": site.app.name, "version": "v2", "x-generation": 1}
    site.rpc.rollback()
    restored = document(client)
    assert restored["methods"] == before["methods"]
    assert restored["info"]["x-generation"] == 2


def test_a_request_that_outlives_a_reload_gets_the_document_of_the_code_that_it_runs(site):
    serve(site)

    @site.app.before_request
    def reload():
        if request.args:
            site.write("handlers.py", HANDLER.format(hint="int", doc="The second."))
            site.reload("price")

    with site.client().get("/api/openrpc.json?reload") as response:
        assert method_of(response.get_json(), "price")["summary"] == "The first."
    assert method_of(document(site.client()), "price")["summary"] == "The second."


def test_a_path_that_a_reload_adds_has_its_document_and_one_that_it_removes_has_none(site):
    serve(site)
    client = site.client()
    site.reload({"dispatcher": "price", "scriptPath": "handlers.py", "path": "/v2"}, clear_old=True)
    assert names(client, "/v2") == ["price"]
    assert client.get("/api/openrpc.json").status_code == 404
    site.rpc.rollback()
    assert names(client) == ["price"]
    assert client.get("/v2/openrpc.json").status_code == 404


def test_a_reload_whose_document_would_take_the_url_of_a_view_is_refused(site):
    serve(site)
    site.app.view_functions["view"] = lambda: "view"
    site.app.url_map.add(site.app.url_rule_class("/v2/openrpc.json", endpoint="view", methods=["GET"]))
    response = site.reload_over_http(data={"dispatcher": "price", "scriptPath": "handlers.py", "path": "/v2"})
    assert response.status_code == 400
    assert "GET /v2/openrpc.json is answered by 'view' already" in response.get_json()["detail"]
    assert site.client().get("/v2/openrpc.json").text == "view"


def test_a_reload_of_the_whole_source_has_the_document_of_the_new_application(site):
    serve(site)
    document(site.client())
    site.write("handlers.py", HANDLER.format(hint="int", doc="The second."))
    site.rpc.reload()
    assert method_of(document(site.client()), "price")["summary"] == "The second."


def test_two_generations_of_a_class_that_are_served_at_once_are_two_components(site):
    site.write("models.py", "import msgspec\nclass Item(msgspec.Struct):\n    id: int\n")
    handlers = "from models import Item\ndef one(item: Item): ...\ndef two(item: Item): ...\n"
    site.write("handlers.py", handlers)
    site.serve("from handlers import *\nrpc.register_function(one, '/api')\nrpc.register_function(two, '/api')")
    site.write(
        "handlers.py",
        handlers.replace("from models import Item", "import msgspec\nclass Item(msgspec.Struct):\n    id: str\n"),
    )
    site.reload("two")
    found = document(site.client())
    first, second = (method_of(found, name)["params"][0]["schema"]["$ref"] for name in ("one", "two"))
    assert (first, second) == ("#/components/schemas/Item", "#/components/schemas/Item_2")


def test_a_document_keeps_no_code_alive(site):
    serve(site)
    document(site.client())
    first = weakref.ref(site.rpc._service.reloader.current)
    site.write("handlers.py", HANDLER.format(hint="int", doc=""))
    site.reload("price")
    document(site.client())
    gc.collect()
    assert first() is None


def test_all_workers_give_the_same_document(tmp_path):
    with cluster(service(tmp_path / "service"), workers=2) as running:
        workers = running.await_members(2)
        running.edit(1)
        running.reload()
        documents = []
        for pid in workers:
            with running.connected_to(pid) as connection:
                documents.append(ask(connection, "GET", "/api/openrpc.json"))
    assert documents[0] == documents[1]
    status, found = documents[0]
    assert (status, found["info"]["x-generation"]) == (200, 1)
    assert method_of(validate(found), "where")

"""The ways of reloading that the ancestor of this library had, in its own words; its server is the ``HotRPC``."""

import pytest

from flask_hotreload import ApplyError

SERVER = """
server = rpc
globalVar1 = ["made by the first run"]
globalVar2 = 1
VERSION = 1

@server.dispatcher("/api")
def testForReload1():
    return [VERSION, globalVar1, globalVar2]

@server.dispatcher("/api")
def testForReload2():
    return [VERSION, globalVar1, globalVar2]

def callbackForManualOverload(server, module, dispatcher):
   # overload globals also
   for k in dir(module):
      globals()[k]=getattr(module, k)

def reload_it():
    data=[
       {
          'dispatcher':'testForReload1',
          'scriptPath':server._getScriptPath(True),
          'isInstance':False,
          'overload':[
             {'globalVar1':globalVar1},
             callbackForManualOverload
          ],
          'path':'/api'
       }
    ]
    server.reload(data, clearOld=False)

@server.dispatcher("/api")
def reloadFromInside():
    reload_it()
    return testForReload1()
"""
SECOND = SERVER.replace("VERSION = 1", "VERSION = 2").replace("made by the first run", "made by the second run")


@pytest.fixture
def server(site):
    site.serve(SERVER)
    assert site.call("testForReload1") == [1, ["made by the first run"], 1]
    site.rewrite(SECOND)
    return site


@pytest.fixture
def live(server):
    """The namespace of the application's module as it was imported first."""
    return vars(server.module)


def test_the_snippet_of_the_description_runs_as_it_stands(server):
    server.module.globalVar1.append("and changed since")
    server.module.reload_it()
    merged = ["made by the first run", "and changed since"]
    assert server.call("testForReload1") == [2, merged, 1]
    assert server.call("testForReload2") == [2, merged, 1]  # not reloaded, but it sees the new globals
    assert server.rpc.generation == 1


def test_the_snippet_runs_inside_a_dispatcher(server):
    assert server.call("reloadFromInside") == [2, ["made by the first run"], 1]
    assert server.call("testForReload1") == [2, ["made by the first run"], 1]


def test_what_makes_a_module_that_module_survives_the_globals_callback(server, live):
    identity = {
        key: live[key] for key in ("__name__", "__builtins__", "__spec__", "__loader__", "__file__", "__package__")
    }
    spec = live["__spec__"]
    server.module.reload_it()
    assert live["VERSION"] == 2
    for key, value in identity.items():
        assert live[key] is value
    assert live["__spec__"] is spec


def test_the_globals_callback_is_undone_when_the_reload_fails(server, live):
    before = live.copy()

    def fail(server, module, dispatcher):
        assert live["VERSION"] == 2
        raise ValueError("no")

    entry = {"dispatcher": "testForReload1", "path": "/api"}
    with pytest.raises(ApplyError):
        server.rpc.reload([{**entry, "overload": [live["callbackForManualOverload"], fail]}])
    assert live == before
    assert list(live) == list(before)
    assert server.call("testForReload2") == [1, ["made by the first run"], 1]


def test_clear_old_removes_all_dispatchers_that_existed_before(server):
    server.rpc.reload([{"dispatcher": "testForReload1", "path": "/api"}], clearOld=True)
    assert [each["name"] for each in server.rpc.status()["dispatchers"]] == ["testForReload1"]


def test_time_out_and_count_are_passed_in_the_originals_spelling(server):
    data = {"dispatcher": "testForReload1", "path": "/api"}
    report = server.rpc.reload(data, clearOld=False, timeout=0, processingDispatcherCountMax=2)
    assert report.status == "committed"


def test_dispatchers_given_one_path_work_in_one_imported_file(server):
    path = server.rpc._getScriptPath(True)
    server.rpc.reload(
        [{"dispatcher": name, "scriptPath": path, "path": "/api"} for name in ("testForReload1", "testForReload2")]
    )
    first, second = (server.rpc.get(name, "/api") for name in ("testForReload1", "testForReload2"))
    assert first.__globals__ is second.__globals__


# The four ways ---------------------------------------------------------------------------------------------------

OWN = """
class mySharedMethods:
    def __init__(self):
        self.data = []

    def store(self, value):
        self.data.append(value)
        return [1, self.data]

rpc.register_instance(mySharedMethods(), "/api")

@rpc.dispatcher("/api")
def compute(value):
    return value

old = mySharedMethods()
old.data = ["kept"]
"""


@pytest.fixture
def own(site):
    site.serve(OWN)
    site.call("store", "a")
    site.rewrite(OWN.replace("[1, self.data]", "[2, self.data]"))
    return site


def test_an_instance_from_the_applications_own_file_with_its_data_handed_over_by_a_callback(own):
    def callback(server, module, dispatcher):
        old = server.get("mySharedMethods", "/api")
        dispatcher.data = old.data

    own.rpc.reload(
        [
            {
                "dispatcher": "mySharedMethods",
                "scriptPath": own.rpc._getScriptPath(True),
                "isInstance": True,
                "overload": callback,
                "path": "/api",
            }
        ]
    )
    assert own.call("store", "b") == [2, ["a", "b"]]


def test_a_function_from_another_file_with_data_as_overload(own):
    file = own.write("other.py", "data = None\ndef compute(value):\n    return [value, data]")
    old = own.module.old
    own.rpc.reload([{"dispatcher": "compute", "scriptPath": file, "overload": {"data": old.data}, "path": "/api"}])
    assert own.call("compute", 5) == [5, ["kept"]]


def test_a_lambda_under_the_name_of_an_existing_dispatcher(own):
    own.rpc.reload([{"dispatcher": lambda value: value * 2, "dispatcherName": "compute", "path": "/api"}])
    assert own.call("compute", 5) == 10
    assert own.call("store", "b") == [1, ["a", "b"]]


def test_a_dispatcher_that_is_not_reloaded_sees_new_globals_by_a_callback(own):
    own.write("limits.py", "LIMIT = 1\ndef callback(server, module, dispatcher): globals().update(vars(module))")
    own.write("watch.py", "import limits\ndef limit(): return limits.LIMIT")
    live = own.load("limits")
    own.rpc.reload([{"dispatcher": "limit", "scriptPath": "watch.py", "path": "/api"}])
    own.write("limits.py", "LIMIT = 2\ndef show(): return LIMIT")
    assert own.call("limit") == 1
    own.rpc.reload([{"dispatcher": "show", "scriptPath": "limits.py", "path": "/api", "overload": live.callback}])
    assert own.call("limit") == 2
    assert live.__name__ == "limits"

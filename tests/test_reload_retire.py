"""What outlives a generation, and what happens when its last request has left."""

import threading

import pytest
from conftest import until


def entry(name):
    return {"dispatcher": name, "scriptPath": "handlers.py", "path": "/api"}


def entry_with(name, **overload):
    return {**entry(name), "overload": overload}


@pytest.fixture
def service(site):
    return site.serve()


def test_a_kept_object_is_the_same_in_every_generation_and_made_once(site):
    body = 'made = []\nmodel = rpc.keep("model", lambda: made.append(1) or object())\n'
    code = body + '@rpc.dispatcher("/api")\ndef hit() -> int: return id(model)'
    site.serve(code)
    before = site.call("hit")
    site.rewrite(code)
    site.rpc.reload({"dispatcher": "hit", "path": "/api"})
    assert site.call("hit") == before
    assert site.load(site.name).made == []


def test_a_factory_of_a_kept_object_may_keep_another_and_one_that_fails_keeps_nothing(service):
    rpc = service.rpc
    with pytest.raises(ZeroDivisionError):
        rpc.keep("model", lambda: 1 / 0)
    assert rpc.keep("model", lambda: [rpc.keep("data", lambda: 5)]) == [5]
    assert rpc.keep("model", lambda: "another") is rpc.keep("model", list)


def test_an_on_retire_callback_that_raises_does_not_keep_the_others_from_running(service, caplog):
    code = f"""
    from {service.name} import rpc
    order = None
    rpc.on_retire(lambda: order.append("first"))
    rpc.on_retire(lambda: 1 / 0)
    def hit() -> int: return 1
    """
    order = []
    service.write("handlers.py", code)
    service.reload(entry_with("hit", order=order))
    service.reload(entry_with("hit", order=[]))
    until(lambda: order, "the other callback did not run")
    assert order == ["first"]
    assert "ZeroDivisionError" in caplog.text


def test_on_retire_runs_in_reverse_once_the_last_request_has_left(site):
    entered, leave, retired = threading.Event(), threading.Event(), threading.Event()
    site.serve("order = None\n")
    site.write(
        "handlers.py",
        f"""
        from {site.name} import rpc
        order, entered, leave, retired = [], None, None, None
        rpc.on_retire(lambda: (order.append("first"), retired.set()))
        rpc.on_retire(lambda: order.append("second"))
        def wait() -> list:
            entered.set()
            assert leave.wait(10)
            return list(order)
        def hit() -> int: return 0
        """,
    )
    order, answers = [], []
    given = {"order": order, "entered": entered, "leave": leave, "retired": retired}
    site.reload(entry_with("wait", **given), entry("hit"))
    asking = threading.Thread(target=lambda: answers.append(site.call("wait")))
    asking.start()
    assert entered.wait(10)
    site.write("handlers.py", "def wait() -> int: return 0\ndef hit() -> int: return 1")
    site.reload("wait", "hit", timeout=0)
    assert order == []
    leave.set()
    asking.join(10)
    assert answers == [[]]
    assert retired.wait(10)
    assert order == ["second", "first"]


def test_what_only_another_module_registered_is_not_retired_with_a_generation(site):
    site.serve("order = []\nrpc.on_retire(lambda: order.append('app'))")
    site.write("handlers.py", "def hit() -> int: return 1")
    site.reload("hit")
    site.reload("hit")
    assert site.module.order == []

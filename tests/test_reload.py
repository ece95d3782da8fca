"""What each option of the reload document does, in one process, through the public interface."""

import threading

import pytest
from conftest import Refused

from flask_hotreload import ReloadBusy, ReloadInvalid

ECHO = """
state = {"calls": 0}

@rpc.dispatcher("/api")
def echo(data: str = "Hello world") -> str:
    return data

@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount

@app.get("/")
def home():
    return "home"
"""


@pytest.fixture
def service(site):
    return site.serve(ECHO)


def names(service, path="/api"):
    return sorted(each["name"] for each in service.rpc.status()["dispatchers"] if each["path"] == path)


# What is loaded --------------------------------------------------------------------------------------------------


def test_a_dispatcher_is_replaced_by_the_function_of_that_name(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    report = service.reload("rate")
    assert service.call("rate", 5) == 10
    assert service.call("echo", "still") == "still"
    assert report.to_dict()["changes"] == [{"path": "/api", "name": "rate", "change": "replaced"}]


def test_data_may_be_one_entry(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    service.rpc.reload({"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"})
    assert service.call("rate", 5) == 10


def test_a_relative_script_path_is_below_the_applications_root_and_an_absolute_one_is_taken_as_it_is(service):
    file = service.write("parts/rates.py", "def rate(amount: int) -> int: return 3 * amount")
    service.rpc.reload([{"dispatcher": "rate", "scriptPath": "parts/rates.py", "path": "/api"}])
    assert service.call("rate", 5) == 15
    service.write("parts/rates.py", "def rate(amount: int) -> int: return 4 * amount")
    service.rpc.reload([{"dispatcher": "rate", "scriptPath": file, "path": "/api"}])
    assert service.call("rate", 5) == 20


def test_the_default_script_is_the_applications_own_file(service):
    service.rewrite(ECHO.replace("return amount", "return 7 * amount"))
    service.rpc.reload([{"dispatcher": "rate", "path": "/api"}])
    assert service.call("rate", 5) == 35


def test_the_new_code_runs_however_quickly_the_file_was_written(service):
    for factor in range(2, 8):
        service.write("handlers.py", f"def rate(amount: int) -> int: return {factor} * amount")
        service.reload("rate")
        assert service.call("rate", 5) == 5 * factor


def test_dispatchers_of_one_script_share_one_module(service):
    service.write(
        "handlers.py",
        """
        import builtins
        loaded = []
        loaded.append(1)
        def push() -> int:
            loaded.append(1)
            return len(loaded)
        def count() -> int: return len(loaded)
        """,
    )
    service.reload("push", "count")
    assert service.call("push") == 2
    assert service.call("count") == 2


def test_an_exclusive_module_is_imported_once_more_for_its_entry_alone(service):
    service.write(
        "handlers.py",
        """
        loaded = []
        def push() -> int:
            loaded.append(1)
            return len(loaded)
        def count() -> int: return len(loaded)
        """,
    )
    alone = {"dispatcher": "count", "scriptPath": "handlers.py", "path": "/api", "exclusiveModule": True}
    report = service.reload("push", alone)
    assert service.call("push") == 1
    assert service.call("count") == 0
    assert len(report.modules) == 2
    assert service.reload("push", alone).modules == report.modules  # its name is the same at each reload


def test_a_callable_needs_no_script(service):
    report = service.reload({"dispatcher": lambda amount: amount + 1, "name": "rate", "path": "/api"})
    assert service.call("rate", 5) == 6
    assert report.modules == ()


def test_a_live_callable_can_be_named_by_its_module(service):
    service.module.double = lambda amount: 2 * amount
    service.reload({"dispatcher": f"{service.name}:double", "name": "rate", "path": "/api"})
    assert service.call("rate", 5) == 10
    with pytest.raises(ReloadInvalid, match="no module 'nowhere' is loaded"):
        service.reload({"dispatcher": "nowhere:double", "name": "rate", "path": "/api"})
    with pytest.raises(ReloadInvalid, match="has no callable 'triple'"):
        service.reload({"dispatcher": f"{service.name}:triple", "name": "rate", "path": "/api"})


def test_type_hints_of_the_new_function_are_held(service):
    service.write("handlers.py", "def rate(amount: str) -> str: return amount")
    service.reload("rate")
    with pytest.raises(Refused) as caught:
        service.call("rate", 5)
    assert caught.value.code == -32602


# Names and paths -------------------------------------------------------------------------------------------------


def test_a_new_name_is_served_at_once(service):
    service.write("handlers.py", "def five() -> int: return 5")
    report = service.reload("five")
    assert service.call("five") == 5
    assert service.client().post("/api/five").get_json() == 5
    assert [change.change for change in report.changes] == ["added"]


def test_a_new_api_path_is_served_at_once(service):
    service.write("handlers.py", "def five() -> int: return 5")
    assert service.client().post("/v2/api", json={}).status_code == 404
    service.reload({"dispatcher": "five", "scriptPath": "handlers.py", "path": "/v2/api/"})
    assert service.call("five", path="/v2/api") == 5
    assert service.client().get("/").text == "home"
    assert service.client().get("/v2/api").status_code == 405


def test_an_entry_can_serve_a_function_under_another_name(service):
    service.write("handlers.py", "def double(amount: int) -> int: return 2 * amount")
    service.reload({"dispatcher": "double", "scriptPath": "handlers.py", "path": "/api", "name": "rate"})
    assert service.call("rate", 5) == 10
    assert names(service) == ["echo", "rate"]


def test_aliases_are_kept_unless_the_document_or_the_new_function_says_others(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    entry = {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"}
    service.reload({**entry, "aliases": ["price", "cost"]})
    assert service.call("cost", 5) == 10
    service.reload(entry)
    assert service.call("price", 5) == 10
    report = service.reload({**entry, "aliases": ["fee"]})
    assert {(change.name, change.change) for change in report.changes} == {
        ("rate", "replaced"),
        ("price", "removed"),
        ("cost", "removed"),
        ("fee", "added"),
    }
    service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount\nrate._alias = 'toll'")
    service.reload(entry)
    assert service.call("toll", 5) == 15
    with pytest.raises(Refused, match="Method not found"):
        service.call("fee", 5)


def test_a_dispatcher_that_is_named_by_an_alias_keeps_all_its_names(site):
    site.serve('@rpc.dispatcher("/api", aliases=["price", "cost"])\ndef rate(amount: int) -> int: return amount')
    report = site.reload({"dispatcher": lambda amount: 2 * amount, "name": "price", "path": "/api"})
    assert {site.call(name, 5) for name in ("rate", "price", "cost")} == {10}
    assert {change.change for change in report.changes} == {"replaced"}


def test_a_dispatcher_that_is_served_under_another_name_is_found_by_its_function(site):
    site.serve('@rpc.dispatcher("/api", name="price")\ndef rate(amount: int) -> int: return amount')
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    site.reload("rate")
    assert site.call("price", 5) == 10
    assert names(site) == ["price"]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"name": "echo", "aliases": ["rate"]}, "two dispatchers want the name 'rate'"),
        ({"path": "/"}, None),
        ({"path": "/_reload"}, "control prefix"),
        ({"path": "/taken"}, "answered by 'taken' already"),
        ({"name": "rpc.five"}, "reserved"),
        ({"name": "a<b"}, "cannot name a dispatcher"),
    ],
)
def test_a_name_or_url_that_is_taken_changes_nothing(site, entry, text):
    site.serve(ECHO + '\n@app.post("/taken")\ndef taken(): return "view"\n')
    site.write("handlers.py", "def five() -> int: return 5")
    entry = {"dispatcher": "five", "scriptPath": "handlers.py", "path": "/api"} | entry
    if text is None:
        site.reload(entry)  # a view that answers GET only leaves POST free
        assert site.call("five", path="/") == 5
        assert site.client().get("/").text == "home"
        return
    with pytest.raises(Exception, match=text):
        site.reload(entry)
    assert site.rpc.generation == 0
    assert site.call("echo", "still") == "still"
    assert site.client().post("/taken").text == "view"


def test_clear_old_leaves_what_the_document_names_and_the_ordinary_views(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    report = service.reload("rate", clear_old=True)
    assert names(service) == ["rate"]
    assert service.call("rate", 5) == 10
    assert service.client().get("/").text == "home"
    assert service.client().post("/api/echo").status_code == 404
    assert {(change.name, change.change) for change in report.changes} == {("echo", "removed"), ("rate", "replaced")}


# Settings --------------------------------------------------------------------------------------------------------


def test_settings_are_kept_unless_the_entry_gives_new_ones(site):
    site.serve(
        """
        allowed = True
        def may() -> bool: return allowed

        @rpc.dispatcher("/api", validate=False, lock=True, authorize=may)
        def rate(amount: int) -> int: return amount
        """
    )
    site.write("handlers.py", "def rate(amount: int): return [amount]\ndef nobody() -> bool: return False")
    site.reload("rate")
    assert site.call("rate", "not a number") == ["not a number"]
    assert _settings(site) == {"validate": False, "lock": True, "authorize": "may"}
    site.reload({**_entry("rate"), "validate": True, "lock": False, "authorize": "nobody"})
    assert _settings(site) == {"validate": True, "lock": False, "authorize": "nobody"}
    with pytest.raises(Refused) as caught:
        site.call("rate", 5)
    assert caught.value.error == {"code": -32001, "message": "Forbidden"}
    site.reload({**_entry("rate"), "authorize": f"{site.name}:may"})
    assert site.call("rate", 5) == [5]
    site.reload({**_entry("rate"), "authorize": None})
    assert _settings(site)["authorize"] is None


def test_what_the_new_code_registers_is_taken_before_what_was_there(site):
    site.serve('@rpc.dispatcher("/api", validate=False)\ndef rate(amount: int): return amount')
    site.write(
        "handlers.py",
        f"""
        from {site.name} import rpc
        @rpc.dispatcher("/api", name="rate", aliases=["price"])
        def compute(amount: int) -> int: return 2 * amount
        @rpc.dispatcher("/api")
        def other() -> int: return 1
        """,
    )
    report = site.reload("compute")
    assert site.call("price", 5) == 10
    assert _settings(site)["validate"] is True
    assert names(site) == ["rate"]
    assert any("'other'" in warning and "not served" in warning for warning in report.warnings)


def test_one_call_at_a_time_holds_across_a_reload(site):
    entered, leave = threading.Event(), threading.Event()
    site.serve(
        """
        entered = leave = None
        @rpc.dispatcher("/api", lock=True)
        def rate(amount: int) -> int:
            entered.set()
            assert leave.wait(10)
            return amount
        """
    )
    site.module.entered, site.module.leave = entered, leave
    second = threading.Event()
    site.write("handlers.py", "def rate(amount: int) -> int:\n    seen.set()\n    return 2 * amount")
    answers = []
    first = threading.Thread(target=lambda: answers.append(site.call("rate", 1)))
    first.start()
    assert entered.wait(10)
    site.reload({**_entry("rate"), "overload": {"seen": second}}, timeout=0)
    other = threading.Thread(target=lambda: answers.append(site.call("rate", 2)))
    other.start()
    assert not second.wait(0.1)  # the new one waits for the old one
    leave.set()
    first.join(10)
    other.join(10)
    assert answers == [1, 4]


def _entry(name):
    return {"dispatcher": name, "scriptPath": "handlers.py", "path": "/api"}


def _settings(site, name="rate"):
    return next(each["settings"] for each in site.rpc.status()["dispatchers"] if each["name"] == name)


# One transaction -------------------------------------------------------------------------------------------------


def test_several_entries_are_one_generation(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount\ndef echo() -> str: return 'new'")
    report = service.reload("rate", "echo")
    assert (report.previous, report.generation) == (0, 1)
    assert service.rpc.generation == 1
    assert (service.call("rate", 5), service.call("echo")) == (10, "new")


def test_the_last_entry_failing_undoes_the_first(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    with pytest.raises(Exception, match="there is no 'missing'"):
        service.reload("rate", "missing")
    assert (service.rpc.generation, service.call("rate", 5)) == (0, 5)


def test_a_dry_run_tells_what_would_change_and_changes_nothing(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount\ndef five() -> int: return 5")
    report = service.reload("rate", "five", dry_run=True, checks=[{"path": "/api", "method": "five", "result": 5}])
    assert report.status == "checked"
    assert {(change.name, change.change) for change in report.changes} == {("rate", "replaced"), ("five", "added")}
    assert (report.generation, service.rpc.generation, service.call("rate", 5)) == (0, 0, 5)
    assert service.client().post("/api/five").status_code == 404
    assert report.timings.pause_ms == 0


def test_expect_refuses_when_another_generation_is_live(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    service.reload("rate", expect=0)
    with pytest.raises(ReloadBusy, match="generation 1 is live, not 0"):
        service.reload("rate", expect=0)
    assert service.rpc.generation == 1


def test_a_retry_with_the_same_id_gets_the_same_report_and_reloads_nothing(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    first = service.reload("rate", id="deploy-77")
    assert service.reload("rate", id="deploy-77") is first
    assert service.rpc.generation == 1
    service.write("handlers.py", "def rate(")
    with pytest.raises(Exception, match="SyntaxError") as failed:
        service.reload("rate", id="deploy-78")
    service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount")
    with pytest.raises(type(failed.value), match="SyntaxError") as again:
        service.reload("rate", id="deploy-78")
    assert again.value.report is failed.value.report
    assert service.rpc.generation == 1


def test_an_attempt_that_never_began_can_be_retried_with_its_id(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    with pytest.raises(ReloadBusy):
        service.reload("rate", expect=5, id="deploy-77")
    assert service.reload("rate", id="deploy-77").status == "committed"


def test_a_time_out_above_what_requests_may_be_held_is_refused(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    with pytest.raises(ReloadInvalid, match="HOTRELOAD_MAX_HOLD"):
        service.reload("rate", timeout=16)

"""What a reload hands over from old code to new: overload, callbacks, instances, migrations."""

import threading

import pytest
from conftest import until

from flask_hotreload import ApplyError, LoadError, ReloadInvalid

LEDGER = """
class Ledger:
    def __init__(self) -> None:
        self.data: list[int] = []

    def add(self, amount: int) -> int:
        self.data.append(amount)
        return len(self.data)

    def total(self) -> int:
        return sum(self.data)
"""


def entry(name, script="handlers.py", **keys):
    return {"dispatcher": name, "scriptPath": script, "path": "/api", **keys}


@pytest.fixture
def service(site):
    return site.serve(
        """
        hits = []

        @rpc.dispatcher("/api")
        def hit() -> int:
            hits.append(1)
            return len(hits)

        def hand_over(server, module, dispatcher):
            module.hits = hits
        """
    )


@pytest.fixture
def ledger(site):
    site.write("ledger.py", LEDGER)
    return site.serve('from ledger import Ledger\nrpc.register_instance(Ledger(), "/api")')


# Overload --------------------------------------------------------------------------------------------------------


def test_an_overload_dict_is_set_on_the_new_module_before_it_is_used(service):
    service.write(
        "handlers.py",
        """
        factor = 1
        class Uses:
            def __init__(self): self.seen = factor
            def seen_by_constructor(self) -> int: return self.seen
        def hit() -> int: return factor
        """,
    )
    uses = entry("Uses", isInstance=True)
    service.reload(uses, entry("hit", overload=[{"factor": 3}, {"factor": 5}]))
    assert service.call("hit") == 5
    assert service.call("seen_by_constructor") == 5


def test_an_overload_dict_of_a_callable_is_set_on_the_callable(service):
    def count(server=None):
        return count.start

    service.reload({"dispatcher": count, "name": "hit", "path": "/api", "overload": {"start": 7}})
    assert service.call("hit") == 7


def test_attributes_of_a_callable_are_as_before_when_the_reload_fails(service):
    def count():
        return count.start

    count.start = 1
    broken = {"dispatcher": count, "name": "hit", "path": "/api", "overload": [{"start": 7, "end": 9}, _fail]}
    with pytest.raises(ApplyError):
        service.reload(broken)
    assert vars(count) == {"start": 1}


def test_a_callable_that_takes_no_attributes_is_refused(service):
    with pytest.raises(ApplyError, match="takes no attribute 'start'"):
        service.reload({"dispatcher": len, "name": "hit", "path": "/api", "overload": {"start": 7}})
    assert service.call("hit") == 1


def _fail(server, module, dispatcher):
    raise ValueError("no")


def test_a_callback_gets_server_module_and_dispatcher(service):
    seen = []
    service.write("handlers.py", "def hit() -> int: return 0")

    def callback(server, module, dispatcher):
        seen.append((server, module.__name__, dispatcher, server.get("hit", "/api")))

    old = service.rpc.get("hit", "/api")
    service.reload(entry("hit", overload=callback))
    [(server, name, dispatcher, replaced)] = seen
    assert server is service.rpc
    assert name == "handlers"
    assert dispatcher is service.rpc.get("hit", "/api")
    assert replaced is old


def test_a_bare_name_is_a_callback_of_the_new_module(service):
    service.write(
        "handlers.py",
        f"""
        hits = []
        def hit() -> int: return 100 + len(hits)
        def take_over(server, module, dispatcher):
            import {service.name} as live
            module.hits = live.hits
        """,
    )
    service.call("hit")
    service.reload(entry("hit", overload="take_over"))
    assert service.call("hit") == 101


def test_a_name_with_a_colon_is_a_callback_of_a_live_module(service):
    service.write("handlers.py", "hits = []\ndef hit() -> int: return 100 + len(hits)")
    service.call("hit")
    service.reload(entry("hit", overload=f"{service.name}:hand_over"))
    assert service.call("hit") == 101


@pytest.mark.parametrize(
    ("overload", "error", "text"),
    [
        ("missing", LoadError, "there is no 'missing', which overload names"),
        ("factor", LoadError, "not callable: 'factor'"),
        ("nowhere:f", ReloadInvalid, "no module 'nowhere' is loaded"),
        ("handlers:f", ReloadInvalid, "no module 'handlers' is loaded"),
        ("json:nothing", ReloadInvalid, "has no callable 'nothing'"),
    ],
)
def test_a_callback_that_is_not_there_changes_nothing(service, overload, error, text):
    service.write("handlers.py", "factor = 1\ndef hit() -> int: return factor")
    with pytest.raises(error, match=text):
        service.reload(entry("hit", overload=overload))
    assert service.call("hit") == 1


def test_a_callable_has_no_new_module_in_which_a_bare_name_could_be(service):
    with pytest.raises(ReloadInvalid, match=r"write 'package\.module:function'"):
        service.reload({"dispatcher": lambda: 1, "name": "hit", "path": "/api", "overload": "hand_over"})


def test_callbacks_run_while_nobody_is_inside_and_held_requests_see_what_they_did(service):
    service.write("handlers.py", "hits = []\ndef hit() -> int: return 100 + len(hits)")
    answers, inside = [], []

    def callback(server, module, dispatcher):
        module.hits = [1, 2, 3]
        asking = threading.Thread(target=lambda: answers.append(service.call("hit")))
        asking.start()
        inside.append(asking)
        _until_held(service, 1)
        assert not answers

    report = service.reload(entry("hit", overload=callback))
    inside[0].join(10)
    assert answers == [103]
    assert report.drain.held == 1


def _until_held(service, count):
    until(lambda: service.rpc.status()["held"] == count, "nobody is held")


def test_undo_runs_in_reverse_when_a_later_callback_fails_and_not_when_all_is_well(service):
    done = []

    def callback(server, module, dispatcher):
        server.undo(lambda: done.append("first"))
        server.undo(lambda: done.append("second"))

    service.write("handlers.py", "def hit() -> int: return 0")
    service.reload(entry("hit", overload=callback))
    assert done == []
    with pytest.raises(ApplyError):
        service.reload(entry("hit", overload=[callback, _fail]))
    assert done == ["second", "first"]


def test_an_undo_that_fails_is_a_warning_and_the_others_run(service):
    done = []

    def callback(server, module, dispatcher):
        server.undo(lambda: done.append("first"))
        server.undo(lambda: 1 / 0)

    service.write("handlers.py", "def hit() -> int: return 0")
    with pytest.raises(ApplyError) as caught:
        service.reload(entry("hit", overload=[callback, _fail]))
    assert done == ["first"]
    [warning] = caught.value.report.warnings
    assert warning.startswith(f"{__file__}:")
    assert warning.endswith("undo raised ZeroDivisionError: division by zero")


def test_an_undo_may_call_the_application_as_it_was(service):
    answers = []

    def callback(server, module, dispatcher):
        server.undo(lambda: answers.append(service.call("hit")))

    service.write("handlers.py", "def hit() -> int: return 42")
    with pytest.raises(ApplyError):
        service.reload(entry("hit", overload=[callback, _fail]))
    assert answers == [1]
    assert service.call("hit") == 2


def test_undo_is_for_callbacks_only(service):
    with pytest.raises(RuntimeError, match="callbacks and migrations"):
        service.rpc.undo(lambda: None)


def test_a_callback_may_call_the_application(service):
    answers = []
    service.write("handlers.py", "def hit() -> int: return 42")
    service.reload(entry("hit", overload=lambda server, module, dispatcher: answers.append(service.call("hit"))))
    assert answers == [42]  # it is answered by the staged generation


def test_a_callback_cannot_reload(service):
    service.write("handlers.py", "def hit() -> int: return 42")

    def callback(server, module, dispatcher):
        server.reload(entry("hit"))

    with pytest.raises(ApplyError, match="after the reload has ended"):
        service.reload(entry("hit", overload=callback))
    assert service.call("hit") == 1


# Instances -------------------------------------------------------------------------------------------------------


def test_an_instance_is_replaced_with_its_data_handed_over(ledger):
    assert ledger.call("add", 5) == 1
    ledger.write("ledger.py", LEDGER.replace("sum(self.data)", "-sum(self.data)"))

    def keep_data(server, module, dispatcher):
        dispatcher.data = server.get("Ledger", "/api").data

    ledger.reload(entry("Ledger", "ledger.py", isInstance=True, overload=keep_data))
    assert ledger.call("total") == -5
    assert ledger.call("add", 7) == 2


def test_methods_that_the_new_class_lacks_are_gone_and_new_ones_are_served(ledger):
    ledger.write("ledger.py", LEDGER.replace("def total", "def balance"))
    report = ledger.reload(entry("Ledger", "ledger.py", isInstance=True))
    assert ledger.client().post("/api/total").status_code == 404
    assert ledger.call("balance") == 0
    assert {(change.name, change.change) for change in report.changes} == {
        ("add", "replaced"),
        ("balance", "added"),
        ("total", "removed"),
    }


def test_an_instance_is_made_once_for_all_entries_that_name_its_class(ledger):
    ledger.write("ledger.py", LEDGER)
    ledger.reload(
        entry("Ledger", "ledger.py", isInstance=True), {**entry("Ledger", "ledger.py", isInstance=True), "path": "/b"}
    )
    ledger.call("add", 5)
    assert ledger.call("total", path="/b") == 5


def test_prefix_and_filter_of_the_registration_hold_for_the_next_instance(site):
    site.write("ledger.py", LEDGER)
    site.serve(
        """
        from ledger import Ledger
        rpc.register_instance(Ledger(), "/api", prefix="ledger.", filter=lambda name, method: name != "add")
        """
    )
    site.write("ledger.py", LEDGER.replace("sum(self.data)", "99"))
    site.reload(entry("Ledger", "ledger.py", isInstance=True))
    assert site.call("ledger.total") == 99
    assert [each["name"] for each in site.rpc.status()["dispatchers"]] == ["ledger.total"]


def test_an_instance_that_the_module_made_itself_can_be_named(ledger):
    ledger.write("ledger.py", LEDGER + "\nbooks = Ledger()\nbooks.data = [4]\n")
    ledger.reload(entry("books", "ledger.py", isInstance=True))
    assert ledger.call("total") == 4


@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        ("", "Ledger", "there is no 'Ledger'"),
        ("class Ledger:\n    def __init__(self): raise ValueError('no data')", "Ledger", "ledger.py:2: ValueError"),
        ("class Ledger: pass", "Ledger", "no public method"),
        (
            "class Ledger:\n    def __init__(self, data): pass\n    def add(self): pass",
            "Ledger",
            "missing 1 required",
        ),
    ],
)
def test_an_instance_that_cannot_be_made_changes_nothing(ledger, code, name, text):
    ledger.call("add", 5)
    ledger.write("ledger.py", code)
    with pytest.raises(LoadError, match=text) as caught:
        ledger.reload(entry(name, "ledger.py", isInstance=True))
    assert caught.value.file.endswith("ledger.py")
    assert ledger.call("total") == 5


# Migrations ------------------------------------------------------------------------------------------------------


def test_hot_reload_of_a_new_module_moves_state_over(service):
    service.write("handlers.py", "hits = []\ndef hit() -> int:\n    hits.append(1)\n    return len(hits)")
    service.reload(entry("hit"))
    service.call("hit")
    service.write(
        "handlers.py",
        """
        def __hot_reload__(old):
            global hits
            hits = old.hits
        def hit() -> int: return 100 + len(hits)
        """,
    )
    service.reload(entry("hit"))
    assert service.call("hit") == 101


def test_hot_reload_runs_before_callbacks_and_not_without_an_old_module(service):
    order = []
    code = "order = None\ndef __hot_reload__(old): order.append('migration')\ndef hit() -> int: return 0"
    service.write("handlers.py", code)
    overload = [{"order": order}, lambda server, module, dispatcher: order.append("callback")]
    service.reload(entry("hit", overload=overload))
    assert order == ["callback"]
    service.reload(entry("hit", overload=overload))
    assert order == ["callback", "migration", "callback"]


def test_a_migration_that_fails_changes_nothing_and_names_its_line(service):
    service.write("handlers.py", "hits = 5\ndef hit() -> int: return hits")
    service.reload(entry("hit"))
    file = service.write(
        "handlers.py",
        """\
        def __hot_reload__(old):
            old.hits = 6
            raise ValueError("no")
        def hit() -> int: return 0
        """,
    )
    with pytest.raises(ApplyError, match="__hot_reload__ raised ValueError: no") as caught:
        service.reload(entry("hit"))
    assert (caught.value.file, caught.value.line) == (file, 3)
    assert isinstance(caught.value.original, ValueError)
    assert service.call("hit") == 5

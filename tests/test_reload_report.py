"""What a reload tells: report, signals, history, status, log, warnings; and what it keeps alive."""

import atexit
import gc
import logging
import os
import pickle
import socket
import textwrap
import threading
import weakref

import pytest

from flask_hotreload import CheckFailed, LoadError, ReloadBusy, ReloadError, ReloadReport, signals

BODY = """
@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount
"""


@pytest.fixture
def service(site):
    site.serve(BODY)
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    return site


@pytest.fixture
def heard(service):
    """``(signal, keywords)`` of what was sent for the service, in order."""
    found = []
    events = ["reload_started", "reload_committed", "reload_aborted", "generation_retired"]
    receivers = []
    for event in events:

        def receive(sender, _event=event, **keywords):
            found.append((_event, keywords))

        receivers.append(receive)
        getattr(signals, event).connect(receive, sender=service.app)
    return found, receivers


# The report ------------------------------------------------------------------------------------------------------


def test_the_report_has_the_contracts_fields_and_values(service):
    report = service.reload("rate", label="v2", id="deploy-1").to_dict()
    timings, workers = report.pop("timings"), report.pop("workers")
    assert report.pop("digest").startswith("sha256:")
    assert report.pop("started_at").endswith("Z")
    assert report == {
        "id": "deploy-1",
        "status": "committed",
        "generation": 1,
        "previous": 0,
        "label": "v2",
        "trigger": "python",
        "actor": None,
        "restores": None,
        "drain": {"in_flight": 0, "stragglers": [], "held": 0},
        "changes": [{"path": "/api", "name": "rate", "change": "replaced"}],
        "modules": ["handlers"],
        "warnings": [],
        "error": None,
        "staged": None,
    }
    assert list(timings) == ["prepare_ms", "check_ms", "drain_ms", "apply_ms", "pause_ms", "total_ms"]
    assert timings["total_ms"] >= timings["prepare_ms"] > 0
    [worker] = workers
    assert worker == {
        "id": f"{socket.gethostname()}:{os.getpid()}",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "ok": True,
        "pause_ms": timings["pause_ms"],
        "error": None,
    }


def test_the_report_of_a_failure_has_the_same_fields_and_the_error(service):
    file = service.write("handlers.py", "import json\n\n1 / 0\n")
    with pytest.raises(LoadError) as caught:
        service.reload("rate", label="v2")
    report = caught.value.report.to_dict()
    assert report["status"] == "aborted"
    assert (report["generation"], report["previous"], report["label"]) == (0, 0, "v2")
    assert report["changes"] == []
    error = report["error"]
    assert (error["type"], error["file"], error["line"], error["worker"]) == ("LoadError", file, 3, None)
    assert error["message"] == f"{file}:3: ZeroDivisionError: division by zero"
    assert error["traceback"].rstrip().endswith("ZeroDivisionError: division by zero")
    assert "1 / 0" in error["traceback"]
    assert "flask_hotreload" not in error["traceback"]
    assert report["workers"][0]["ok"] is False
    assert list(report) == list(service_report(service).to_dict())


def service_report(service):
    service.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    return service.reload("rate")


def test_an_error_pickles_with_its_report(service):
    service.write("handlers.py", "def rate(:")
    with pytest.raises(LoadError) as caught:
        service.reload("rate")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.line) == (LoadError, str(caught.value), 1)
    assert again.report == caught.value.report


def test_a_report_is_frozen(service):
    report = service.reload("rate")
    assert isinstance(report, ReloadReport)
    with pytest.raises(AttributeError):
        report.status = "aborted"


def test_the_digest_names_the_source_that_was_run(service):
    first = service.reload("rate").digest
    assert service.reload("rate").digest == first
    service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount")
    assert service.reload("rate").digest != first
    assert service.reload({"dispatcher": lambda: 1, "name": "rate", "path": "/api"}).digest is None


def test_every_reload_is_one_line_in_the_log(service, caplog):
    with caplog.at_level(logging.INFO, "flask_hotreload"):
        service.reload("rate", label="v2", id="deploy-1")
    [record] = [record for record in caplog.records if record.name == "flask_hotreload"]
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("reload deploy-1 'v2' committed: generation 0 → 1, 1 changes, pause ")


def test_history_has_every_attempt_newest_first_and_a_hundred_at_most(service):
    service.reload("rate", id="a")
    with pytest.raises(ReloadError):
        service.reload("missing", id="b")
    with pytest.raises(ReloadError):
        service.rpc.reload(nonsense=1, id="c")
    service.reload("rate", id="d", dry_run=True)
    assert [(report.id, report.status) for report in service.rpc.history()] == [
        ("d", "checked"),
        ("c", "aborted"),
        ("b", "aborted"),
        ("a", "committed"),
    ]
    for number in range(100):
        with pytest.raises(ReloadError):
            service.rpc.reload(nonsense=number)
    assert len(service.rpc.history()) == 100


# Signals ---------------------------------------------------------------------------------------------------------


def test_a_committed_reload_is_signalled_with_its_report(service, heard):
    found, _ = heard
    report = service.reload("rate")
    names = [name for name, _ in found]
    assert names[0] == "reload_started"
    assert sorted(names[1:]) == ["generation_retired", "reload_committed"]
    assert dict(found)["reload_started"]["report"].id == report.id
    assert dict(found)["reload_committed"] == {"report": report, "generation": 1}
    assert dict(found)["generation_retired"] == {"generation": 0}


def test_an_aborted_reload_is_signalled_with_its_report(service, heard):
    found, _ = heard
    with pytest.raises(ReloadError) as caught:
        service.reload("missing")
    assert [name for name, _ in found] == ["reload_started", "reload_aborted"]
    assert found[1][1] == {"report": caught.value.report}


def test_a_receiver_that_raises_disturbs_nothing(service, caplog):
    def receive(sender, **keywords):
        raise ValueError("a receiver's own fault")

    for event in ("reload_started", "reload_committed"):
        getattr(signals, event).connect(receive, sender=service.app)
    assert service.reload("rate").status == "committed"
    assert service.call("rate", 5) == 10
    assert sum("a receiver of the signal" in record.getMessage() for record in caplog.records) == 2


def test_a_receiver_may_reload_once_the_reload_has_ended(service):
    reports = []

    def receive(sender, report, generation):
        if generation < 3:
            reports.append(service.reload("rate"))

    signals.reload_committed.connect(receive, sender=service.app)
    service.reload("rate")
    assert service.rpc.generation == 3
    assert [report.generation for report in reports] == [3, 2]


@pytest.mark.parametrize("event", ["reload_started", "generation_retired"])
def test_a_receiver_that_reloads_within_a_reload_is_refused_at_once(service, event):
    refused = []

    def receive(sender, **keywords):
        with pytest.raises(ReloadBusy, match="after the reload has ended") as caught:
            service.reload("rate")
        refused.append(caught.value)

    getattr(signals, event).connect(receive, sender=service.app)
    assert service.reload("rate").generation == 1
    assert len(refused) == 1


# Checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("applied", [False, True])
def test_checks_run_against_the_staged_generation(service, applied):
    check = {"path": "/api", "method": "rate", "params": [5], "result": 10, "applied": applied}
    by_name = {"path": "/api", "method": "rate", "params": {"amount": 5}, "applied": applied}
    report = service.reload("rate", checks=[check, by_name])
    assert report.status == "committed"
    timings = report.timings
    assert (timings.apply_ms if applied else timings.check_ms) > 0


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(
    ("check", "text"),
    [
        ({"path": "/api", "method": "rate", "params": [5], "result": 5}, "expected 5, got 10"),
        ({"path": "/api", "method": "rate", "params": ["x"]}, "Invalid params"),
        ({"path": "/api", "method": "missing"}, "Method not found"),
        ({"path": "/nowhere", "method": "rate"}, "no JSON-RPC answer: 404"),
        ({"url": "/nowhere"}, "expected status 200, got 404"),
        ({"url": "/home", "contains": "better"}, "does not contain 'better': 'home'"),
        ({"url": "/home", "status": 204}, "expected status 204, got 200"),
    ],
)
def test_a_check_that_does_not_hold_aborts(site, check, text, applied):
    site.serve(BODY + '\n@app.get("/home")\ndef home(): return "home"')
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    with pytest.raises(CheckFailed) as caught:
        site.reload("rate", checks=[{"url": "/home", "contains": "home"}, {**check, "applied": applied}])
    assert text in str(caught.value)
    assert (site.rpc.generation, site.call("rate", 5)) == (0, 5)


def test_applied_checks_see_what_callbacks_did_and_the_others_do_not(service):
    service.write("handlers.py", "factor = 2\ndef rate(amount: int) -> int: return factor * amount")

    def callback(server, module, dispatcher):
        module.factor = 3

    entry = {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api", "overload": callback}
    before = {"path": "/api", "method": "rate", "params": [5], "result": 10}
    service.reload(entry, checks=[before, {**before, "result": 15, "applied": True}])
    assert service.call("rate", 5) == 15


# Status ----------------------------------------------------------------------------------------------------------


def test_the_status_has_the_contracts_fields(service):
    report = service.reload("rate", label="v2")
    status = service.rpc.status()
    assert {key: status[key] for key in ("generation", "previous", "label", "tainted", "pending", "last")} == {
        "generation": 1,
        "previous": 0,
        "label": "v2",
        "tainted": None,
        "pending": [],
        "last": report.to_dict(),
    }
    settings = {"validate": True, "lock": False, "authorize": None}
    assert status["dispatchers"] == [
        {"path": "/api", "name": "rate", "aliases": [], "module": "handlers", "settings": settings}
    ]
    assert (status["in_flight"], status["held"], status["readers"]) == (0, 0, [])
    [worker] = status["workers"]
    assert set(worker) == set("id host pid generation release in_flight held seen_ms state".split())  # noqa: SIM905  # reads as the contract does
    assert (worker["generation"], worker["state"], worker["release"]) == (1, "serving", status["release"])


def test_the_status_names_who_is_inside(site):
    site.serve('@app.get("/who")\ndef who(): return rpc.status()["readers"]')
    [reader] = site.client().get("/who").get_json()
    assert (reader["method"], reader["path"]) == ("GET", "/who")
    assert reader["age_ms"] >= 0


def test_pending_notices_a_file_of_the_same_size_whose_time_was_set_back(service):
    file = service.write("handlers.py", "VALUE = 1")
    service.rpc.reload()
    assert service.rpc.status()["pending"] == []
    before = os.stat(file)
    service.write("handlers.py", "VALUE = 2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert service.rpc.status()["pending"] == [{"file": file, "change": "modified"}]


def test_pending_is_what_lies_on_disk_and_does_not_run(service):
    changed = service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount")
    added = service.write("parts/new.py", "")
    os.utime(changed, ns=(1, 1))
    assert service.rpc.status()["pending"] == [
        {"file": changed, "change": "added"},
        {"file": added, "change": "added"},
    ]
    service.reload("rate")
    assert service.rpc.status()["pending"] == [{"file": added, "change": "added"}]
    service.write("handlers.py", "def rate(amount: int) -> int: return 4 * amount")
    os.remove(added)
    os.remove(service.module.__file__)
    assert service.rpc.status()["pending"] == [
        {"file": changed, "change": "modified"},
        {"file": service.module.__file__, "change": "deleted"},
    ]


def test_a_request_sees_its_own_generations_number(service):
    assert service.rpc.generation == 0
    service.reload("rate")
    assert service.rpc.generation == 1
    assert repr(service.rpc) == f"<HotRPC of '{service.name}', generation 1>"


# What is left ----------------------------------------------------------------------------------------------------


def test_what_an_import_leaves_outside_of_modules_is_listed(service):
    stop = threading.Event()
    service.write(
        "handlers.py",
        """
        import atexit, logging, threading
        from {name} import stop
        class Poller(threading.Thread):
            def run(self): stop.wait()
        thread = Poller(name="poller")
        thread.start()
        handler = logging.NullHandler()
        logging.getLogger("handlers").addHandler(handler)
        atexit.register(print)
        def rate(amount: int) -> int: return 2 * amount
        """.replace("{name}", service.name),
    )
    service.module.stop = stop
    try:
        warnings = " ".join(service.reload("rate").warnings)
    finally:
        stop.set()
        atexit.unregister(print)
        logging.getLogger("handlers").handlers.clear()
    assert "thread 'poller'" in warnings
    assert "logger 'handlers' got a handler <NullHandler" in warnings
    assert "1 atexit callback registered" in warnings


@pytest.fixture
def opens(service):
    """Reload ``handlers.py`` with these lines in it; return the warnings. What it has opened is closed afterwards."""
    closing = []

    def reload(text, **document):
        service.module.closing = closing
        rate = "def rate(amount: int) -> int: return 2 * amount\n"
        service.write("handlers.py", f"from {service.name} import closing\n{textwrap.dedent(text)}\n{rate}")
        return list(service.reload("rate", **document).warnings)

    yield reload
    for each in closing:
        each.close()


@pytest.mark.parametrize(
    "text",
    [
        "log = open(PATH, 'w'); closing.append(log)",
        "class Log:\n  def __init__(self): self.file = open(PATH, 'wb'); closing.append(self.file)\nlog = Log()",
        "class Log:\n  file = open(PATH, 'w')\nclosing.append(Log.file)",
        "def made():\n  file = open(PATH, 'w'); closing.append(file)\n  return lambda: file\nlog = made()",
        "import tempfile; log = {'a': [open(PATH, 'w')]}; closing.append(log['a'][0])",
    ],
)
def test_a_file_that_new_code_holds_open_is_listed(service, opens, text):
    path = str(service.folder / "own.log")
    assert opens(text.replace("PATH", repr(path))) == [f"module 'handlers' holds {path} open"]


def test_a_socket_that_new_code_holds_open_is_listed(opens):
    warnings = opens("import socket; listener = socket.socket(); closing.append(listener)")
    assert warnings == ["module 'handlers' holds a socket open"]


def test_what_new_code_has_closed_or_did_not_open_itself_is_not_listed(service, opens):
    service.module.before = open(service.folder / "before.log", "w")  # noqa: SIM115  # it stays open
    try:
        text = f"""
        import sys
        from {service.name} import before
        error = sys.stderr
        with open(__file__) as own: own.read()
        """
        assert opens(text) == []
    finally:
        service.module.before.close()


def test_what_a_request_opens_while_new_code_is_imported_is_not_listed(service, opens):
    service.module.opened = []

    def request():
        service.module.opened.append(open(service.folder / "request.log", "w"))  # noqa: SIM115  # it stays open

    service.module.request = request
    try:
        text = f"""
        import threading
        from {service.name} import request
        thread = threading.Thread(target=request)
        thread.start()
        thread.join()
        del thread, request
        """
        assert opens(text) == []
    finally:
        service.module.opened[0].close()


def test_a_dry_run_lists_what_the_import_opens_too(service, opens):
    path = str(service.folder / "own.log")
    warnings = opens(f"log = open({path!r}, 'w'); closing.append(log)", dry_run=True)
    assert warnings == [f"module 'handlers' holds {path} open"]


def test_a_collector_that_new_code_registers_with_prometheus_client_is_listed(service, opens):
    from prometheus_client import REGISTRY

    try:
        [warning] = opens("from prometheus_client import Counter\norders = Counter('listed_orders', 'Orders.')")
        assert warning == "a collector 'listed_orders' was registered with prometheus-client"
        assert opens("from prometheus_client import REGISTRY") == []
    finally:
        REGISTRY.unregister(REGISTRY._names_to_collectors["listed_orders"])


def test_new_code_that_sets_a_signal_handler_is_refused_since_it_is_not_imported_on_the_main_thread(service):
    service.write("handlers.py", "import signal\nsignal.signal(signal.SIGUSR2, signal.SIG_IGN)\n")
    with pytest.raises(LoadError, match="main thread") as refused:
        service.reload("rate")
    assert refused.value.line == 2


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_no_old_module_stays_alive_beyond_the_kept_generations(site, kept):
    service = site.serve(BODY, keep_generations=kept)
    alive = []
    for factor in range(6):
        service.write("handlers.py", f"def rate(amount: int) -> int: return {factor} * amount")
        service.reload("rate")
        alive.append(weakref.ref(service.load("handlers")))
    gc.collect()
    assert [module() is not None for module in alive] == [False] * (5 - kept) + [True] * (kept + 1)


@pytest.mark.parametrize("fault", ["import", "callback", "check", "applied check"])
def test_no_module_of_a_failed_reload_stays_alive(service, fault):
    alive = []
    service.module.seen = lambda module: alive.append(weakref.ref(module))
    end = "1 / 0" if fault == "import" else ""
    service.write(
        "handlers.py",
        f"""
        import sys
        import {service.name} as live
        class Marker: pass
        marker = Marker()
        live.seen(marker)
        def rate(amount: int) -> int: return 2 * amount
        def fail(server, module, dispatcher):
            local = marker
            raise ValueError(marker)
        {end}
        """,
    )
    entry = {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"}
    check = {"path": "/api", "method": "rate", "params": [5], "result": 5, "applied": fault == "applied check"}
    with pytest.raises(ReloadError) as caught:
        service.reload(
            {**entry, "overload": "fail"} if fault == "callback" else entry,
            checks=[check] if "check" in fault else [],
        )
    assert alive
    del caught
    gc.collect()
    assert [marker() for marker in alive] == [None]

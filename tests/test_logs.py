"""What operators find in the log: a line per reload, the place of an error, the generation of each record, drift."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest
from conftest import until
from flask import Flask

from flask_hotreload import ApplyError, CheckFailed, GenerationFilter, HotRPC, LoadError, ReloadError, ReloadInvalid

BODY = """
import logging

@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    logging.getLogger("shop").warning("rate %d", amount)
    return amount
"""
HANDLERS = """
import logging
def rate(amount: int) -> int:
    logging.getLogger("shop").warning("rate %d", amount)
    return 2 * amount
"""


@pytest.fixture
def service(site):
    site.serve(BODY)
    site.write("handlers.py", HANDLERS)
    return site


@pytest.fixture
def lines(caplog):
    """``(level, text)`` of what has been logged on the package's own logger at INFO and above."""
    caplog.set_level(logging.DEBUG, "flask_hotreload")
    return lambda: [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "flask_hotreload" and record.levelno >= logging.INFO
    ]


# A line for each reload --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"dry_run": True}])
def test_a_reload_is_one_line_of_info(service, lines, options):
    service.reload("rate", id="deploy-1", label="v2", **options)
    [(level, text)] = lines()
    assert level == "INFO"
    assert text.startswith("reload deploy-1 'v2' ")


def test_a_reload_that_finds_nothing_to_do_is_one_line_of_info(service, lines):
    service.rpc.reload()
    service.rpc.reload(id="again")
    assert [(level, text.split(":")[0]) for level, text in lines()[1:]] == [("INFO", "reload again unchanged")]


@pytest.mark.parametrize(
    ("source", "document", "error", "place"),
    [
        ("def rate(", {}, LoadError, ":1"),
        ("\n1 / 0", {}, LoadError, ":2"),
        ("def other(): pass", {}, LoadError, ""),
        (HANDLERS + "\ndef fails(server, module, dispatcher):\n    1 / 0", {"overload": "fails"}, ApplyError, ":8"),
    ],
)
def test_a_refused_reload_is_one_warning_with_file_and_line(service, lines, source, document, error, place):
    file = service.write("handlers.py", source)
    with pytest.raises(error) as refused:
        service.reload({"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api", **document})
    [(level, text)] = lines()
    assert level == "WARNING"
    assert f"{file}{place}" in text
    assert text.count(file) == 1, "its place is told once"
    assert refused.value.report.status == "aborted"


def test_a_reload_that_never_began_is_one_warning(service, lines):
    with pytest.raises(ReloadInvalid):
        service.rpc.reload(nonsense=1)
    with pytest.raises(ReloadError):
        service.reload("rate", expect=7)
    assert [level for level, _ in lines()] == ["WARNING", "WARNING"]


def test_a_failed_check_is_one_warning(service, lines):
    with pytest.raises(CheckFailed):
        service.reload("rate", checks=[{"path": "/api", "method": "rate", "params": [1], "result": 7}])
    [(level, text)] = lines()
    assert (level, "CheckFailed" in text) == ("WARNING", True)


def test_what_a_client_or_an_error_says_cannot_begin_another_line(service, lines):
    service.write("handlers.py", "raise RuntimeError('one\\ntwo\\x1b[31m')")
    with pytest.raises(LoadError):
        service.reload("rate", id="id\nforged", label="label\nforged")
    [(_, text)] = lines()
    assert text.isprintable()
    assert "id\\nforged" in text
    assert "one\\ntwo" in text


def test_each_worker_tells_its_part_at_debug(service, caplog):
    caplog.set_level(logging.DEBUG, "flask_hotreload")
    service.reload("rate", id="deploy-1")
    told = [record.levelname for record in caplog.records if "reload deploy-1" in record.getMessage()]
    assert told == ["DEBUG", "INFO"]


# The generation of each record -------------------------------------------------------------------------------------


class Lines(logging.Handler):
    """Keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = []

    def emit(self, record):
        self.written.append(self.format(record))


@pytest.fixture
def shown():
    """The lines that a handler with the filter writes."""
    handler = Lines()
    handler.addFilter(GenerationFilter())
    handler.setFormatter(logging.Formatter("%(generation)s %(generation_label)s %(message)s"))
    logger = logging.getLogger("shop")
    logger.addHandler(handler)
    yield handler.written
    logger.removeHandler(handler)


def test_a_configuration_can_name_the_filter_before_there_is_an_application(tmp_path):
    script = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "filters": {"generation": {"()": "flask_hotreload.GenerationFilter"}},
    "formatters": {"own": {"format": "%(generation)s %(generation_label)s %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "filters": ["generation"], "formatter": "own"}},
    "root": {"handlers": ["own"], "level": "WARNING"},
})
logging.warning("early")
from flask import Flask
from flask_hotreload import HotRPC
rpc = HotRPC(Flask(__name__))
logging.warning("late")
rpc.reload([{"dispatcher": lambda: 2, "name": "two", "path": "/api"}], label="v2")
logging.warning("later")
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.splitlines() == ["None None early", "0 None late", "1 v2 later"]


def test_a_record_of_a_request_tells_the_requests_generation(service, shown):
    service.call("rate", 1)
    service.reload("rate", label="v2")
    service.call("rate", 2)
    assert shown == ["0 None rate 1", "1 v2 rate 2"]


def test_a_record_of_a_straggler_tells_the_generation_that_it_runs(site, shown):
    site.serve(
        """
        import logging
        from threading import Event
        there, go_on = Event(), Event()
        @app.get("/slow")
        def slow():
            there.set()
            assert go_on.wait(10)
            logging.getLogger("shop").warning("slow")
            return ""
        @rpc.dispatcher("/api")
        def rate(amount: int) -> int:
            return amount
        """
    )
    site.write("handlers.py", HANDLERS)
    thread = threading.Thread(target=lambda: site.client().get("/slow").close())
    thread.start()
    assert site.module.there.wait(10)
    site.reload("rate", timeout=0, label="v2")
    site.module.go_on.set()
    thread.join()
    assert shown == ["0 None slow"]


def test_what_is_logged_outside_of_requests_is_of_what_the_process_serves(service, shown, alone):
    service.reload("rate", label="v2")
    logging.getLogger("shop").warning("from outside")
    assert shown == ["1 v2 from outside"]


def test_where_the_generation_cannot_be_told_it_is_none(service, shown):
    other = Flask("another")
    HotRPC(other)
    logging.getLogger("shop").warning("from outside")
    assert shown == ["None None from outside"]


@pytest.fixture
def alone(service, monkeypatch):
    """The service is the only one of its process: other tests' are out of sight."""
    import weakref

    from flask_hotreload import record_filter

    monkeypatch.setattr(record_filter, "_reloaders", weakref.WeakSet([service.rpc._served.reloader]))


def test_the_filter_lets_every_record_pass():
    assert GenerationFilter().filter(logging.makeLogRecord({})) is True


# What lies on disk -------------------------------------------------------------------------------------------------


def test_a_rollback_warns_once_that_the_disk_has_what_was_left(service, lines):
    for label in ("v1.4.2", "v1.4.3"):
        service.rewrite(BODY + f"LABEL = {label!r}\n")
        service.rpc.reload(label=label)
    assert service.rpc.status()["drift"] is None
    service.rpc.rollback()
    told = "disk has v1.4.3, v1.4.2 runs; after a restart v1.4.3 would"
    until(lambda: ("WARNING", told) in lines(), "nobody warns")
    assert [text for _, text in lines() if "disk" in text] == [told]
    assert service.rpc.status()["drift"] == told
    assert service.control().get_json()["drift"] == told


def test_a_rollback_that_can_start_no_thread_is_a_rollback_all_the_same(service, lines, monkeypatch, caplog):
    service.rewrite(BODY + "LABEL = 2\n")
    service.rpc.reload()

    def no_thread(function, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("flask_hotreload.service._thread.start_new_thread", no_thread)
    assert service.rpc.rollback().status == "committed"
    [(level, told)] = [line for line in lines() if "disk" in line[1]]
    assert (level, told) == ("WARNING", "what lies on disk is not compared with what runs: can't start new thread")
    caplog.clear()  # the error holds the service


def test_a_disk_that_no_generation_was_made_from_is_told_by_its_files(service, lines):
    service.rpc.reload(label="v1.4.2")
    file = service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount")
    drift = service.rpc.status()["drift"]
    assert (
        drift
        == f"1 file on disk differs from v1.4.2, which runs; after a restart what is on disk would: {file} modified"
    )
    for number in range(7):
        service.write(f"further_{number}.py", "")
    drift = service.rpc.status()["drift"]
    assert drift.startswith("8 files on disk differ from v1.4.2")
    assert drift.endswith(", …")
    assert not [text for _, text in lines() if "disk" in text], "somebody is deploying: nothing to warn of"


def test_a_rollback_to_what_lies_on_disk_warns_of_nothing(service, lines):
    service.rpc.reload()
    service.rewrite(BODY + "EDITION = 2\n")
    service.rpc.reload()
    service.rewrite(BODY)
    service.rpc.rollback()
    assert not [level for level, _ in lines() if level == "WARNING"]
    assert service.rpc.status()["drift"] is None

"""What an import does outside of its modules happens again in a reload: ``docs/what-reloads-well.rst``."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import prometheus_client
import pytest
import sqlalchemy.dialects.sqlite.pysqlite
from conftest import open_files, until

from flask_hotreload import LoadError
from flask_hotreload.interpreter import interpreter

APPS = Path(__file__).parent / "apps" / "twice"
PAGE = Path(__file__).parent.parent / "docs" / "what-reloads-well.rst"
assert sqlalchemy.dialects.sqlite.pysqlite  # third-party modules stay when a test's own are forgotten


@pytest.fixture
def start(site, monkeypatch):
    """Serve one of the applications, in its own folder."""
    monkeypatch.chdir(site.folder)

    def start(name):
        shutil.copy(APPS / f"{name}.py", site.folder)
        site.adopt(site.load(name))
        return Service(site, name)

    return start


class Service:
    """``edition``: of its source, the number in ``EDITION = 0`` if it says so."""

    def __init__(self, site, name):
        self.rpc, self.call, self.client = site.rpc, site.call, site.client
        self.folder = site.folder
        self.name = name
        self.file = site.folder / f"{name}.py"
        self.edition = 0

    @property
    def module(self):
        """The one that serves now."""
        return interpreter.live[self.name]

    def edit(self, more=""):
        self.edition += 1
        text = (APPS / self.file.name).read_text().replace("EDITION = 0", f"EDITION = {self.edition}")
        self.file.write_text(f"{text}\n# edition {self.edition}\n{more}")

    def reload(self):
        self.edit()
        report = self.rpc.reload()
        assert report.status == "committed"
        return report

    def reload_in_vain(self):
        self.edit(more="1 / 0\n")
        with pytest.raises(LoadError):
            self.rpc.reload()


# SQLAlchemy ------------------------------------------------------------------------------------------------------


def test_an_engine_made_at_import_is_made_again_and_its_in_memory_database_is_empty(start):
    service = start("engine")
    assert [service.call("order"), service.call("order")] == [1, 2]
    first = service.module.engine
    service.reload()
    assert service.call("order") == 1
    first.dispose()
    service.module.engine.dispose()


def test_a_kept_engine_goes_on_with_its_connections_and_tables_made_anew(start):
    service = start("engine_kept")
    assert [service.call("order"), service.call("order")] == [1, 2]
    first = service.module
    service.reload()
    assert service.call("order") == 3
    assert service.module.engine is first.engine
    assert service.module.orders is not first.orders
    first.engine.dispose()


def test_tables_of_a_kept_metadata_are_refused_and_nothing_has_changed(start):
    service = start("tables")
    service.edit()
    with pytest.raises(LoadError, match="Table 'orders' is already defined for this MetaData instance"):
        service.rpc.reload()
    assert service.call("columns") == ["number"]
    assert service.rpc.generation == 0


# Prometheus ------------------------------------------------------------------------------------------------------


def test_a_collector_made_at_import_is_refused_the_second_time_and_nothing_has_changed(start):
    service = start("collectors")
    service.call("order")
    service.edit()
    with pytest.raises(LoadError, match="Duplicated timeseries in CollectorRegistry"):
        service.rpc.reload()
    service.call("order")
    assert prometheus_client.REGISTRY.get_sample_value("twice_bare_orders_total") == 2
    prometheus_client.REGISTRY.unregister(service.module.ORDERS)


def test_a_kept_collector_counts_on(start):
    service = start("collectors_kept")
    for _ in range(3):
        service.call("order")
        service.reload()
    assert prometheus_client.REGISTRY.get_sample_value("twice_kept_orders_total") == 3
    prometheus_client.REGISTRY.unregister(service.module.ORDERS)


# Logging ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def log_lines(start):
    """The number of lines that one more order writes."""
    file = Path("orders.log")

    def lines(service):
        before = len(file.read_text().splitlines())
        service.call("order")
        return len(file.read_text().splitlines()) - before

    yield lines
    log = logging.getLogger("twice")
    for handler in log.handlers.copy():
        log.removeHandler(handler)
        handler.close()


def test_a_logging_handler_added_at_import_writes_each_line_once_more_after_each_reload(start, log_lines):
    service = start("log_handlers")
    assert log_lines(service) == 1
    assert any("got a handler" in warning for warning in service.reload().warnings)
    assert log_lines(service) == 2
    service.reload_in_vain()
    assert log_lines(service) == 3


def test_a_kept_logging_handler_writes_each_line_once(start, log_lines):
    service = start("log_handlers_kept")
    assert not service.reload().warnings
    service.reload_in_vain()
    assert log_lines(service) == 1


# Threads and timers ----------------------------------------------------------------------------------------------


def running():
    """The names of the applications' threads and timers that are alive."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("twice-"))


def test_threads_and_timers_started_at_import_run_once_more_for_each_generation(start):
    service = start("threads")
    modules = [service.module]
    warnings = service.reload().warnings
    modules.append(service.module)
    assert running() == ["twice-ticker", "twice-ticker", "twice-timer", "twice-timer"]
    assert any("a thread 'twice-ticker' was started" in warning for warning in warnings)
    for module in modules:
        module.ended.set()
        module.timer.cancel()


def test_threads_and_timers_end_with_the_generation_that_ends_them_when_it_is_retired(start):
    service = start("threads_retired")
    first = service.module
    service.reload()
    for thread in (first.thread, first.timer):
        thread.join(10)
    assert running() == ["twice-ticker", "twice-timer"]
    service.module.ended.set()
    service.module.timer.cancel()


def test_threads_and_timers_of_a_reload_that_fails_end_as_those_of_a_retired_generation(start):
    service = start("threads_retired")
    service.reload_in_vain()
    until(lambda: running() == ["twice-ticker", "twice-timer"], "the threads of the aborted reload do not end")
    assert not service.module.ended.is_set()
    service.module.ended.set()
    service.module.timer.cancel()


def noted_over_a_reload(site, start, name):
    """The editions of ``timetable.py`` that the threads of two generations have met."""
    site.write("timetable.py", "EDITION = 0\n")
    service = start(name)
    site.load("timetable")
    site.write("timetable.py", "EDITION = 1\n")
    service.reload()
    return service.module.noted


def test_a_thread_started_at_import_imports_what_serves_and_not_what_is_new(site, start):
    assert noted_over_a_reload(site, start, "imports_in_threads") == [0, 0]


def test_a_thread_started_at_import_finds_what_was_imported_at_the_top_of_its_module(site, start):
    assert noted_over_a_reload(site, start, "imports_for_threads") == [0, 1]


# The end of the process ------------------------------------------------------------------------------------------

RELOADS_AND_ENDS = """
import importlib, pathlib, sys
name = sys.argv[1]
module = importlib.import_module(name)
client = module.app.test_client()
for number in range(3):
    assert client.post("/api/order", json=[f"order {number}"]).status_code in (200, 204)
    with pathlib.Path(f"{name}.py").open("a") as file:
        file.write("# one line more\\n")
    print(*(warning for warning in module.rpc.reload().warnings), sep="\\n")
"""


def what_is_said(name, folder):
    """What a process prints that serves this application, reloads it three times, and ends."""
    shutil.copy(APPS / f"{name}.py", folder)
    ended = subprocess.run(
        [sys.executable, "-c", RELOADS_AND_ENDS, name],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not ended.stderr
    return ended.stdout.splitlines()


def test_exit_callbacks_of_all_generations_run_each_with_the_state_of_its_own(tmp_path):
    said = what_is_said("at_exit", tmp_path)
    assert said.count("1 atexit callback registered") == 3
    assert [line for line in said if line.startswith("saved")] == [
        "saved []",
        "saved ['order 2']",
        "saved ['order 1']",
        "saved ['order 0']",
    ]


def test_an_exit_callback_taken_back_when_its_generation_is_retired_runs_once_with_what_was_kept(tmp_path):
    said = what_is_said("at_exit_retired", tmp_path)
    assert [line for line in said if line.startswith("saved")] == ["saved ['order 0', 'order 1', 'order 2']"]


# Signal handlers -------------------------------------------------------------------------------------------------


@pytest.fixture
def start_with_signals(start):
    """As ``start``; afterwards the signal is handled as before."""
    before = signal.getsignal(signal.SIGWINCH)
    yield start
    signal.signal(signal.SIGWINCH, before)


def test_a_signal_handler_set_at_import_is_refused_by_a_reload_and_nothing_has_changed(start_with_signals):
    service = start_with_signals("signal_handlers")
    handler = signal.getsignal(signal.SIGWINCH)
    service.edit()
    with pytest.raises(LoadError, match="signal only works in main thread"):
        service.rpc.reload()
    assert signal.getsignal(signal.SIGWINCH) is handler
    service.call("order")


def test_a_signal_handler_set_once_runs_the_code_that_serves(start_with_signals):
    service = start_with_signals("signal_handlers_kept")
    signal.raise_signal(signal.SIGWINCH)
    service.reload()
    service.reload_in_vain()
    signal.raise_signal(signal.SIGWINCH)
    assert service.module.seen == [0, 1]


# Receivers of Flask's signals ------------------------------------------------------------------------------------


def test_receivers_of_flasks_signals_run_for_each_generation_that_stays_in_memory(start):
    service = start("receivers")
    service.call("order")
    service.reload()
    service.call("order")
    assert sorted(service.module.started) == [0, 0, 1]


def test_receivers_connected_to_their_application_run_once(start):
    service = start("receivers_of_app")
    service.call("order")
    service.reload()
    service.call("order")
    assert service.module.started == [0, 1]


# Templates -------------------------------------------------------------------------------------------------------


def page(service):
    with service.client().get("/") as response:
        return response.get_data(as_text=True)


def write_template(site, text):
    site.write("templates/home.html", text + " {{ edition }}")


def test_a_template_is_read_when_it_is_first_rendered_whatever_generation_renders_it(site, start):
    write_template(site, "old template, code")
    service = start("templates")
    write_template(site, "new template, code")
    assert service.rpc.reload().status == "unchanged"
    assert page(service) == "new template, code 0"


def test_templates_that_are_read_at_import_belong_to_their_generation(site, start):
    write_template(site, "old template, code")
    service = start("templates_loaded")
    write_template(site, "new template, code")
    assert page(service) == "old template, code 0"
    service.reload()
    assert page(service) == "new template, code 1"
    service.rpc.rollback()
    assert page(service) == "old template, code 0"


# Connections -----------------------------------------------------------------------------------------------------


def opened(service):
    return open_files().count(str(service.folder / "orders.db"))


def test_a_connection_made_at_import_stays_open_and_holds_its_locks_when_the_next_is_made(start):
    service = start("connections")
    first = service.module.db
    assert service.call("order") == 1  # and is not committed
    service.reload()
    assert opened(service) == 2
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        service.module.order()
    first.close()
    service.module.db.close()


def test_a_kept_connection_is_opened_once(start):
    service = start("connections_kept")
    assert service.call("order") == 1
    service.reload()
    assert service.call("order") == 2
    assert service.module.db.in_transaction
    service.module.db.close()


def test_connections_of_requests_leave_nothing_open(start):
    service = start("connections_of_requests")
    assert service.call("order") == 1
    service.reload()
    assert service.call("order") == 2
    assert opened(service) == 0


# Pickles ---------------------------------------------------------------------------------------------------------


def answer_over_a_reload(service):
    """What a request answers that entered before a reload and goes on after it."""
    module, answers = service.module, []
    request = threading.Thread(target=lambda: answers.append(service.call("slow")))
    request.start()
    module.inside.wait(10)
    service.edit()
    service.rpc.reload(timeout=0)
    module.reloaded.wait(10)
    request.join(10)
    return answers[0]


def test_an_old_request_cannot_pickle_objects_of_its_own_classes_by_the_c_pickler(start):
    assert "not the same object as pickles.Order" in answer_over_a_reload(start("pickles"))


def test_an_old_request_pickles_plain_data(start):
    assert answer_over_a_reload(start("pickles_of_data")) == 7


# Rollbacks -------------------------------------------------------------------------------------------------------

COUNTS = """
kept = rpc.keep("kept", list)
handed_over = []

def __hot_reload__(old):
    handed_over.extend(old.handed_over)

@rpc.dispatcher("/api")
def order() -> list[int]:
    kept.append(1)
    handed_over.append(1)
    return [len(kept), len(handed_over)]
"""


def test_a_rollback_finds_kept_state_as_it_is_and_other_state_as_it_was_left(site):
    site.serve(COUNTS)
    assert site.call("order") == [1, 1]
    site.rewrite(COUNTS + "EDITION = 1\n")
    site.rpc.reload()
    assert [site.call("order"), site.call("order")] == [[2, 2], [3, 3]]
    site.rpc.rollback()
    assert site.call("order") == [4, 2]


# The page --------------------------------------------------------------------------------------------------------


def test_the_page_names_each_application_and_each_test():
    text = PAGE.read_text("utf-8")
    for file in APPS.glob("*.py"):
        assert f"``tests/apps/twice/{file.name}``" in text
    here = Path(__file__).read_text("utf-8")
    tests = re.findall(r"^def (test_\w+)\(", here, re.M)
    assert not [name for name in tests if f"``{name}``" not in text and "the_page" not in name]


def test_code_on_the_page_stands_in_one_of_the_applications():
    text = PAGE.read_text("utf-8")
    sources = [file.read_text("utf-8") for file in APPS.glob("*.py")]
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    assert blocks
    for block in blocks:
        for part in re.split(r"\n\s*\n", re.sub(r"^    ", "", block, flags=re.M).strip()):
            assert any(part in source for source in sources), part

"""What Prometheus is told: of a process, of all workers of one gunicorn, and when it cannot be told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cluster import cluster, state
from cluster import service as cluster_service
from cluster import until as eventually
from conftest import TOKEN, until
from flask import Flask
from scraping import Scrape

from flask_hotreload import HotRPC, LoadError, ReloadInvalid

BODY = """
@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount
"""
TEXT = "text/plain; version=0.0.4; charset=utf-8"
DASHBOARD = Path(__file__).parent.parent / "docs" / "grafana.json"


@pytest.fixture
def service(site):
    site.serve(BODY)
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    return site


def scrape(site, **options):
    with site.control("/metrics", **options) as response:
        assert response.status_code == 200, response.get_data(as_text=True)
        return Scrape(response.get_data(as_text=True))


# One process -----------------------------------------------------------------------------------------------------


def test_a_scrape_needs_the_token_as_every_control_route_does(service):
    assert service.control("/metrics", token=None).status_code == 401
    assert service.control("/metrics", method="POST").status_code == 405
    assert service.control("/metrics").content_type == TEXT


def test_a_scraper_that_speaks_openmetrics_gets_it(service):
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    with service.client().get(
        "/_reload/metrics", headers={"Authorization": f"Bearer {TOKEN}", "Accept": accept}
    ) as response:
        assert response.content_type.startswith("application/openmetrics-text")
        assert response.get_data(as_text=True).endswith("# EOF\n")


def test_every_metric_says_what_it_is(service):
    families = scrape(service).families
    assert families
    for name, family in families.items():
        assert name.startswith("flask_hotreload_"), "the application's own metrics are not told here"
        assert family.documentation.endswith("."), name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert {"app"} <= family.samples[0].labels.keys(), name


def test_a_reload_is_told_in_generation_label_and_count(service):
    before = scrape(service)
    assert (before.value("generation"), before.value("generation_info", label="")) == (0, 1)
    assert before.value("reloads_total", outcome="committed", trigger="python") == 0
    service.reload("rate", label="v2")
    after = scrape(service)
    assert (after.value("generation"), after.value("generation_info", label="v2")) == (1, 1)
    assert after.value("reloads_total") == 1
    assert after.value("reloads_total", outcome="committed", trigger="python") == 1
    assert after.value("pause_seconds_count") == 1
    assert after.value("phase_seconds_count", phase="prepare") == 1
    assert 0 < after.value("pause_seconds_sum") < 5, "seconds, not milliseconds"


def test_each_outcome_and_trigger_is_counted_once(service):
    service.reload_over_http(data={"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"})
    service.reload("rate", dry_run=True)
    service.rpc.rollback()
    with pytest.raises(ReloadInvalid):
        service.rpc.reload([])
    service.write("handlers.py", "def rate(")
    with pytest.raises(LoadError):
        service.reload("rate")
    after = scrape(service)
    counted = {
        (sample.labels["outcome"], sample.labels["trigger"]): sample.value
        for sample in after.families["flask_hotreload_reloads"].samples
        if sample.value
    }
    assert counted == {
        ("committed", "http"): 1,
        ("checked", "python"): 1,
        ("committed", "rollback"): 1,
        ("aborted", "python"): 2,
    }


def test_each_application_of_a_process_tells_its_own(service, tmp_path):
    other = Flask("another", root_path=str(tmp_path))
    HotRPC(other, token=TOKEN).reload([{"dispatcher": lambda: 2, "name": "two", "path": "/api"}])
    assert scrape(service).value("reloads_total") == 0
    with other.test_client().get("/_reload/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        told = Scrape(response.get_data(as_text=True))
    assert (told.value("reloads_total"), told.value("reloads_total", app="another")) == (1, 1)


def test_a_retry_with_the_same_id_counts_nothing_again(service):
    for _ in range(2):
        service.reload("rate", id="once")
    assert scrape(service).value("reloads_total") == 1


def test_requests_inside_and_held_are_those_of_the_moment_and_the_held_ones_are_timed(service):
    lock = service.rpc._served.reloader.lock
    found, answers = [], []

    def callback(server, module, dispatcher):
        held = threading.Thread(target=lambda: answers.append(service.call("rate", 4)))
        held.start()
        until(lambda: lock.held == 1, "nobody is held")
        found.append((scrape(service), held))

    service.call("rate", 4)
    service.reload(
        {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api", "overload": callback},
    )
    (during, thread) = found[0]
    thread.join()
    after = scrape(service)
    assert answers == [8]
    assert (during.value("requests_held"), during.value("held_seconds_count")) == (1, 0)
    assert (after.value("requests_held"), after.value("held_seconds_count")) == (0, 1)
    assert after.value("held_seconds_sum") > 0
    assert after.value("requests_in_flight") == 0


def test_a_request_inside_is_told(site):
    site.serve(
        """
        from threading import Event
        there, go_on = Event(), Event()
        @app.get("/slow")
        def slow():
            there.set()
            assert go_on.wait(10)
            return "done"
        """
    )
    thread = threading.Thread(target=lambda: site.client().get("/slow").close())
    thread.start()
    assert site.module.there.wait(10)
    during = scrape(site)
    site.module.go_on.set()
    thread.join()
    assert (during.value("requests_in_flight"), scrape(site).value("requests_in_flight")) == (1, 0)


def test_files_that_differ_from_what_runs_are_counted(service):
    service.rpc.reload()
    assert scrape(service).value("pending_files") == 0
    service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount")
    service.write("further.py", "")
    assert scrape(service).value("pending_files") == 2
    service.rpc.reload()
    assert scrape(service).value("pending_files") == 0


def test_reloads_of_the_whole_source_register_nothing_again_and_set_nothing_back(service):
    for edition in range(1, 4):
        service.rewrite(BODY + f"EDITION = {edition}\n")
        assert service.rpc.reload().status == "committed"
        assert scrape(service).value("reloads_total") == edition
    assert scrape(service).value("generation") == 3


def test_the_workers_are_counted_by_state(service):
    told = scrape(service)
    assert [told.value("workers", state=state) for state in ("serving", "behind", "tainted")] == [1, 0, 0]


# An application's own metrics --------------------------------------------------------------------------------------

OWN = """
from prometheus_client import Counter
{made}
@rpc.dispatcher("/api")
def order() -> float:
    orders.inc()
    return orders._value.get()
"""


@pytest.fixture
def registry():
    """What tests register with prometheus-client's own registry is taken out again."""
    from prometheus_client import REGISTRY

    before = set(REGISTRY._collector_to_names)
    yield REGISTRY
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


def test_a_kept_metric_of_the_application_goes_on_counting_through_reloads(site, registry):
    body = OWN.replace("{made}", "orders = rpc.keep('orders', lambda: Counter('own_orders', 'Orders.'))")
    site.serve(body)
    assert site.call("order") == 1
    site.rewrite(body + "EDITION = 2\n")
    assert site.rpc.reload().status == "committed"
    assert site.call("order") == 2
    assert "own_orders_total" not in scrape(site).names()


def test_a_metric_that_is_made_twice_is_refused_with_the_remedy(site, registry):
    body = OWN.replace("{made}", "orders = Counter('twice_orders', 'Orders.')")
    site.serve(body)
    site.rewrite(body + "EDITION = 2\n")
    with pytest.raises(LoadError, match=r"rpc\.keep") as refused:
        site.rpc.reload()
    assert refused.value.line is not None
    assert site.call("order") == 1


# When there are none -----------------------------------------------------------------------------------------------

ASK = """
import sys
{before}
from flask import Flask
from flask_hotreload import HotRPC
app = Flask(__name__)
rpc = HotRPC(app, token="0123456789abcdef", roots=sys.argv[1])
rpc.register_function(lambda: 1, "/api", name="one")
rpc.reload([{"dispatcher": lambda: 2, "name": "one", "path": "/api"}])
client = app.test_client()
answer = client.get("/_reload/metrics", headers={"Authorization": "Bearer 0123456789abcdef"})
print(answer.status_code, answer.content_type, answer.json["detail"], client.post("/api/one").json, sep="\\n")
"""


def asked(folder, before="", **environment):
    """Status, content type, detail, and what a dispatcher answers, of a process of its own."""
    script = folder / "ask.py"
    script.write_text(ASK.replace("{before}", before))
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_without_prometheus_client_the_route_says_what_to_install_and_the_service_serves(tmp_path):
    status, kind, detail, answer = asked(tmp_path, before="sys.modules['prometheus_client'] = None")
    assert (status, kind, answer) == ("501", "application/problem+json", "2")
    assert "pip install 'flask-hotreload[metrics]'" in detail


def test_a_folder_of_the_workers_that_is_not_there_is_told_and_the_service_serves(tmp_path):
    status, _, detail, answer = asked(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "nowhere"))
    assert (status, answer) == ("501", "2")
    assert "PROMETHEUS_MULTIPROC_DIR" in detail


# Several workers ---------------------------------------------------------------------------------------------------

GAUGE = """
from prometheus_client import Gauge
busy = Gauge("own_busy", "Own.", multiprocess_mode="liveall")
busy.set(1)
"""


@pytest.fixture
def start(tmp_path):
    """Start two workers; ``own``: with a metric of the application's."""

    def start(*, own=False, **options):
        folder = cluster_service(tmp_path / "service")
        if own:
            with (folder / "app.py").open("a") as file:
                file.write(GAUGE)
        return cluster(folder, workers=2, options=("--config", "python:flask_hotreload.gunicorn"), **options)

    return start


def scraped(running, connection=None):
    status, text = running.request("GET", "/_reload/metrics", connection=connection)
    assert status == 200, text
    return Scrape(text)


def reload_on_each(running):
    """One reload on each worker; return their process ids."""
    pids = sorted(running.await_members())
    for edition, pid in enumerate(pids, start=1):
        running.edit(edition)
        with running.connected_to(pid) as connection:
            running.reload(connection=connection)
    return pids


def test_without_a_shared_folder_a_worker_tells_its_own_counts_and_the_gauges_of_all(start):
    with start() as running:
        for pid in reload_on_each(running):
            with running.connected_to(pid) as connection:
                told = scraped(running, connection)
            assert told.value("reloads_total", outcome="committed", trigger="http") == 1
            assert told.value("generation") == 2
            assert told.value("workers", state="serving") == 2


def test_with_a_shared_folder_every_worker_tells_the_counts_of_all_also_of_those_that_died(start, tmp_path):
    (tmp_path / "metrics").mkdir()
    with start(own=True, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}) as running:
        pids = reload_on_each(running)
        told = [scraped(running) for _ in range(6)]
        assert {each.value("reloads_total") for each in told} == {2}
        assert {each.value("pause_seconds_count") for each in told} == {2}
        assert not [name for name in told[0].names() if name.startswith("own_")]
        running.kill(pids[0])
        running.await_members()
        running.reload()
        after = scraped(running)
        assert (after.value("reloads_total"), after.value("workers", state="serving")) == (3, 2)
        assert state(pids[0]) is None
        live = tmp_path / "metrics"
        eventually(lambda: not list(live.glob(f"gauge_live*_{pids[0]}.db")), "a dead worker's gauges are still told")
        assert list(live.glob(f"gauge_live*_{pids[1]}.db"))


@pytest.mark.parametrize("shared", [False, True])
def test_preloaded_code_counts_in_each_worker(start, tmp_path, shared):
    (tmp_path / "metrics").mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")} if shared else {}
    folder = cluster_service(tmp_path / "service")
    with cluster(folder, workers=2, options=("--preload",), env=env) as running:
        for pid in reload_on_each(running):
            with running.connected_to(pid) as connection:
                assert scraped(running, connection).value("reloads_total") == (2 if shared else 1)


# The dashboard -----------------------------------------------------------------------------------------------------


def queries(value):
    """Every query in the dashboard."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key in ("expr", "query") and isinstance(each, str):
                yield each
            else:
                yield from queries(each)
    elif isinstance(value, list):
        for each in value:
            yield from queries(each)


def test_every_metric_that_the_dashboard_asks_for_exists_and_each_that_exists_is_shown(service):
    service.reload("rate")
    there = scrape(service).names()
    asked_for = {
        name for query in queries(json.loads(DASHBOARD.read_text())) for name in re.findall(r"flask_\w+", query)
    }
    assert asked_for
    assert asked_for <= there
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked_for}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in there} == shown

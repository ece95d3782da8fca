"""A reload told by server-sent events: which, in which order, and that no reader can delay it."""

from __future__ import annotations

import json
import threading

import pytest
from cluster import TOKEN as CLUSTER_TOKEN
from cluster import cluster, service
from conftest import TOKEN, until

from flask_hotreload import stream

ENTRY = {"dispatcher": "edition", "scriptPath": "handlers.py", "path": "/api"}
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}


def events(text):
    """``(event, data)`` of a whole stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def told(found):
    """Each event in a word or two."""
    words = {"phase": "phase", "worker": "step"}
    return [f"{event} {data[words[event]]}" if event in words else event for event, data in found]


@pytest.fixture
def served(site):
    site.write("handlers.py", "def edition() -> int:\n    return 1\n")
    return site.serve("import handlers\nrpc.register_function(handlers.edition, '/api')\n")


def streamed(served, document, route="", **options):
    return served.client().post(f"/_reload{route}", json=document, headers=HEADERS, **options)


def test_each_phase_and_worker_is_told_in_order_and_the_report_last(served):
    served.write("handlers.py", "def edition() -> int:\n    return 2\ndef act(server, module, dispatcher): pass\n")
    document = {
        "id": "told",
        "data": {**ENTRY, "overload": "act"},
        "checks": [{"path": "/api", "method": "edition", "result": 2}],
    }
    with streamed(served, document) as response:
        found = events(response.get_data(as_text=True))
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    assert told(found) == [
        "begin", "phase prepare", "phase check", "worker prepared", "phase drain", "phase apply", "worker applied",
        "phase decide", "phase release", "report",
    ]  # fmt: skip
    assert found[0][1]["id"] == "told"
    assert found[-1][1] == served.control("/generations/told").get_json()
    assert served.call("edition") == 2


def test_the_last_event_of_a_refused_reload_is_its_problem_document(served):
    served.write("handlers.py", "def edition(:\n")
    with streamed(served, {"data": ENTRY}) as response:
        found = events(response.get_data(as_text=True))
    assert told(found) == ["begin", "phase prepare", "worker prepared", "report"]
    assert found[-2][1]["ok"] is False
    problem = found[-1][1]
    assert (problem["status"], problem["report"]["error"]["line"]) == (422, 1)


def test_a_document_at_fault_is_told_by_the_only_event(served):
    with streamed(served, {"nonsense": 1}) as response:
        [(event, problem)] = events(response.get_data(as_text=True))
    assert (event, problem["status"]) == ("report", 400)
    assert "nonsense" in problem["detail"]


def test_what_is_refused_before_it_begins_has_its_own_status(served):
    refused = served.client().post("/_reload", json={}, headers={"Accept": "text/event-stream"})
    assert refused.status_code == 401
    assert served.client().post("/_reload", data="{", headers=HEADERS).status_code == 400


def test_a_rollback_is_told_and_rolls_back_nothing_again_with_the_same_id(served):
    served.reload("edition")
    served.reload("edition")
    for _ in range(2):
        with streamed(served, {"id": "back"}, "/rollback") as response:
            event, report = events(response.get_data(as_text=True))[-1]
        assert (event, report["id"], report["restores"], report["generation"]) == ("report", "back", 1, 3)
    with streamed(served, {"id": 5}, "/rollback") as response:
        assert response.status_code == 400


def test_a_reload_ends_while_nobody_reads(served, caplog):
    caplog.set_level("INFO", "flask_hotreload.audit")
    with streamed(served, {"data": ENTRY, "id": "unread"}):
        until(lambda: served.rpc.generation == 1, "the reload waits for its reader")
    assert [json.loads(record.getMessage())["status"] for record in caplog.records if "audit" in record.name] == [200]


def test_events_that_nobody_takes_are_dropped_but_never_the_last(nothing_is_left):
    done = threading.Event()

    def work(progress):
        for number in range(stream.MOST + 10):
            progress("phase", {"phase": str(number)})
        done.set()
        return b"{}"

    body = stream.EventStream(work)
    assert done.wait(10)
    found = list(body)
    body.close()
    assert len(found) == stream.MOST + 1
    assert found[-1] == b"event: report\ndata: {}\n\n"


def test_silence_is_broken_by_comments(nothing_is_left, monkeypatch):
    monkeypatch.setattr(stream, "SILENCE", 0.01)
    go_on = threading.Event()
    body = stream.EventStream(lambda progress: b"{}" if go_on.wait(10) else b"")
    assert next(body) == b":\n\n"
    go_on.set()
    assert [event for event in body if event != b":\n\n"] == [b"event: report\ndata: {}\n\n"]
    body.close()


def test_closing_waits_for_the_end_of_the_reload(nothing_is_left):
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def work(progress):
        begun.set()
        assert go_on.wait(10)
        ended.append(True)
        return b"{}"

    body = stream.EventStream(work)
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    body.close()
    assert ended


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_every_workers_votes_are_told_under_each_kind_of_worker(tmp_path, worker_class):
    with cluster(service(tmp_path / "service"), workers=2, worker_class=worker_class) as running:
        pids = running.await_members()
        running.edit(1)
        document = {"data": {"dispatcher": "where", "scriptPath": "where.py", "path": "/api"}}
        found = post(running, document)
        words = told(found)
        assert words[0] == "begin"
        assert words[-1] == "report"
        assert [word for word in words if word.startswith("phase")] == [
            "phase prepare", "phase drain", "phase decide", "phase release"
        ]  # fmt: skip
        assert len(found[0][1]["workers"]) == 2
        for step in ("prepared", "applied", "settled"):
            told_by = [data["pid"] for event, data in found if event == "worker" and data["step"] == step]
            assert (len(told_by), set(told_by)) == (2, pids), step
        assert found[-1][1]["status"] == "committed"
        running.edit(2, extra="\ndef broken(\n")
        found = post(running, document)
        assert [data["ok"] for event, data in found if event == "worker" and data["step"] == "prepared"] == [False]
        assert found[-1][1]["status"] == 422


def post(running, document):
    connection = running.connection()
    try:
        headers = {"Authorization": f"Bearer {CLUSTER_TOKEN}", "Accept": "text/event-stream"}
        connection.request("POST", "/_reload", json.dumps(document), headers)
        response = connection.getresponse()
        assert response.status == 200
        return events(response.read().decode())
    finally:
        connection.close()

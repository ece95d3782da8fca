"""Two hosts of one deployment, whose code lies in different folders: two real gunicorns that meet in one store."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from cluster import DOCUMENT, cluster, service, until, write_edition

HOOKS = ("--config", "python:flask_hotreload.gunicorn")
WHOLE: dict[str, object] = {}
PROBE = {"data": [{"dispatcher": "probe", "scriptPath": "probe.py", "path": "/api"}]}
ROLLBACK = "/_reload/rollback"

#: Tells where it lies, with what it was made, and fails in a line that quotes itself.
PROBING = """\
import linecache, pathlib, sys
from dataclasses import dataclass

import extra

@dataclass
class Point:
    x: int

def probe() -> dict:
    here = pathlib.Path(__file__)
    code = [probe.__code__, *(each for each in probe.__code__.co_consts if hasattr(each, "co_filename"))]
    inside = {each.co_filename for each in code}
    return {"file": str(here), "compiled": sorted(inside), "extra": extra.__file__, "value": extra.VALUE,
            "same": isinstance(Point(1), sys.modules[__name__].Point), "first": linecache.getline(__file__, 1)}

def fail() -> None:
    raise RuntimeError("on purpose")  # only where it was asked for
"""


def host(folder, shared, *, workers=1, env=None, **options):
    env = {
        "HOTRELOAD_COORDINATOR": f"sqlite://{shared}/store.sqlite",
        "HOTRELOAD_DEPLOYMENT": "shop",
        "HOTRELOAD_RELEASE": "1",
        **(env or {}),
    }
    return cluster(folder, workers=workers, env=env, options=(*HOOKS, "--chdir", str(folder)), **options)


@pytest.fixture
def shared(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    return folder


def folders(tmp_path):
    for name in ("srv", "opt"):
        (tmp_path / name).mkdir()
    return service(tmp_path / "srv" / "shop"), service(tmp_path / "opt" / "other")


@pytest.fixture
def hosts(tmp_path, shared):
    one, other = folders(tmp_path)
    with host(one, shared, workers=2) as first, host(other, shared) as second:
        meet(first, second)
        yield first, second


def meet(*hosts):
    everybody = set().union(*(each.workers() for each in hosts))
    until(lambda: set(hosts[0].members()) == everybody, f"{everybody} do not meet: {hosts[0].members()}")


def served(*hosts):
    """Edition and generation, which must be the same in every worker of all."""
    told = {(a["edition"], a["generation"]) for each in hosts for a in each.everywhere().values()}
    assert len(told) == 1, told
    return told.pop()


def rollback(running, to=None):
    status, report = running.request("POST", ROLLBACK, {} if to is None else {"to": to})
    assert status == 200, report
    return report


def put_probe(folder, value=1):
    (folder / "probe.py").write_text(PROBING)
    (folder / "extra.py").write_text(f"VALUE = {value}\n")


def replace_worker(running, *, of=()):
    before = running.workers()
    running.kill(min(before))
    until(lambda: len(running.workers() - before) == 1, "no worker takes its place")
    meet(running, *of)


def test_what_lies_on_one_host_alone_is_served_by_both_and_shown_as_each_ones_own_file(hosts):
    put_probe(hosts[0].folder)
    for number, asked in enumerate((PROBE, PROBE, WHOLE), start=1):
        if asked is WHOLE:
            hosts[0].edit(1, extra="import probe\ndef where() -> dict:\n    return probe.probe()\n")
        report = hosts[0].reload(asked)
        assert [worker["ok"] for worker in report["workers"]] == [True] * 3
        for each in hosts:
            own = each.folder / "probe.py"
            assert each.status()["generation"] == number
            assert each.call("where" if asked is WHOLE else "probe") == {
                "file": str(own), "compiled": [str(own)], "extra": str(each.folder / "extra.py"), "value": 1,
                "same": True, "first": "import linecache, pathlib, sys\n",
            }  # fmt: skip
    assert not (hosts[1].folder / "probe.py").exists()


def test_a_whole_source_of_one_host_is_that_of_both_and_each_leads_back(hosts):
    one, other = hosts
    (one.folder / "fresh.py").write_text("VALUE = 7\n")
    one.edit(1, extra="import fresh\nEDITION = fresh.VALUE\n")
    report = one.reload({"label": "v7"})
    assert "fresh" in report["modules"]
    assert served(one, other) == (7, 1)
    differing = {(change["file"], change["change"]) for change in other.status()["pending"]}
    assert differing == {(str(other.folder / "fresh.py"), "deleted"), (str(other.folder / "where.py"), "modified")}
    assert one.status()["pending"] == []
    assert other.request("POST", "/_reload", WHOLE)[1]["status"] == "committed"  # its own disk is another source
    assert served(one, other) == (0, 2)
    assert rollback(other)["restores"] == 1
    assert served(one, other) == (7, 3)
    assert rollback(one)["restores"] == 0
    assert served(one, other) == (0, 4)


def test_a_later_worker_of_the_other_host_serves_what_was_committed(hosts):
    one, other = hosts
    one.edit(1)
    one.reload(WHOLE)
    put_probe(one.folder)
    one.reload(PROBE)
    replace_worker(other, of=[one])
    assert served(one, other) == (1, 2)
    assert other.call("probe")["file"] == str(other.folder / "probe.py")
    assert rollback(other)["restores"] == 1
    assert served(one, other) == (1, 3)
    replace_worker(one, of=[other])
    assert served(one, other) == (1, 3)
    other.edit(5)
    assert other.reload()["generation"] == 4
    replace_worker(one, of=[other])
    assert served(one, other) == (5, 4)


def test_whichever_host_is_asked_the_same_dispatcher_is_superseded(tmp_path, shared):
    one, other = folders(tmp_path)
    env = {"HOTRELOAD_KEEP_GENERATIONS": "0"}
    with host(one, shared, env=env) as first, host(other, shared, env=env) as second:
        meet(first, second)
        for edition in range(1, 5):
            asked = (first, second)[edition % 2]
            asked.edit(edition)
            asked.reload()
            assert served(first, second) == (edition, edition)
        with closing(sqlite3.connect(shared / "store.sqlite")) as store:
            assert store.execute("SELECT generation FROM journal WHERE live").fetchall() == [(4,)]
        for each, rest in ((first, second), (second, first)):
            replace_worker(each, of=[rest])
        assert served(first, second) == (4, 4)


def test_an_error_of_one_host_names_its_own_file_and_quotes_what_ran(hosts):
    one, other = hosts
    line = f"if {str(other.folder)!r} in __file__: raise RuntimeError('not here')\n"
    one.edit(1, extra=line)
    status, problem = one.request("POST", "/_reload", WHOLE)
    assert status == 422, problem
    error = problem["report"]["error"]
    assert error["file"] == str(other.folder / "where.py")
    assert error["line"] == len((one.folder / "where.py").read_text().splitlines())
    assert line.strip() in error["traceback"]
    assert str(one.folder) not in error["traceback"]
    assert [worker["ok"] for worker in problem["report"]["workers"]].count(False) == 1
    one.edit(1, extra="1 / 0\n")
    status, problem = one.request("POST", "/_reload", WHOLE)
    assert (status, problem["report"]["error"]["file"]) == (422, str(one.folder / "where.py"))
    assert served(one, other) == (0, 0)


def test_the_log_of_a_host_quotes_what_failed_there_though_the_file_is_not_on_its_disk(hosts):
    one, other = hosts
    put_probe(one.folder)
    one.reload({"data": [{**PROBE["data"][0], "dispatcher": "fail"}]})
    body = {"jsonrpc": "2.0", "id": 1, "method": "fail", "params": []}
    assert other.request("POST", "/api", body)[1]["error"]["code"] == -32603
    told = until(lambda: other.logged() if "on purpose" in other.logged() else "", "nothing is logged")
    assert f'File "{other.folder / "probe.py"}", line {len(PROBING.splitlines())}, in fail' in told
    assert 'raise RuntimeError("on purpose")  # only where it was asked for' in told
    assert str(one.folder) not in told


def test_a_script_outside_of_the_roots_is_refused_before_anybody_hears_of_it(hosts, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text("def f(): ...\n")
    entry = {"dispatcher": "f", "scriptPath": str(outside), "path": "/api"}
    status, problem = hosts[0].request("POST", "/_reload", {"data": [entry]})
    assert status == 400
    assert "HOTRELOAD_ROOTS" in problem["detail"]
    entry["scriptPath"] = str(hosts[1].folder / "where.py")
    assert hosts[0].request("POST", "/_reload", {"data": [entry]})[0] == 400
    entry.update(scriptPath=str(hosts[0].folder / "where.py"), dispatcher="where")
    assert hosts[0].reload({"data": [entry]})["generation"] == 1


def test_a_host_with_another_number_of_roots_refuses_and_says_what_to_set(tmp_path, shared):
    one, other = folders(tmp_path)
    (other / "more").mkdir()
    env = {"HOTRELOAD_ROOTS": f"{other},{other / 'more'}"}
    with host(one, shared) as first, host(other, shared, env=env) as second:
        meet(first, second)
        first.edit(1)
        status, problem = first.request("POST", "/_reload", WHOLE)
        assert (status, problem["report"]["error"]["type"]) == (503, "WorkerFailed")
        assert "HOTRELOAD_ROOTS" in problem["detail"]
        assert served(first, second) == (0, 0)


@pytest.mark.parametrize("data", [WHOLE, DOCUMENT], ids=["whole", "dispatcher"])
def test_a_link_switched_on_one_host_leads_nowhere_else(tmp_path, shared, data):
    one, other = folders(tmp_path)
    current = tmp_path / "srv" / "current"
    current.symlink_to(one)
    later = service(tmp_path / "srv" / "later")
    write_edition(later, 1)
    env = {"HOTRELOAD_ROOTS": str(current)}
    with host(current, shared, env=env) as first, host(other, shared) as second:
        meet(first, second)
        current.unlink()
        current.symlink_to(later)
        first.reload(data)
        assert served(first, second) == (1, 1)
        replace_worker(second, of=[first])
        assert served(first, second) == (1, 1)
        write_edition(other, 2)
        second.reload(data)
        assert served(first, second) == (2, 2)
        replace_worker(first, of=[second])
        assert served(first, second) == (2, 2)


def test_a_worker_that_started_from_other_files_leads_back_to_what_the_release_began_with(hosts):
    one, other = hosts
    for each in hosts:
        each.edit(1)
    one.reload(WHOLE)
    one.reload()
    for each in hosts:
        each.edit(8)  # what no worker has read yet
    replace_worker(other, of=[one])
    assert served(one, other) == (1, 2)
    assert rollback(one, to=0)["restores"] == 0
    assert served(one, other) == (0, 3)
    replace_worker(other, of=[one])
    assert served(one, other) == (0, 3)


def test_a_worker_that_starts_from_other_files_runs_dispatchers_on_what_the_release_began_with(hosts):
    one, other = hosts
    put_probe(one.folder)
    one.reload(PROBE)
    for each in hosts:
        each.edit(8)  # served by nobody
    replace_worker(other, of=[one])
    assert served(one, other) == (0, 1)
    assert other.call("probe")["value"] == 1
    other.edit(2)
    assert other.reload()["generation"] == 2
    replace_worker(one, of=[other])
    assert served(one, other) == (2, 2)
    assert rollback(other, to=0)["restores"] == 0
    assert served(one, other) == (0, 3)


def test_what_one_host_has_staged_the_other_serves_as_preview_and_commits(hosts):
    one, other = hosts
    one.edit(1)
    assert one.post_reload({"stage": True, "id": "next"})[1]["status"] == "checked"
    replace_worker(other, of=[one])
    status, report = other.request("POST", "/_reload/commit", {"id": "next"})
    assert (status, report["status"]) == (200, "committed"), report
    assert [worker["ok"] for worker in report["workers"]] == [True] * 3
    assert served(one, other) == (1, 1)

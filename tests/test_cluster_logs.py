"""What the workers of one gunicorn log together."""

from __future__ import annotations

import json

import pytest
from cluster import DOCUMENT, cluster, service, until

LOGGING = """
import logging
from flask_hotreload import GenerationFilter
handler = logging.StreamHandler()
handler.addFilter(GenerationFilter())
handler.setFormatter(logging.Formatter("LINE %(levelname)s %(name)s %(process)d %(generation)s %(message)s"))
logging.basicConfig(level=logging.INFO, handlers=[handler])
"""


@pytest.fixture
def running(tmp_path):
    folder = service(tmp_path / "service")
    (folder / "app.py").write_text((folder / "app.py").read_text() + LOGGING)
    options = ("--config", "python:flask_hotreload.gunicorn")
    with cluster(folder, workers=3, options=options) as running:
        running.await_members()
        yield running


def lines(running, level):
    """``(process id, generation, text)`` of what was logged on the package's own logger."""
    found = []
    for line in running.logged().splitlines():
        if line.startswith(f"LINE {level} flask_hotreload "):
            pid, generation, text = line.split(" ", 5)[3:]
            found.append((int(pid), generation, text))
    return found


def test_a_reload_is_one_line_of_the_worker_that_was_asked(running):
    asked = max(running.workers())
    with running.connected_to(asked) as connection:
        running.edit(1)
        running.reload({**DOCUMENT, "id": "deploy-1"}, connection=connection)
    [(pid, generation, text)] = [line for line in lines(running, "INFO") if "deploy-1" in line[2]]
    assert (pid, generation) == (asked, "1")
    assert text.startswith("reload deploy-1 committed: generation 0 → 1, 1 changes, pause ")


def test_a_refused_reload_is_one_warning_with_file_and_line(running):
    running.edit(1, extra="\n1 / 0\n")
    status, problem = running.post_reload()
    assert status == 422
    [(_, generation, text)] = lines(running, "WARNING")
    error = problem["report"]["error"]
    assert f"{error['file']}:{error['line']}" in text
    assert generation == "0"


def test_a_worker_that_starts_warns_if_what_it_serves_is_not_what_lies_on_disk(running):
    running.edit(1)
    running.reload({"label": "v1"})
    before = running.workers()
    running.kill(min(before))
    [new] = running.await_members() - before
    with running.connected_to(new):  # a member looks at the disk before its first request
        assert not lines(running, "WARNING"), "it serves what lies on disk"
    running.edit(2)
    before = running.workers()
    running.kill(min(before))
    [new] = running.await_members() - before
    # The application imports its modules before the package, so that it is warned of that, too.
    told = until(lambda: [line for line in lines(running, "WARNING") if "differs from" in line[2]], "nobody warns")
    [(pid, generation, text)] = told
    assert (pid, generation) == (new, "1")
    file = str(running.folder / "where.py")
    assert (
        text == f"1 file on disk differs from v1, which runs; after a restart what is on disk would: {file} modified"
    )


def test_a_rollback_warns_once_that_a_restart_would_undo_it(running):
    for edition in (1, 2):
        running.edit(edition)
        running.reload({"label": f"v{edition}"})
    status, report = running.request("POST", "/_reload/rollback", {})
    assert status == 200, json.dumps(report)
    told = "disk has v2, v1 runs; after a restart v2 would"
    warned = until(lambda: lines(running, "WARNING"), "nobody warns")
    assert [text for _, _, text in warned] == [told]
    assert running.status()["drift"] == told

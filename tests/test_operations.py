"""What the page for operators says of gunicorn, in a real one."""

from __future__ import annotations

from cluster import cluster, service


def test_a_worker_of_preloaded_code_begins_while_the_file_on_disk_is_broken(tmp_path):
    with cluster(service(tmp_path / "service"), workers=2, options=("--preload",)) as running:
        before = running.await_members()
        running.edit(1)
        running.reload()
        running.edit(2, extra="\ndef broken(\n")
        assert running.post_reload()[0] == 422
        victim = max(before)
        running.kill(victim)
        after = running.await_members()
        assert victim not in after
        assert {(a["edition"], a["generation"]) for a in running.everywhere().values()} == {(1, 1)}

"""``HOTRELOAD_WATCH`` under real servers: what is saved is served, in the same process, with its state."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from cluster import cluster, until
from servers import Server, serve

SERVICE = Path(__file__).parent / "apps" / "watched"
TOKEN = "0123456789abcdef-watch"
ENVIRONMENT = {
    "HOTRELOAD_TOKEN": TOKEN,
    "HOTRELOAD_WATCH": "1",
    "HOTRELOAD_KEEP": "state",
    "HOTRELOAD_TIMEOUT": "12",
}
SERVERS = {
    "flask run": {"kind": "flask"},
    "gunicorn gthread": {"kind": "gunicorn"},
    "gunicorn sync": {"kind": "gunicorn", "worker_class": "sync"},
    "gunicorn gevent": {"kind": "gunicorn", "worker_class": "gevent"},
    "gunicorn gthread --preload": {"kind": "gunicorn", "options": ["--preload"]},
    "gunicorn gevent --preload": {"kind": "gunicorn", "worker_class": "gevent", "options": ["--preload"]},
    "waitress": {"kind": "waitress"},
}
every_server = pytest.mark.parametrize("kind", SERVERS)
both_servers = pytest.mark.parametrize("kind", ["flask run", "gunicorn gthread"])


class Watched:
    """The service in a server, and its files."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server

    def get(self, path: str = "/") -> dict:
        response = requests.get(self.server.url + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()

    def await_generation(self, number: int) -> dict:
        """Wait until it is served; return its report."""
        until(lambda: self.get("/_reload")["generation"] >= number, f"generation {number} never came")
        # It is served a moment before its report is written.
        (report,) = until(
            lambda: [each for each in self.attempts("committed") if each["generation"] == number], "it has no report"
        )
        return report

    def attempts(self, *statuses: str) -> list[dict]:
        """The reports, oldest first; those of these statuses, or all."""
        reports = self.get("/_reload/generations")[::-1]
        return [each for each in reports if not statuses or each["status"] in statuses]

    def await_refusal(self, number: int = 1) -> dict:
        until(lambda: len(self.attempts("aborted")) >= number, f"there was no refusal number {number}")
        return self.attempts("aborted")[number - 1]


def edition(number: object) -> str:
    return f"def edition():\n    return {number}\n"


def service(folder: Path) -> Path:
    shutil.copytree(SERVICE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextmanager
def watched(kind: str, folder: Path, **settings: str) -> Iterator[Watched]:
    """The service in ``folder``; ``settings`` without their prefix."""
    env = ENVIRONMENT | {f"HOTRELOAD_{name.upper()}": value for name, value in settings.items()}
    with serve(app="app:app", cwd=folder, env=env, ready="/_reload/health", **SERVERS[kind]) as server:
        yield Watched(folder, server)


# What is saved is served ---------------------------------------------------------------------------------------


@every_server
def test_a_save_is_served_by_the_same_process_with_its_state(kind, tmp_path):
    with watched(kind, service(tmp_path / "service")) as site:
        before = site.get()
        assert (before["edition"], before["kept"], before["visits"]) == (0, 1, 1)
        (site.folder / "views.py").write_text(edition(1))
        report = site.await_generation(1)
        assert (report["trigger"], report["status"]) == ("watch", "committed")
        after = site.get()
        assert (after["edition"], after["kept"], after["visits"]) == (1, 2, 2)
        assert after["pid"] == before["pid"]


@both_servers
def test_a_broken_save_is_told_once_and_the_next_good_one_takes(kind, tmp_path):
    with watched(kind, service(tmp_path / "service")) as site:
        site.get()
        (site.folder / "views.py").write_text("def edition():\n    return 1 +\n")
        refusal = site.await_refusal()
        assert refusal["trigger"] == "watch"
        assert (refusal["error"]["file"], refusal["error"]["line"]) == (str(site.folder / "views.py"), 2)
        assert site.get()["edition"] == 0
        (site.folder / "state.txt").write_text("a hint, and nothing else")
        (site.folder / "views.py").touch()
        (site.folder / "views.py").write_text(edition(2))
        site.await_generation(1)
        after = site.get()
        assert (after["edition"], after["kept"]) == (2, 3)
        assert [each["status"] for each in site.attempts()] == ["aborted", "committed"]
        told = [line for line in site.server.log().splitlines() if re.search(r"views\.py:2: SyntaxError", line)]
        assert len(told) == 1, site.server.log()


@both_servers
def test_many_files_at_once_are_one_reload(kind, tmp_path):
    folder = service(tmp_path / "service")
    for number in range(50):
        (folder / f"part_{number}.py").write_text("VALUE = 0\n")
    parts = ", ".join(f"part_{number}" for number in range(50))
    (folder / "views.py").write_text(f"import {parts}\ndef edition():\n    return sum(p.VALUE for p in ({parts}))\n")
    with watched(kind, folder) as site:
        assert site.get()["edition"] == 0
        for number in range(50):
            (folder / f"part_{number}.py").write_text("VALUE = 1\n")
        until(lambda: site.get()["edition"] == 50, "not all of them are served")
        assert len(site.attempts()) <= 2, "each reload takes what was written until then"


@both_servers
def test_of_many_quick_saves_the_last_one_is_served_in_the_end(kind, tmp_path):
    with watched(kind, service(tmp_path / "service")) as site:
        for number in range(1, 201):
            target = site.folder / ("views.py" if number % 2 else "views.new")
            target.write_text(edition(number))
            os.replace(target, site.folder / "views.py")
            if number % 10 == 0:
                site.get()  # so that some fall into a reload, and some between two
        until(lambda: site.get()["edition"] == 200, "the last save is not served")
        assert site.get("/_reload")["pending"] == []
        assert site.attempts("aborted") == []


def test_an_editor_that_renames_over_the_file_is_noticed(tmp_path):
    with watched("flask run", service(tmp_path / "service")) as site:
        for number in (1, 2):
            (site.folder / ".views.py.new").write_text(edition(number))
            os.replace(site.folder / ".views.py.new", site.folder / "views.py")
            site.await_generation(number)
            assert site.get()["edition"] == number


def test_a_folder_that_is_moved_in_is_noticed(tmp_path):
    folder = service(tmp_path / "service")
    for name, value in (("old", 1), ("new", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"VALUE = {value}\n")
    os.rename(tmp_path / "old", folder / "package")
    (folder / "views.py").write_text("import package\ndef edition():\n    return package.VALUE\n")
    with watched("flask run", folder) as site:
        assert site.get()["edition"] == 1
        os.rename(folder / "package", tmp_path / "old")
        os.rename(tmp_path / "new", folder / "package")
        until(lambda: site.get()["edition"] == 2, "the new folder is not served")


def test_a_deleted_file_is_noticed(tmp_path):
    folder = service(tmp_path / "service")
    (folder / "extra.py").write_text("VALUE = 7\n")
    (folder / "views.py").write_text(
        "def edition():\n    try:\n        import extra\n    except ImportError:\n        return 0\n"
        "    return extra.VALUE\n"
    )
    with watched("flask run", folder) as site:
        assert site.get()["edition"] == 7
        (folder / "extra.py").unlink()
        site.await_generation(1)
        assert site.get()["edition"] == 0


@both_servers
def test_a_link_that_is_switched_is_followed_and_what_it_leads_to_is_watched(kind, tmp_path):
    releases = [service(tmp_path / f"releases/{number}") for number in (41, 42)]
    (releases[1] / "views.py").write_text(edition(42))
    current = tmp_path / "current"
    current.symlink_to(releases[0])
    with watched(kind, current, roots=str(current)) as site:
        assert site.get()["edition"] == 0
        (tmp_path / "next").symlink_to(releases[1])
        os.replace(tmp_path / "next", current)
        site.await_generation(1)
        assert site.get()["edition"] == 42
        (releases[1] / "views.py").write_text(edition(43))
        site.await_generation(2)
        assert site.get()["edition"] == 43
        (releases[0] / "views.py").write_text("this is no longer( of interest")
        (releases[1] / "views.py").write_text(edition(44))
        site.await_generation(3)
        assert site.attempts("aborted") == []


def test_a_folder_that_is_removed_and_made_anew_is_watched_again(tmp_path):
    folder = service(tmp_path / "service")
    root = folder / "code"
    root.mkdir()
    (root / "views.py").write_text(edition(0))
    (folder / "views.py").write_text("import sys\nsys.path.insert(0, 'code')\nfrom code_views import edition\n")
    os.rename(root / "views.py", root / "code_views.py")
    with watched("flask run", folder, roots=f"{root},{folder}") as site:
        assert site.get()["edition"] == 0
        shutil.rmtree(root)
        root.mkdir()
        (root / "code_views.py").write_text(edition(1))
        until(lambda: site.get()["edition"] == 1, "the new folder's file is not served")
        (root / "code_views.py").write_text(edition(2))
        until(lambda: site.get()["edition"] == 2, "the new folder is not watched")


# While something goes on ---------------------------------------------------------------------------------------


@both_servers
def test_a_save_while_a_request_is_inside_waits_for_it_as_any_reload_does(kind, tmp_path):
    with watched(kind, service(tmp_path / "service")) as site, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(site.get, "/slow")
        until((site.folder / "slow.reached").exists, "the request is not inside")
        (site.folder / "views.py").write_text(edition(1))
        until(lambda: is_draining(site), "nothing is reloaded")
        (site.folder / "slow.open").touch()
        assert slow.result() == {"edition": 0}
        site.await_generation(1)
        assert site.get()["edition"] == 1


def is_draining(site: Watched) -> bool:
    """Whether a request is held that was sent just now: the lock is closed, and the one inside is waited for."""
    try:
        requests.get(f"{site.server.url}/", timeout=0.2)
    except requests.Timeout:
        return True
    return False


@both_servers
def test_a_save_during_a_reload_is_taken_by_the_next_one(kind, tmp_path):
    folder = service(tmp_path / "service")
    wait = "import os, time\nopen('importing', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    with watched(kind, folder) as site:
        (folder / "views.py").write_text(wait + edition(1))
        until((folder / "importing").exists, "the first save is not reloaded")
        (folder / "views.py").write_text(edition(2))
        (folder / "go").touch()
        site.await_generation(2)
        assert site.get()["edition"] == 2
        assert len(site.attempts()) == 2


def test_a_rollback_stays_until_something_is_saved(tmp_path):
    with watched("flask run", service(tmp_path / "service")) as site:
        (site.folder / "views.py").write_text(edition(1))
        site.await_generation(1)
        answer = requests.post(
            f"{site.server.url}/_reload/rollback", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        )
        assert answer.json()["generation"] == 2
        (site.folder / "views.py").touch()
        (site.folder / "elsewhere.py").write_text("")
        os.replace(site.folder / "elsewhere.py", site.folder / "elsewhere.txt")
        assert site.get()["edition"] == 0
        (site.folder / "views.py").write_text(edition(3))
        until(lambda: site.get()["edition"] == 3, "the save after a rollback is not served")


# Where it does not watch ---------------------------------------------------------------------------------------


def descriptors(pid: int) -> list[str]:
    """What the process holds of the system's notifications."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return [link for link in links if "inotify" in link]


@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn gthread --preload"])
def test_the_worker_watches_and_gunicorns_master_does_not(kind, tmp_path):
    with watched(kind, service(tmp_path / "service")) as site:
        (worker,) = site.server.children()
        until(lambda: descriptors(worker), "the worker does not watch")
        assert descriptors(site.server.pid) == []


def test_one_of_several_workers_asks_for_all_and_another_one_when_it_is_gone(tmp_path):
    settings = {name: value for name, value in ENVIRONMENT.items() if name != "HOTRELOAD_TOKEN"}
    with cluster(service(tmp_path / "service"), workers=3, env=settings) as running:
        for number in (1, 2):
            workers = running.await_members()
            (running.folder / "views.py").write_text(edition(number))
            until(lambda: {m["generation"] for m in running.members().values()} == {number}, "not all have it")  # noqa: B023
            running.kill(min(workers))
        told = [("committed", "watch", 2), ("committed", "watch", 1)]
        # The one that was killed may have had no time to tell: then the others do.
        until(lambda: attempts(running) == told, f"not {told}: {attempts(running)}")


def attempts(running):
    reports = running.get("/_reload/generations")
    return [(each["status"], each["trigger"], each["generation"]) for each in reports]


def test_several_workers_that_reload_alone_watch_nothing_and_say_so(tmp_path):
    folder = service(tmp_path / "service")
    alone = {**ENVIRONMENT, "HOTRELOAD_COORDINATOR": "local"}
    with serve(
        app="app:app",
        cwd=folder,
        env=alone,
        ready="/_reload/health",
        workers=2,
    ) as server:
        until(lambda: server.log().count("HOTRELOAD_WATCH watches nothing") == 2, "not every worker says so")
        assert [descriptors(worker) for worker in server.children()] == [[], []]


@pytest.mark.parametrize("kind", ["flask run", "gunicorn gthread", "gunicorn gevent", "waitress"])
def test_the_process_ends_as_without_watching(kind, tmp_path):
    with watched(kind, service(tmp_path / "service")) as site:
        (process,) = site.server.children() or [site.server.pid]
        until(lambda: descriptors(process), "nobody watches")
        site.server.process.send_signal(signal.SIGINT)
        status = site.server.process.wait(10)
        log = site.server.log()
        assert status == 0 or (kind == "waitress" and "KeyboardInterrupt" in log), (status, log)
        assert "fatal" not in log.lower()
        assert "SIGABRT" not in log


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--debug", "run"], ["run", "--debug"], ["run", "--reload"]])
def test_flask_run_with_its_own_reloader_ends_at_once_and_says_no_reload(arguments, tmp_path):
    done = run("-m", "flask", "--app", "app", *arguments, "--port", "0", cwd=service(tmp_path / "service"))
    assert done.returncode != 0
    assert "--no-reload" in done.stderr
    assert "Running on" not in done.stdout + done.stderr


def test_app_run_with_its_own_reloader_ends_and_says_so(tmp_path):
    folder = service(tmp_path / "service")
    with (folder / "app.py").open("a") as file:
        file.write("\nif __name__ == '__main__':\n    app.run(port=0, debug=True)\n")
    done = run("app.py", cwd=folder)
    assert done.returncode != 0
    assert "use_reloader=False" in done.stderr


def test_gunicorn_with_its_own_reloader_ends_and_says_so(tmp_path):
    arguments = ["app:app", "--reload", "--bind", "127.0.0.1:0", "--no-control-socket"]
    done = run("-m", "gunicorn", *arguments, cwd=service(tmp_path / "service"))
    assert done.returncode != 0
    assert "gunicorn --reload" in done.stderr


def test_the_command_of_the_readme_serves_what_is_saved_in_debug_mode(tmp_path):
    readme = (Path(__file__).parent.parent / "README.rst").read_text("utf-8")
    assert "    HOTRELOAD_WATCH=1 flask --app shop run --debug --no-reload  " in readme
    folder = service(tmp_path / "service")
    with serve("flask", app="app:app", cwd=folder, env=ENVIRONMENT, options=["--debug"]) as server:
        site = Watched(folder, server)
        (folder / "views.py").write_text(edition(1))
        site.await_generation(1)
        assert site.get()["edition"] == 1


def test_other_commands_and_test_clients_watch_nothing(tmp_path):
    code = (
        "import app, threading\n"
        "assert app.app.test_client().get('/').status_code == 200\n"
        "print([thread.name for thread in threading.enumerate()])\n"
    )
    done = run("-c", code, cwd=service(tmp_path / "service"))
    assert done.stdout == "['MainThread']\n", done.stderr

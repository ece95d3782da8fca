"""Applications as people write them, reloaded as a whole under steady load on a real gunicorn.

Each in ``tests/apps/whole/`` checks by itself that all that works on one answer is of one edition of its source.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from checker import Checker
from cluster import Cluster, ask, cluster, until

APPS = Path(__file__).parent / "apps" / "whole"
KEPT_GENERATIONS = 2

#: At the end of some file: code that does not compile, or fails when it is imported.
FAULTS = ["def (\n", "1 / 0\n", "import a_module_that_is_not_there\n", "raise SystemExit\n"]


@dataclass(frozen=True)
class Subject:
    """``folder`` of an application, ``app`` as gunicorn takes it.

    ``routes``
        The file and the name in it to which an odd edition adds a view.
    ``fragile``
        The files that are broken now and then.
    ``package``
        Where its part ``watch.py`` belongs.
    ``login``
        Whether its clients log in.
    """

    folder: str
    app: str
    routes: tuple[str, str] = ("app.py", "app")
    fragile: tuple[str, ...] = ("app.py",)
    package: str = "."
    login: bool = False

    def __str__(self) -> str:
        return f"{self.folder} {self.app}"


PACKAGE = Subject(
    "package",
    "shop.wsgi:app",
    routes=("shop/views/orders.py", "orders"),
    fragile=("shop/models.py", "shop/views/stock.py", "shop/settings.py", "shop/late.py"),
    package="shop",
)
SUBJECTS = [
    Subject("one_file", "app:app"),
    PACKAGE,
    Subject("package", "shop:create_app('Good evening')", PACKAGE.routes, PACKAGE.fragile, PACKAGE.package),
    Subject("accounts", "app:create_app()", ("auth.py", "auth"), ("models.py", "auth.py", "app.py"), login=True),
    Subject("templated", "app:app", fragile=("filters.py", "app.py")),
    Subject("background", "app:app", fragile=("ticker.py", "last.py", "app.py")),
    Subject("async_views", "app:app", fragile=("prices.py", "app.py")),
]


class Source:
    """The files of an application in a folder of their own, of which a test makes editions."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.folder = folder
        self._subject = subject
        shutil.copytree(APPS / subject.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(APPS / "watch.py", folder / subject.package)
        self._original = {
            file: file.read_text() for file in folder.rglob("*") if file.suffix in (".py", ".html") and file.is_file()
        }

    def edit(self, edition: int) -> None:
        """Every file becomes that edition. Each odd one has a view more."""
        file, router = self._subject.routes
        for path, text in self._original.items():
            fresh = re.sub(r"\bEDITION = 0\b", f"EDITION = {edition}", text)
            if path == self.folder / file and edition % 2:
                fresh += f"\n\n@{router}.get('/odd')\ndef odd() -> dict:\n    return {{'edition': EDITION}}\n"
            path.write_text(fresh)

    def damage(self, number: int) -> None:
        """Break a file, another one each time."""
        fragile = self._subject.fragile
        with (self.folder / fragile[number % len(fragile)]).open("a") as file:
            file.write("\n" + FAULTS[number % len(FAULTS)])


class Service:
    """The source, and the running service that it is reloaded into."""

    def __init__(self, source: Source, running: Cluster) -> None:
        self.source = source
        self.running = running
        self.generation = self.edition = 0
        self.overtaken = 0  # requests that were inside when the next generation began to serve

    def reload(self, edition: int) -> None:
        """Let each second one overtake the requests that are inside: they go on in their own generation."""
        self.source.edit(edition)
        status, report = self.running.post_reload({"timeout": 0} if edition % 2 else {})
        assert (status, report["status"]) == (200, "committed"), report
        self.overtaken += len(report["drain"]["stragglers"])
        self._is(report["generation"], edition)

    def reload_in_vain(self, number: int) -> None:
        """Reload a further edition that is broken in one place."""
        self.source.edit(self.edition + 1000)
        self.source.damage(number)
        status, problem = self.running.post_reload({})
        assert status == 422, problem
        assert problem["report"]["generation"] == self.generation
        self._is(self.generation, self.edition)

    def roll_back(self, edition: int) -> None:
        status, report = self.running.request("POST", "/_reload/rollback")
        assert status == 200, report
        self._is(report["generation"], edition)

    def _is(self, generation: int, edition: int) -> None:
        self.generation, self.edition = generation, edition
        status, answer = self.running.request("GET", "/odd")
        assert (status, answer) == (200, {"edition": edition}) if edition % 2 else status == 404, (status, answer)


def reload_many(service: Service, number: int) -> None:
    """Reload so often; between them broken sources and rollbacks, never as the last but one."""
    for attempt in range(number):
        if attempt % 4 == 1:
            service.reload_in_vain(attempt // 4)
        before = service.edition
        service.reload(before + 1)
        if attempt % 10 == 3 and attempt < number - KEPT_GENERATIONS:
            service.roll_back(before)


def cookie(running: Cluster) -> dict[str, str]:
    """The header with the session of somebody who has logged in."""
    connection = running.connection()
    body = json.dumps({"name": "Ada"})
    connection.request("POST", "/login", body, {"Content-Type": "application/json"})
    with closing(connection), connection.getresponse() as response:
        assert response.status == 200, response.read()
        return {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}


def told(running: Cluster, path: str) -> dict[int, dict]:
    """What each worker answers, by its process id."""
    answers = {}
    for pid in running.workers():
        with running.connected_to(pid) as connection:
            answers[pid] = ask(connection, "GET", path)[1]
    return answers


def assert_old_generations_are_gone(running: Cluster, *, threads: int) -> None:
    """``threads``: how many the one that serves has started."""
    # The one that serves, those kept for a rollback, and the first one, which the server itself holds. An old one's
    # last request may leave it to the garbage collector, and then its modules are garbage a moment later.
    most = KEPT_GENERATIONS + 2

    def gone() -> bool:
        processes = told(running, "/inside").values()
        return all(
            process["applications"] <= most and process["modules"] <= most and len(process["threads"]) == threads
            for process in processes
        )

    until(gone, "old generations, or threads of theirs, are left")


@pytest.fixture
def start(tmp_path):
    def start(subject: Subject, workers: int):
        source = Source(subject, tmp_path / "service")
        env = {"HOTRELOAD_KEEP_GENERATIONS": str(KEPT_GENERATIONS)}
        if workers == 1:
            env["HOTRELOAD_COORDINATOR"] = "local"
        return source, cluster(source.folder, app=subject.app, workers=workers, env=env)

    return start


def check(start: Callable, subject: Subject, workers: int, number: int) -> None:
    source, server = start(subject, workers)
    with server as running:
        until(lambda: len(running.workers()) == workers, "there are not enough workers")
        if workers > 1:
            running.await_members()
        headers = cookie(running) if subject.login else {}
        with Checker(running.address, headers=headers) as checker:
            service = Service(source, running)
            reload_many(service, number)
            checker.another_round()
        verdict = checker.verdict()
        verdict.assert_clean()
        assert service.overtaken
        assert {0, service.generation} <= set(verdict.generations)
        processes = told(running, "/inside")
        assert processes.keys() >= verdict.processes.keys()
        assert {process["made in"] for process in processes.values()} == {0}
        answers = sum(process["answers"] for process in told(running, "/answers").values())
        assert answers == verdict.requests  # what is kept has lost nothing
        assert_old_generations_are_gone(running, threads=1 if subject.folder == "background" else 0)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_applications_reloaded_as_a_whole_under_load_answer_everybody_from_one_generation(start, subject, workers):
    check(start, subject, workers, 6)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_applications_reloaded_fifty_times_as_a_whole_under_load_answer_everybody(start, subject, workers):
    check(start, subject, workers, 50)

"""What a reload of the whole source reads: all of it as it was at one moment, never a mix of two deployments."""

import linecache
import os
import pathlib
import shutil
import sys

import pytest
from staying import WAIT, Stay

from flask_hotreload import LoadError, ReloadInvalid, project
from flask_hotreload.project import read_project
from flask_hotreload.sources import Roots

COUNT = 40


def deploy(folder, version, count=COUNT):
    for number in range(count):
        (folder / f"part_{number}.py").write_text(f"version = {version}\n")


def versions(snapshot):
    return {source.text for source in snapshot.sources.values()}


def between(*, at, run):
    """Called once before every few files of a reading: runs ``run`` at the call number ``at``, or at each in it."""
    calls = iter(range(10**6))
    return lambda: run() if next(calls) in at else None


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(project, "REST", 0.0)


# Reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", range(9))
def test_files_that_are_rewritten_while_they_are_read_are_read_again(tmp_path, quick, moment):
    deploy(tmp_path, 1)
    give_way = between(at=[moment], run=lambda: deploy(tmp_path, 2))
    snapshot = read_project(Roots([tmp_path]).resolve(), {}, give_way=give_way)
    # Two readings are six calls: what is written after them is for the next reload.
    assert versions(snapshot) == ({"version = 2\n"} if moment < 6 else {"version = 1\n"})
    assert len(snapshot.sources) == COUNT


@pytest.mark.parametrize("half", [1, 4])
def test_a_deployment_that_is_half_way_through_both_readings_ends_before_it_is_taken(tmp_path, quick, half):
    deploy(tmp_path, 1)
    counts = iter([COUNT // 2, COUNT])
    give_way = between(at=[half, half + 4], run=lambda: deploy(tmp_path, 2, next(counts)))
    snapshot = read_project(Roots([tmp_path]).resolve(), {}, give_way=give_way)
    assert versions(snapshot) == {"version = 2\n"}


def test_files_that_never_come_to_rest_are_an_error_that_says_what_to_do(tmp_path, quick):
    deploy(tmp_path, 0)
    written = iter(range(1, 10**6))
    with pytest.raises(ReloadInvalid, match=r"part_\d+\.py.*deploy by switching a link"):
        read_project(Roots([tmp_path]).resolve(), {}, give_way=lambda: deploy(tmp_path, next(written)))
    assert next(written) <= (project.ROUNDS + 1) * 3 + 1


def test_a_file_that_is_removed_while_it_is_read_is_not_there(tmp_path, quick):
    deploy(tmp_path, 1)
    give_way = between(at=[1], run=lambda: [os.remove(file) for file in tmp_path.glob("part_*.py")][:0])
    assert read_project(Roots([tmp_path]).resolve(), {}, give_way=give_way).sources == {}


def test_a_file_that_is_added_between_the_readings_is_there(tmp_path, quick):
    deploy(tmp_path, 1, 3)
    give_way = between(at=[0], run=lambda: deploy(tmp_path, 1, 4))
    assert len(read_project(Roots([tmp_path]).resolve(), {}, give_way=give_way).sources) == 4


def test_a_file_that_becomes_a_link_while_it_is_read_is_read_through_the_link(tmp_path, quick, monkeypatch):
    (tmp_path / "one.py").write_text("version = 1\n")
    (tmp_path / "two.txt").write_text("version = 2\n")
    read = project.read_source

    def replace_and_read(real, shown):
        monkeypatch.setattr(project, "read_source", read)
        os.remove(tmp_path / "one.py")
        os.symlink(tmp_path / "two.txt", tmp_path / "one.py")
        return read(real, shown)

    monkeypatch.setattr(project, "read_source", replace_and_read)
    [source] = read_project(Roots([tmp_path]).resolve(), {}).sources.values()
    assert source.text == "version = 2\n"


def unreadable(monkeypatch, name):
    """The superuser, as whom tests may run, can read everything: so the refusal has to be made."""
    read = os.open

    def refuse(path, *args, **kwargs):
        if os.fspath(path).endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, quick):
    deploy(tmp_path, 1, 3)
    unreadable(monkeypatch, "part_1.py")
    snapshot = read_project(Roots([tmp_path]).resolve(), {})
    with pytest.raises(LoadError, match=r"part_1\.py: Permission denied"):
        snapshot.read(str(tmp_path / "part_1.py"))


def test_a_reload_beside_a_file_that_has_become_unreadable_is_refused(tmp_path, monkeypatch, quick):
    deploy(tmp_path, 1, 3)
    before = read_project(Roots([tmp_path]).resolve(), {})
    unreadable(monkeypatch, "part_1.py")
    with pytest.raises(LoadError, match=r"part_1\.py: Permission denied"):
        read_project(Roots([tmp_path]).resolve(), before.sources)


def test_a_service_starts_and_reloads_beside_a_file_that_it_may_not_read_unless_it_imports_it(site, monkeypatch):
    site.write("secret.py", "key = 1")
    with monkeypatch.context() as patched:
        unreadable(patched, "secret.py")
        site.serve('@rpc.dispatcher("/api")\ndef which() -> int: return 0')
        assert site.call("which") == 0
        site.rewrite('@rpc.dispatcher("/api")\ndef which() -> int: return 1')
        site.rpc.reload()
        assert site.call("which") == 1
        site.rewrite('import secret\n@rpc.dispatcher("/api")\ndef which() -> int: return 2')
        with pytest.raises(LoadError, match="Permission denied") as caught:
            site.rpc.reload()
        assert caught.value.file.endswith(("secret.py", f"{site.name}.py"))
        assert site.call("which") == 1
    site.rpc.reload()
    assert site.call("which") == 2


def test_a_service_starts_while_files_are_being_written(site, monkeypatch, quick):
    site.write("noise.py", "0")
    written = iter(range(1, 10**6))
    files = project.python_files

    def write_and_list(roots):
        site.write("noise.py", str(next(written)))
        return files(roots)

    with monkeypatch.context() as patched:
        patched.setattr(project, "python_files", write_and_list)
        site.serve('@rpc.dispatcher("/api")\ndef which() -> int: return 0')
        with pytest.raises(ReloadInvalid, match="still being written"):
            site.rpc.reload()
    assert site.call("which") == 0
    site.rewrite('@rpc.dispatcher("/api")\ndef which() -> int: return 1')
    assert site.rpc.reload().status == "committed"


def test_what_has_a_pythons_name_and_is_no_file_is_left_alone(tmp_path):
    deploy(tmp_path, 1, 2)
    os.mkfifo(tmp_path / "queue.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "missing")
    found = read_project(Roots([tmp_path]).resolve(), {}).sources
    assert sorted(map(os.path.basename, found)) == ["part_0.py", "part_1.py"]


def test_a_linked_file_is_read_once_under_its_own_path_and_one_that_leads_out_is_not(tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    deploy(tmp_path, 1, 1)
    deploy(outside, 2, 1)
    (tmp_path / "inside.py").symlink_to(tmp_path / "part_0.py")
    (tmp_path / "leaving.py").symlink_to(outside / "part_0.py")
    assert list(read_project(Roots([tmp_path]).resolve(), {}).sources) == [str(tmp_path / "part_0.py")]


@pytest.mark.parametrize(
    "folder", ["venv", ".venv", "lib/site-packages", "lib/dist-packages", ".git", "__pycache__", "pkg/.cache"]
)
def test_what_is_not_the_projects_own_is_not_read(tmp_path, folder):
    deploy(tmp_path, 1, 1)
    (tmp_path / folder / "deeper").mkdir(parents=True)
    if folder.endswith("venv"):
        (tmp_path / folder / "pyvenv.cfg").write_text("")
    (tmp_path / folder / "deeper" / "theirs.py").write_text("")
    (tmp_path / folder / "theirs.py").write_text("")
    assert list(read_project(Roots([tmp_path]).resolve(), {}).sources) == [str(tmp_path / "part_0.py")]


def test_what_was_compiled_is_taken_over_where_no_byte_differs(tmp_path):
    deploy(tmp_path, 1, 2)
    before = read_project(Roots([tmp_path]).resolve(), {})
    (tmp_path / "part_1.py").write_text("version = 2\n")
    after = read_project(Roots([tmp_path]).resolve(), before.sources)
    kept = [after.sources[real] is source for real, source in sorted(before.sources.items())]
    assert kept == [True, False]


# The service that reads --------------------------------------------------------------------------------------------

APP = (
    """
import parts
from flask import render_template
number = {number}

@rpc.dispatcher("/api")
def which() -> list:
    return [number, parts.number]

@rpc.dispatcher("/api")
def late() -> int:
    import afterwards
    return afterwards.number

@app.get("/page")
def page():
    return render_template("page.html")
"""
    + WAIT
)
TELL = "(number, parts.number, __import__('afterwards').number, __import__('afterwards') is __import__('afterwards'))"


def changes(site):
    return {os.path.relpath(each["file"], site.folder): each["change"] for each in site.rpc.status()["pending"]}


def test_a_deployment_half_way_on_disk_when_the_reload_begins_is_never_served(site, monkeypatch):
    """The writer waits until one file has been read, writes both, and lets the reading go on."""
    site.write("parts.py", "number = 0")
    site.serve(APP.replace("{number}", "0"))
    site.write("parts.py", "number = 1")
    read, written = project.read_source, []

    def read_then_deploy(real, shown):
        data = read(real, shown)
        if not written:
            written.append(real)
            site.write("parts.py", "number = 2")
            site.rewrite(APP.replace("{number}", "2"))
        return data

    monkeypatch.setattr(project, "read_source", read_then_deploy)
    site.rpc.reload()
    assert written
    assert site.call("which") == [2, 2]


def test_requests_are_answered_while_files_do_not_come_to_rest_and_nothing_changes(site, monkeypatch, quick):
    site.write("parts.py", "number = 0")
    site.serve(APP.replace("{number}", "0"))
    site.rewrite(APP.replace("{number}", "1"))
    files, written = project.python_files, iter(range(1, 10**6))

    def write_and_list(roots):
        site.write("parts.py", f"number = {next(written)}")
        assert site.call("which") == [0, 0]
        return files(roots)

    monkeypatch.setattr(project, "python_files", write_and_list)
    with pytest.raises(ReloadInvalid, match=r"parts\.py") as caught:
        site.rpc.reload()
    assert caught.value.report.status == "aborted"
    assert site.call("which") == [0, 0]
    assert site.rpc.generation == 0


# What is pending ---------------------------------------------------------------------------------------------------


def test_pending_tells_what_was_added_modified_and_deleted_since(site):
    site.write("parts.py", "number = 0")
    site.write("pkg/__init__.py", "")
    site.serve(APP.replace("{number}", "0"))
    assert changes(site) == {}
    os.remove(site.write("pkg/__init__.py", ""))
    site.write("parts.py", "number = 1")
    site.write("pkg/more.py", "")
    site.write("notes.txt", "no source")
    expected = {"parts.py": "modified", "pkg/__init__.py": "deleted", "pkg/more.py": "added"}
    assert changes(site) == expected
    site.rpc.reload()
    assert changes(site) == {}
    site.rpc.rollback()
    assert changes(site) == expected


def test_pending_follows_reloads_of_dispatchers(site):
    site.write("parts.py", "number = 0")
    site.serve(APP.replace("{number}", "0"))
    site.write("handlers.py", "def which() -> list: return [5, 5]")
    site.write("parts.py", "number = 1")
    assert changes(site) == {"handlers.py": "added", "parts.py": "modified"}
    site.reload("which")
    assert changes(site) == {"parts.py": "modified"}
    site.rpc.rollback()
    assert changes(site) == {"handlers.py": "added", "parts.py": "modified"}


def test_a_reload_that_is_aborted_leaves_what_is_pending(site):
    site.write("parts.py", "number = 0")
    site.serve(APP.replace("{number}", "0"))
    site.write("parts.py", "number = ")
    with pytest.raises(LoadError):
        site.rpc.reload()
    assert changes(site) == {"parts.py": "modified"}


def test_a_file_that_is_touched_or_written_back_is_not_pending(site):
    site.write("parts.py", "number = 0")
    site.serve(APP.replace("{number}", "0"))
    site.write("parts.py", "number = 1")
    assert changes(site) == {"parts.py": "modified"}
    site.write("parts.py", "number = 0")
    os.utime(site.folder / "parts.py", ns=(1, 1))
    assert changes(site) == {}
    assert site.rpc.reload().status == "unchanged"


def test_a_file_that_only_a_link_leads_to_is_read_and_compared_where_it_lies(site):
    site.write("real/parts.txt", "number = 0")
    (site.folder / "parts.py").symlink_to(site.folder / "real" / "parts.txt")
    site.serve(APP.replace("{number}", "0"))
    site.write("real/parts.txt", "number = 1")
    assert changes(site) == {"real/parts.txt": "modified"}
    site.rpc.reload()
    assert site.call("which") == [0, 1]
    site.rpc.rollback()
    assert site.call("which") == [0, 0]


# Deployments by a link ---------------------------------------------------------------------------------------------


class Deployment:
    """Releases of one service, and the link ``current`` that leads to one of them."""

    def __init__(self, site):
        self.site = site
        self.current = site.folder / "current"

    def release(self, number, *, parts=True, afterwards=True):
        folder = f"releases/{number}"
        module = self.site.name
        self.site.rewrite(APP.replace("{number}", str(number)))
        (self.site.folder / folder).mkdir(parents=True)
        os.replace(self.site.folder / f"{module}.py", self.site.folder / folder / f"{module}.py")
        self.site.write(f"{folder}/parts.py", f"number = {number}")
        self.site.write(f"{folder}/afterwards.py", f"number = {number}")
        self.site.write(f"{folder}/templates/page.html", f"page {number}")
        return self.site.folder / folder

    def switch(self, number):
        fresh = self.site.folder / "fresh"
        fresh.symlink_to(self.site.folder / "releases" / str(number))
        os.replace(fresh, self.current)

    def discard(self, number):
        shutil.rmtree(self.site.folder / "releases" / str(number))

    def page(self):
        with self.site.client().get("/page") as response:
            assert response.status_code == 200
            return response.get_data(as_text=True)


@pytest.fixture(params=["the link", "the folder"])
def deployment(site, request):
    """Release 41 is served; ``sys.path`` holds the link, or the folder that it leads to, as after a ``cd``."""
    site.settings = {"timeout": 0.0}
    deployment = Deployment(site)
    if request.param == "the folder":
        site.settings["roots"] = [str(deployment.current)]
    folder = deployment.release(41)
    deployment.switch(41)
    entry = str(deployment.current if request.param == "the link" else folder)
    sys.path.insert(0, entry)
    site.adopt(site.load(site.name))
    yield deployment
    sys.path.remove(entry)


def test_a_switched_link_is_the_new_release(deployment):
    site = deployment.site
    assert (site.call("which"), deployment.page()) == ([41, 41], "page 41")
    deployment.release(42)
    deployment.switch(42)
    assert set(changes(site).values()) == {"modified"}
    report = site.rpc.reload()
    assert (report.status, set(report.modules)) == ("committed", {site.name, "parts"})
    assert (site.call("which"), site.call("late"), deployment.page()) == ([42, 42], 42, "page 42")
    assert site.rpc.status()["pending"] == []
    assert site.rpc.reload().status == "unchanged"


def test_old_requests_and_rollbacks_go_on_when_the_old_release_is_deleted(deployment):
    site = deployment.site
    deployment.release(42)
    with Stay(site, TELL) as request:
        deployment.switch(42)
        site.rpc.reload()
        deployment.discard(41)
        assert site.call("late") == 42
        assert request.leave() == "(41, 41, 41, True)"
    site.rpc.rollback()
    assert (site.call("which"), site.call("late")) == ([41, 41], 41)


def test_an_old_request_never_sees_what_the_new_release_imported_late(deployment):
    site = deployment.site
    deployment.release(42)
    with Stay(site, "__import__('afterwards').number") as request:
        deployment.switch(42)
        site.rpc.reload()
        assert site.call("late") == 42
        assert request.leave() == "41"
    assert site.call("late") == 42


def test_a_release_that_has_to_be_executed_again_is_so_although_its_folder_is_gone(deployment):
    site = deployment.site
    with Stay(site, "rpc.on_retire(lambda: None)") as request:
        request.leave()
    deployment.release(42)
    deployment.switch(42)
    site.rpc.reload()
    deployment.release(43)
    deployment.switch(43)
    site.rpc.reload()
    deployment.discard(41)
    deployment.discard(42)
    report = site.rpc.rollback(0)
    assert set(report.modules) == {site.name, "parts"}
    assert (site.call("which"), site.call("late")) == ([41, 41], 41)
    report = site.rpc.rollback(1)
    assert (report.modules, site.call("which"), site.call("late")) == ((), [42, 42], 42)


def test_tracebacks_quote_the_release_that_runs(deployment):

    site = deployment.site
    file = site.load("parts").__file__
    deployment.release(42)
    deployment.switch(42)
    site.rpc.reload()
    new = site.load("parts").__file__
    assert linecache.getline(new, 1) == "number = 42\n"
    site.rpc.rollback()
    linecache.checkcache()
    assert linecache.getline(file, 1) == "number = 41\n"
    site.rpc.rollback(1)
    assert linecache.getline(new, 1) == "number = 42\n"


def test_what_a_traceback_quoted_of_another_generation_is_put_right_by_a_rollback(deployment):
    site = deployment.site
    file = site.load(site.name).__file__  # the same in both releases
    first = pathlib.Path(file).read_text().splitlines(keepends=True)[0]
    deployment.release(42)
    deployment.switch(42)
    site.rpc.reload()
    linecache.cache[file] = (6, None, ["other\n"], file)
    site.rpc.rollback()
    assert linecache.getline(file, 1) == first


def test_a_link_that_is_switched_while_the_reload_reads_gives_one_of_both_releases(deployment, monkeypatch):
    site = deployment.site
    deployment.release(42)
    site.write("releases/41/parts.py", "number = 410")
    read = project.read_source

    def switch_and_read(real, shown):
        monkeypatch.setattr(project, "read_source", read)
        deployment.switch(42)
        return read(real, shown)

    monkeypatch.setattr(project, "read_source", switch_and_read)
    site.rpc.reload()
    assert site.call("which") == [41, 410]
    assert site.call("late") == 41
    monkeypatch.undo()
    site.rpc.reload()
    assert (site.call("which"), site.call("late")) == ([42, 42], 42)


def test_a_link_to_an_identical_release_is_reloaded_for_its_templates(deployment):
    site = deployment.site
    folder = site.folder / "releases"
    shutil.copytree(folder / "41", folder / "42")
    site.write("releases/42/templates/page.html", "page 42")
    deployment.switch(42)
    assert changes(site) == {}
    assert site.rpc.reload().status == "committed"
    assert deployment.page() == "page 42"


def test_releases_one_after_the_other_leave_nothing_of_the_deleted_ones(deployment):

    site = deployment.site
    for number in range(42, 50):
        deployment.release(number)
        deployment.switch(number)
        site.rpc.reload()
        site.rpc.status()
        deployment.discard(number - 1)
        assert (site.call("which"), site.call("late")) == ([number, number], number)
    told = {name for name in linecache.cache if str(site.folder) in name and "/releases/" in name}
    assert {name.split("/releases/")[1].split("/")[0] for name in told} <= {"41", "46", "47", "48", "49"}

"""The folder in which the workers of one master meet belongs to them alone."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flask_hotreload.coordination import meeting_place
from flask_hotreload.coordination.meeting_place import STORE, folder_for
from flask_hotreload.coordination.sqlite import SQLiteStore
from flask_hotreload.errors import StoreUnavailable


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The folder for temporary files; there is no runtime folder."""
    base = tmp_path / "tmp"
    base.mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    return base


@pytest.fixture
def ended():
    """The id of a process that has ended, and is not waited for, so that nobody else gets it."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.communicate(b"\n")


def test_workers_of_one_master_meet_and_others_do_not(base):
    here = folder_for("app", os.getpid())
    assert folder_for("app", os.getpid()) == here
    assert folder_for("another", os.getpid()) != here
    assert folder_for("app", os.getppid()) != here


def test_the_folder_is_private_whatever_the_umask(base):
    previous = os.umask(0)
    try:
        folder = folder_for("app", os.getpid())
    finally:
        os.umask(previous)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent == base


def test_a_private_runtime_folder_is_preferred(base, tmp_path, monkeypatch):
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert folder_for("app", os.getpid()).parent == runtime


@pytest.mark.parametrize("trouble", ["missing", "readable", "relative", "file"])
def test_a_runtime_folder_that_is_not_private_is_not_used(base, tmp_path, monkeypatch, trouble):
    runtime = tmp_path / "run"
    if trouble == "file":
        runtime.write_text("")
    elif trouble != "missing":
        runtime.mkdir()
        runtime.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run" if trouble == "relative" else str(runtime))
    assert folder_for("app", os.getpid()).parent == base


def test_a_folder_that_others_can_enter_is_refused(base):
    folder_for("app", os.getpid()).chmod(0o750)
    with pytest.raises(StoreUnavailable, match=r"mode 750.*remove it"):
        folder_for("app", os.getpid())


def test_a_link_in_its_place_is_refused(base, tmp_path):
    folder = folder_for("app", os.getpid())
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="not a folder"):
        folder_for("app", os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_somebody_else_has_made_first_is_refused(base):
    os.chown(folder_for("app", os.getpid()), 65534, 65534)
    with pytest.raises(StoreUnavailable, match="belongs to user 65534"):
        folder_for("app", os.getpid())


def test_where_others_could_exchange_it_nobody_meets(base):
    base.chmod(0o777)
    with pytest.raises(StoreUnavailable, match="sticky"):
        folder_for("app", os.getpid())
    base.chmod(0o1777)
    assert folder_for("app", os.getpid())


def test_a_folder_that_cannot_be_made_is_an_error_with_the_remedy(base, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(StoreUnavailable, match="TMPDIR"):
        folder_for("app", os.getpid())


# Leftovers ----------------------------------------------------------------------------------------------------------


def leftover(base, **changes):
    """A folder as another master would have made it."""
    here = folder_for("app", os.getpid())
    named = meeting_place._NAME.fullmatch(here.name)
    fields = {**named.groupdict(), **changes}
    folder = base / f"flask-hotreload-{fields['uid']}-00000000-{fields['scope']}-{fields['pid']}-{fields['start']}"
    folder.mkdir(mode=0o700)
    (folder / STORE).write_text("left")
    here.rmdir()
    return folder


def test_what_a_dead_master_has_left_is_removed(base, ended):
    left = leftover(base, pid=str(ended.pid), start="1")  # another process has had this id since
    folder_for("app", os.getpid())
    assert not left.exists()


def test_what_a_living_master_uses_is_kept(base):
    parent = leftover(base, pid=str(os.getppid()), start=meeting_place._start_of(os.getppid()))
    folder_for("app", os.getpid())
    assert parent.exists()


def test_what_a_living_worker_uses_is_kept(base, ended):
    left = leftover(base, pid=str(ended.pid), start="1")
    (left / STORE).unlink()
    store = SQLiteStore(left / STORE)
    assert store.member_id
    folder_for("app", os.getpid())
    assert (left / STORE).exists()
    store.close()
    folder_for("app", os.getpid()).rmdir()
    folder_for("app", os.getpid())
    assert not left.exists()


def test_what_a_master_in_another_container_may_use_is_kept_for_a_day(base):
    left = leftover(base, scope="0" * 12)
    folder_for("app", os.getpid()).rmdir()
    assert left.exists()
    os.utime(left, (0, 0))
    folder_for("app", os.getpid())
    assert not left.exists()


@pytest.mark.parametrize("name", ["flask-hotreload-1-x", "flask-hotreload", "other"])
def test_what_is_named_otherwise_is_kept(base, name):
    (base / name).mkdir()
    folder_for("app", os.getpid())
    assert (base / name).exists()


def test_a_link_that_is_named_like_a_leftover_is_not_followed(base, tmp_path, ended):
    left = leftover(base, pid=str(ended.pid), start="1")
    victim = tmp_path / "victim"
    left.rename(victim)
    left.symlink_to(victim)
    folder_for("app", os.getpid())
    assert (victim / STORE).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_belongs_to_somebody_else_is_kept(base, ended):
    left = leftover(base, pid=str(ended.pid), start="1")
    os.chown(left, 65534, 65534)
    folder_for("app", os.getpid())
    assert left.exists()


def test_the_boot_has_one_name(base):
    assert meeting_place.boot_id() == meeting_place.boot_id()
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert len(meeting_place.boot_id()) == 36

"""Where files lie, told from one host to another: by their roots' positions, never by anybody's own folders."""

from __future__ import annotations

import marshal
import os
import traceback

import pytest
from msgspec.structs import replace

from flask_hotreload.coordination.beginning import left_before, left_by
from flask_hotreload.coordination.memory import MemoryStore
from flask_hotreload.coordination.payload import LedRoot, Payload, SourceReference
from flask_hotreload.coordination.positions import (
    Position,
    file_here,
    led_here,
    position_of,
    script_here,
    shown_here,
    told_roots,
    told_script,
)
from flask_hotreload.coordination.shipped import INTERPRETER, read_of, sources_of
from flask_hotreload.errors import ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.sources import Roots, Snapshot, Source

FAILING = b"""\
def fail():
    return [(lambda: 1 / each)() for each in (0,)]

class Inner:
    def fail(self):
        return fail()
"""


@pytest.fixture
def two(tmp_path):
    """The roots of two hosts, two each, in folders of their own."""
    hosts = []
    for host, names in (("one", ("app", "more")), ("other", ("srv/x", "more"))):
        for name in names:
            (tmp_path / host / name).mkdir(parents=True)
        hosts.append(Roots([tmp_path / host / name for name in names]).resolve())
    return hosts


def shipped(snapshot):
    """What the one host tells, and the store that holds it."""
    store, read = MemoryStore("a"), read_of(snapshot, ())
    store.put_blobs(read.blobs)
    payload = Payload(
        deployment="app", release="0", generation=1, transaction="t", trigger="http", actor=None, started_at="",
        document={}, sources=read.references, interpreter=INTERPRETER, roots=told_roots(snapshot.roots),
    )  # fmt: skip
    return payload, store


def folder(roots, number=0):
    return list(roots.real.values())[number]


# Positions ---------------------------------------------------------------------------------------------------------


def test_a_file_is_found_below_the_root_at_the_same_position(two):
    one, other = two
    position = position_of(one, f"{folder(one, 1)}/pkg/api.py")
    assert position == Position(1, "pkg/api.py")
    assert file_here(other, position) == f"{folder(other, 1)}/pkg/api.py"


def test_of_roots_inside_each_other_the_innermost_counts(tmp_path):
    (tmp_path / "app" / "pkg").mkdir(parents=True)
    roots = Roots([tmp_path, tmp_path / "app"]).resolve()
    assert position_of(roots, f"{tmp_path}/app/pkg/api.py") == Position(1, "pkg/api.py")
    assert position_of(roots, f"{tmp_path}/application.py") == Position(0, "application.py")


@pytest.mark.parametrize(
    "path", ["../x.py", "a/../../x.py", "/etc/x.py", "", ".", "a//b.py", "./x.py", "a/..", "..", "x\0.py"]
)
def test_a_signed_path_that_leads_out_of_its_root_is_refused(two, path):
    with pytest.raises(StoreUnavailable, match="nothing of it is executed"):
        file_here(two[1], Position(0, path))
    with pytest.raises(StoreUnavailable, match="nothing of it is executed"):
        script_here(two[1])(f"0:{path}")


@pytest.mark.parametrize("script", ["2:x.py", "-1:x.py", "x.py", ":x.py", "/srv/x.py"])
def test_a_signed_script_below_a_root_that_is_not_there_is_refused(two, script):
    with pytest.raises(StoreUnavailable, match="HOTRELOAD_ROOTS"):
        script_here(two[1])(script)


def test_a_link_here_that_leads_out_of_the_roots_is_refused_and_named(two, tmp_path):
    (tmp_path / "secret.py").write_text("")
    os.symlink(tmp_path / "secret.py", f"{folder(two[1])}/api.py")
    with pytest.raises(
        WorkerFailed, match=r"x/api\.py is a link to .*secret\.py.*put the file itself there"
    ) as caught:
        file_here(two[1], Position(0, "api.py"))
    assert caught.value.reason == "its files lie otherwise"


def test_a_file_in_a_virtual_environment_of_this_host_is_refused(two):
    os.mkdir(f"{folder(two[1])}/env")
    with open(f"{folder(two[1])}/env/pyvenv.cfg", "w"):
        pass
    with pytest.raises(WorkerFailed, match="virtual environment"):
        file_here(two[1], Position(0, "env/api.py"))


# Scripts -----------------------------------------------------------------------------------------------------------


def test_a_script_is_told_the_same_by_both_hosts_and_found_by_the_other(two):
    told = {told_script(each, f"{folder(each)}/pkg/api.py") for each in two}
    assert told == {"0:pkg/api.py"}
    assert script_here(two[1])(told.pop()) == f"{folder(two[1])}/pkg/api.py"


def test_a_script_of_the_other_host_s_folder_is_refused_with_the_remedy(two):
    with pytest.raises(ReloadInvalid, match="HOTRELOAD_ROOTS"):
        told_script(two[0], f"{folder(two[1])}/api.py")


def test_a_script_by_way_of_a_link_is_told_as_the_file_that_it_is(two):
    with open(f"{folder(two[0])}/api.py", "w"):
        pass
    os.symlink(f"{folder(two[0])}/api.py", f"{folder(two[0])}/alias.py")
    assert told_script(two[0], f"{folder(two[0])}/alias.py") == "0:api.py"


def test_a_script_is_below_the_root_as_it_is_written_whereto_it_may_lead(tmp_path):
    (tmp_path / "releases").mkdir()
    (tmp_path / "current").symlink_to("releases")
    roots = Roots([tmp_path / "current"]).resolve()
    assert told_script(roots, f"{tmp_path}/releases/api.py") == "0:api.py"
    assert script_here(roots)("0:api.py") == f"{tmp_path}/current/api.py"


# Roots -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def switched(tmp_path):
    """A root that leads to ``releases/41``, as it led to ``releases/42`` elsewhere."""
    (tmp_path / "releases" / "41").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/41")
    return Roots([tmp_path / "current"]).resolve(), LedRoot(f"{tmp_path}/current", f"{tmp_path}/releases/42")


def test_a_root_that_is_written_the_same_leads_to_where_it_led_there(switched, tmp_path):
    own, told = switched
    (tmp_path / "releases" / "42").mkdir()
    assert led_here([told], own) == {told.written: told.led}


def test_the_own_root_stands_for_a_folder_that_is_not_here(switched):
    own, told = switched
    assert led_here([told], own) == {}


def test_the_own_root_stands_for_one_that_is_written_otherwise_though_its_folder_is_here(two):
    assert led_here(told_roots(two[0]), two[1]) == {}


def test_another_number_of_roots_is_refused_with_the_remedy(two):
    with pytest.raises(WorkerFailed, match=r"has 2 roots .*comes from 1 .*HOTRELOAD_ROOTS has to name as many"):
        led_here(told_roots(two[0])[:1], two[1])


def test_nothing_is_asked_of_roots_when_no_sources_are_told(two):
    assert led_here((), two[0]) == {}


@pytest.mark.parametrize(
    ("shown", "here"),
    [
        ("/srv/current/a.py", "/opt/app/a.py"),
        ("/srv/41/pkg/a.py", "/data/app/pkg/a.py"),
        ("/elsewhere/a.py", "/data/app/real.py"),
    ],
)
def test_a_file_is_shown_in_the_own_folder_as_written_or_led_to(shown, here):
    told, own = LedRoot("/srv/current", "/srv/41"), LedRoot("/opt/app", "/data/app")
    assert shown_here(shown, told, own, "/data/app/real.py") == here
    assert shown_here(shown, told, told, "/srv/41/real.py") == shown


# Sources -----------------------------------------------------------------------------------------------------------


def test_what_one_host_has_compiled_is_shown_as_the_other_s_own_file_throughout(two, monkeypatch):
    one, other = two
    there, here = f"{folder(one)}/api.py", f"{folder(other)}/api.py"
    source = Source(there, FAILING)
    source.code()
    payload, store = shipped(Snapshot(one, {there: source}, sealed=True))
    arrived = sources_of(payload, store, {}, other)[here]
    monkeypatch.setattr("builtins.compile", None)
    namespace = {}
    exec(arrived.code(), namespace)
    with pytest.raises(ZeroDivisionError) as caught:
        namespace["Inner"]().fail()
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)[1:]]
    assert len(files) >= 3
    assert set(files) == {here}
    assert there.encode() not in marshal.dumps(arrived.code())


def test_compiled_code_is_the_same_as_if_it_had_been_compiled_here(two):
    one, other = two
    there, here = f"{folder(one)}/api.py", f"{folder(other)}/api.py"
    compiled = Source(there, FAILING)
    compiled.code()
    payload, store = shipped(Snapshot(one, {there: compiled}, sealed=True))
    assert sources_of(payload, store, {}, other)[here].code() == Source(here, FAILING).code()


def test_what_runs_here_already_is_not_fetched_though_it_comes_from_another_folder(two):
    one, other = two
    payload, _ = shipped(Snapshot(one, {f"{folder(one)}/api.py": Source(f"{folder(one)}/api.py", b"1")}, sealed=True))
    running = {f"{folder(other)}/api.py": Source(f"{folder(other)}/api.py", b"1")}
    assert sources_of(payload, MemoryStore("b"), running, other) == running


def test_a_link_here_to_another_file_of_the_project_is_followed(two):
    one, other = two
    payload, store = shipped(Snapshot(one, {f"{folder(one)}/a.py": Source(f"{folder(one)}/a.py", b"1")}, sealed=True))
    os.symlink(f"{folder(other)}/real.py", f"{folder(other)}/a.py")
    [(real, source)] = sources_of(payload, store, {}, other).items()
    assert (real, source.data) == (f"{folder(other)}/real.py", b"1")
    assert Snapshot(other, {real: source}, sealed=True).read(other.resolve(f"{folder(other)}/a.py")) is source


def test_two_files_that_links_make_one_here_are_refused_with_the_remedy(two):
    one, other = two
    sources = {f"{folder(one)}/{name}.py": Source(f"{folder(one)}/{name}.py", name.encode()) for name in "ab"}
    payload, store = shipped(Snapshot(one, sources, sealed=True))
    os.symlink(f"{folder(other)}/b.py", f"{folder(other)}/a.py")
    with pytest.raises(WorkerFailed, match="remove the links"):
        sources_of(payload, store, {}, other)


def test_a_reference_outside_of_the_roots_is_refused_before_anything_is_fetched(two):
    payload, _ = shipped(Snapshot(two[0], {}, sealed=True))
    payload = replace(payload, sources=(SourceReference(0, "../../etc/x.py", "/etc/x.py", "sha256:0"),))
    with pytest.raises(StoreUnavailable, match="outside of its root"):
        sources_of(payload, None, {}, two[1])


def test_the_digest_of_the_same_sources_is_the_same_in_other_folders_but_not_below_another_root(two):
    one, other = (Snapshot(each, {f"{folder(each, 1)}/a.py": Source("x", b"1")}, sealed=True) for each in two)
    assert one.digest == other.digest
    assert Snapshot(two[0], {f"{folder(two[0], 0)}/a.py": Source("x", b"1")}, sealed=True).digest != one.digest
    both = {f"{folder(two[0], number)}/a.py": Source("x", b"%d" % number) for number in (0, 1)}
    swapped = dict(zip(both, reversed(both.values()), strict=True))
    assert Snapshot(two[0], both, sealed=True).digest != Snapshot(two[0], swapped, sealed=True).digest


# What a release began with -----------------------------------------------------------------------------------------


def test_the_first_transaction_leaves_all_sources_and_the_next_names_them(two):
    store, real = MemoryStore("a"), f"{folder(two[0])}/api.py"
    left = left_by(Snapshot(two[0], {real: Source(real, b"1")}, sealed=True), ())
    assert left.digests == set(left.blobs)
    store.put_blobs(left.blobs)
    assert left_before(left.beginning, store) == (left.beginning, left.digests, {})
    assert left_by(Snapshot(two[0], {real: Source(real, b"1")}, sealed=True), left.digests).blobs == {}


def test_a_list_of_sources_that_is_not_as_it_was_signed_is_refused(two):
    store = MemoryStore("a")
    left = left_by(Snapshot(two[0], {}, sealed=True), ())
    for data in (None, b"{}"):
        store.put_blobs({} if data is None else {left.beginning.manifest: data})
        with pytest.raises(StoreUnavailable, match="as it was signed"):
            left_before(left.beginning, store)

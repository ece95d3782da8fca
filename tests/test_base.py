"""The base of a release: what later workers import, signed, and tied to the journal; and how they import it."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback

import msgspec
import pytest

from flask_hotreload.base_finder import BaseFinder
from flask_hotreload.coordination.base import (
    Base,
    BaseModule,
    base_hash,
    base_of,
    base_sources,
    committed_base,
    open_base,
    seal_base,
)
from flask_hotreload.coordination.memory import MemoryStore
from flask_hotreload.coordination.payload import Payload, seal
from flask_hotreload.coordination.records import JournalRecord, Member, Phase, TransactionRecord
from flask_hotreload.coordination.signing import Signer
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.imported import Imported, Module
from flask_hotreload.sources import Place, Source

SIGNER = Signer(b"0123456789abcdef")


def module(path, text):
    shown = f"/srv/{path}"
    return Module(shown, Place("/srv", path), Source(shown, text.encode()))


def found(unsure=(), **texts):
    modules = {name: module(f"{name}.py", text) for name, text in texts.items()}
    return Imported(modules, {"space": ("/srv/space",)}, tuple(unsure))


@pytest.fixture
def store():
    store = MemoryStore("a")
    store.join(Member("a", "host", 1, "0", 0))
    return store


def put(store, imported, signer=SIGNER):
    base, blobs = base_of(imported, "app", "0", None)
    assert store.put_base("0", seal_base(base, signer), blobs)
    return base


def commit(store, *, named=None):
    """One transaction; its record names the base that is there, or ``named``."""
    name = base_hash(store, "0") if named is None else named
    record = TransactionRecord("t", "0", "a", ("a",), 0, 1, Phase.STAGING, 10.0)
    assert store.begin(record)
    for phase in (Phase.PREPARE, Phase.APPLY):
        assert store.advance("t", to=phase, deadline=10.0)
    payload = Payload("app", "0", 1, "t", "http", None, "", {"data": []}, base=name)
    assert store.commit(JournalRecord("0", 1, "t", seal(payload, SIGNER), ()))


# What is kept ------------------------------------------------------------------------------------------------------


def test_a_base_is_read_once_something_was_committed(store):
    base = put(store, found(a="value = 1", b="value = 2"))
    assert committed_base(store, SIGNER, "0") is None
    commit(store)
    assert committed_base(store, SIGNER, "0") == base
    assert {name: source.data for name, source in base_sources(store, base).items()} == {
        "a": b"value = 1",
        "b": b"value = 2",
    }


def test_a_base_maps_paths_below_the_roots_to_digests():
    base, blobs = base_of(found(a="value = 1"), "app", "0", None)
    (digest,) = blobs
    assert base.files == {"/srv": {"a.py": digest}}
    assert base.modules == {"a": BaseModule("/srv", "a.py", "/srv/a.py")}


def test_without_a_base_there_is_none(store):
    commit(store)
    assert committed_base(store, SIGNER, "0") is None


def test_workers_that_have_imported_the_same_say_the_same():
    one = seal_base(base_of(found(a="1", b="2"), "app", "0", None)[0], SIGNER)
    assert seal_base(base_of(found(b="2", a="1"), "app", "0", None)[0], SIGNER) == one


def test_what_one_worker_is_unsure_of_another_one_has_told():
    earlier, _ = base_of(found(a="1", b="2"), "app", "0", None)
    base, blobs = base_of(found(["b", "c"], a="3"), "app", "0", earlier)
    assert base.digest(base.modules["b"]) == earlier.digest(earlier.modules["b"])
    assert list(blobs.values()) == [b"3"]
    assert set(base.modules) == {"a", "b"}
    assert base.digests() == {*blobs, earlier.digest(earlier.modules["b"])}


def test_a_base_that_is_not_signed_with_this_key_is_refused(store):
    put(store, found(a="1"), Signer(b"fedcba9876543210"))
    commit(store)
    with pytest.raises(StoreUnavailable, match="not signed"):
        committed_base(store, SIGNER, "0")


def test_an_earlier_base_of_the_release_is_refused_though_it_is_signed(store):
    put(store, found(a="old"))
    old = base_hash(store, "0")
    put(store, found(a="new"))
    commit(store, named=old)
    with pytest.raises(StoreUnavailable, match="not the one that its journal followed"):
        committed_base(store, SIGNER, "0")


def test_a_base_of_another_release_is_refused():
    sealed = seal_base(Base("app", "hup-2", {}, {}, {}), SIGNER)
    with pytest.raises(StoreUnavailable, match="hup-2"):
        open_base(sealed, SIGNER, "0")


def test_a_signed_document_of_another_kind_is_refused():
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        open_base(SIGNER.sign(msgspec.json.encode({"deployment": "app"})), SIGNER, "0")


@pytest.mark.parametrize("data", [None, b"value = 2"])
def test_a_source_that_is_not_as_it_was_signed_is_refused(store, data):
    base = put(store, found(a="value = 1"))
    (digest,) = base.digests()
    store.blobs = lambda digests: {} if data is None else {digest: data}
    with pytest.raises(StoreUnavailable, match=r"/srv/a\.py"):
        base_sources(store, base)


# How it is imported ------------------------------------------------------------------------------------------------


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve sources by their files below a folder; everything is taken back afterwards."""
    finder = BaseFinder()
    monkeypatch.syspath_prepend(str(tmp_path))
    before = sys.modules.copy()

    def serve(files, namespaces=()):
        named = {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): Source(
                str(tmp_path / name), text.encode()
            )
            for name, text in files.items()
        }
        finder.install(named, {name: [str(tmp_path / name)] for name in namespaces})
        importlib.invalidate_caches()
        return finder

    yield serve
    finder.remove()
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def test_modules_are_what_they_were_whatever_the_disk_holds(serve, tmp_path):
    (tmp_path / "base_pkg").mkdir()
    (tmp_path / "base_pkg" / "__init__.py").write_text("def broken(\n")
    serve({"base_pkg/__init__.py": "from . import part\n", "base_pkg/part.py": "value = __name__\n"})
    package = importlib.import_module("base_pkg")
    assert package.part.value == "base_pkg.part"
    assert package.__path__ == [str(tmp_path / "base_pkg")]
    assert package.__file__ == str(tmp_path / "base_pkg" / "__init__.py")
    assert package.part.__spec__.has_location


def test_packages_without_a_file_need_no_folder(serve):
    serve({"base_space/inner.py": "value = 1\n"}, ["base_space"])
    assert importlib.import_module("base_space.inner").value == 1


def test_what_is_not_served_comes_from_the_disk_and_so_does_everything_afterwards(serve, tmp_path):
    (tmp_path / "base_other.py").write_text("value = 'disk'\n")
    (tmp_path / "base_late.py").write_text("value = 'disk'\n")
    finder = serve({"base_late.py": "value = 'base'\n"})
    assert importlib.import_module("base_other").value == "disk"
    finder.remove()
    assert importlib.import_module("base_late").value == "disk"
    assert finder not in sys.meta_path


def test_tracebacks_and_inspection_show_what_runs(serve, tmp_path):
    (tmp_path / "base_shown.py").write_text("# another first line\nvalue = 2\n")
    serve({"base_shown.py": "def fail():\n    raise RuntimeError('on purpose')\n"})
    fail = importlib.import_module("base_shown").fail
    with pytest.raises(RuntimeError) as caught:
        fail()
    assert "raise RuntimeError('on purpose')" in "".join(traceback.format_exception(caught.value))
    assert inspect.getsource(fail).startswith("def fail()")


def test_bytecode_is_used_and_written_for_a_file_that_is_the_same_only(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    for name in ("base_same", "base_changed"):
        (tmp_path / f"{name}.py").write_text("value = 1\n")
    serve({"base_same.py": "value = 1\n", "base_changed.py": "value = 2\n"})
    assert importlib.import_module("base_same").value == 1
    assert importlib.import_module("base_changed").value == 2
    (written,) = (tmp_path / "__pycache__").iterdir()
    assert written.name.startswith("base_same")
    # Bytecode of what lies on the disk is not taken for that of what is served.
    for name in ("base_same", "base_changed"):
        del sys.modules[name]
        (tmp_path / f"{name}.py").write_text("value = 3\n")
    serve({})
    assert importlib.import_module("base_changed").value == 3
    del sys.modules["base_changed"]
    serve({"base_same.py": "value = 1\n", "base_changed.py": "value = 2\n"})
    assert importlib.import_module("base_changed").value == 2
    assert importlib.import_module("base_same").value == 1


def test_source_that_does_not_compile_fails_as_an_import_does(serve):
    serve({"base_broken.py": "def broken(\n"})
    with pytest.raises(SyntaxError):
        importlib.import_module("base_broken")


def test_when_a_name_was_first_looked_for_is_remembered(serve):
    finder = serve({})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("base_missing")
    first = finder.asked["base_missing"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("base_missing")
    assert finder.asked["base_missing"] == first

"""Sources on their way from the worker that has read them to the others."""

from __future__ import annotations

import builtins
import marshal

import pytest
from msgspec.structs import replace

from flask_hotreload.coordination.memory import MemoryStore
from flask_hotreload.coordination.payload import Payload
from flask_hotreload.coordination.positions import told_roots
from flask_hotreload.coordination.shipped import INTERPRETER, read_of, sources_of
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.sources import Roots, Snapshot, Source

APPLICATION = """
@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount
"""


@pytest.fixture
def snapshot(tmp_path):
    """Of two files; one has been compiled."""
    sources = {}
    for name in ("used", "unused"):
        file = tmp_path / f"{name}.py"
        sources[str(file)] = Source(str(file), f"VALUE = {name!r}\n".encode())
    sources[str(tmp_path / "used.py")].code()
    return Snapshot(Roots([tmp_path]).resolve(), sources, sealed=True)


def shipped(snapshot, **changed):
    """A payload that names the sources of a snapshot, and the store that holds them."""
    store = MemoryStore("a")
    read = read_of(snapshot, ())
    store.put_blobs(read.blobs)
    payload = Payload(
        deployment="app", release="0", generation=1, transaction="t", trigger="http", actor=None, started_at="",
        document={}, sources=read.references, interpreter=INTERPRETER, roots=told_roots(snapshot.roots),
    )  # fmt: skip
    return replace(payload, **changed), store


def refuse(*_args, **_options):
    raise AssertionError("it was compiled once more")


def test_what_one_worker_has_compiled_the_others_do_not_compile_again(snapshot, tmp_path, monkeypatch):
    payload, store = shipped(snapshot)
    sources = sources_of(payload, store, {}, snapshot.roots)
    monkeypatch.setattr(builtins, "compile", refuse)
    namespace = {}
    exec(sources[str(tmp_path / "used.py")].code(), namespace)
    assert namespace["VALUE"] == "used"
    with pytest.raises(AssertionError, match="once more"):
        sources[str(tmp_path / "unused.py")].code()


def test_what_this_worker_has_compiled_already_is_not_fetched(snapshot):
    payload, _ = shipped(snapshot)
    for source in snapshot.sources.values():
        source.code()
    running = snapshot.sources
    assert sources_of(payload, MemoryStore("b"), running, snapshot.roots) == running


def test_another_interpreter_compiles_by_itself(snapshot, tmp_path, monkeypatch):
    payload, store = shipped(snapshot, interpreter="cpython-309 0000")
    sources = sources_of(payload, store, {}, snapshot.roots)
    monkeypatch.setattr(builtins, "compile", refuse)
    with pytest.raises(AssertionError, match="once more"):
        sources[str(tmp_path / "used.py")].code()


def test_compiled_code_that_is_not_what_was_signed_is_not_used(snapshot, tmp_path, monkeypatch):
    payload, store = shipped(snapshot)
    [code] = [reference.code for reference in payload.sources if reference.code]
    store.put_blobs({code: b"something else"})
    sources = sources_of(payload, store, {}, snapshot.roots)
    monkeypatch.setattr(builtins, "compile", refuse)
    with pytest.raises(AssertionError, match="once more"):
        sources[str(tmp_path / "used.py")].code()


def test_a_source_that_is_not_what_was_signed_is_refused(snapshot):
    payload, store = shipped(snapshot)
    store.put_blobs({payload.sources[0].digest: b"something else"})
    with pytest.raises(StoreUnavailable, match="as it was signed"):
        sources_of(payload, store, {}, snapshot.roots)


def test_what_runs_already_is_not_fetched(snapshot):
    payload, _ = shipped(snapshot, interpreter="")
    running = snapshot.sources
    assert sources_of(payload, MemoryStore("b"), running, snapshot.roots) == running


def test_what_the_store_has_is_not_sent_again(snapshot):
    everything = read_of(snapshot, ())
    assert read_of(snapshot, everything.digests).blobs == {}
    assert read_of(snapshot, everything.digests).references == everything.references


def test_code_that_the_store_has_is_not_marshalled_again(snapshot, monkeypatch):
    everything = read_of(snapshot, ())
    monkeypatch.setattr(marshal, "dumps", refuse)
    assert read_of(snapshot, everything.digests).references == everything.references


def test_code_that_another_has_compiled_keeps_its_digest(snapshot):
    payload, store = shipped(snapshot)
    sources = sources_of(payload, store, {}, snapshot.roots)
    there = read_of(snapshot, ())
    here = read_of(Snapshot(snapshot.roots, sources, sealed=True), there.digests)
    assert (here.references, here.blobs) == (there.references, {})


def test_code_that_the_store_has_lost_is_sent_again(snapshot):
    sources = {source.digest for source in snapshot.sources.values()}
    again = read_of(snapshot, sources)
    [reference] = [each for each in again.references if each.code]
    namespace = {}
    exec(marshal.loads(again.blobs[reference.code]), namespace)
    assert namespace["VALUE"] == "used"
    assert set(again.digests) - sources == {reference.code}


def test_what_one_worker_alone_tries_out_is_not_sent(site, tmp_path, monkeypatch):
    (tmp_path / "meeting").mkdir(mode=0o700)
    site.serve(APPLICATION, coordinator=f"sqlite:///{tmp_path}/meeting/store.sqlite")
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    assert site.call("rate", 1) == 1
    agent, sent = site.rpc._service.membership.agent, []
    monkeypatch.setattr(agent._store, "put_blobs", sent.append)
    try:
        site.reload("rate", dry_run=True)
        assert sent == []
        site.reload("rate")
        assert len(sent) == 1
    finally:
        agent.stop()

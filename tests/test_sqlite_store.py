"""What only the SQLite store has: a file that can be damaged, processes that fork and die, other programs."""

import errno
import logging
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from flask_hotreload.coordination import database
from flask_hotreload.coordination.hands import Hands
from flask_hotreload.coordination.presence import member_file
from flask_hotreload.coordination.records import Ballot, JournalRecord, Member, Phase, TransactionRecord, Vote
from flask_hotreload.coordination.sqlite import SQLiteStore
from flask_hotreload.errors import StoreUnavailable

RELEASE = "0"
PATIENCE = 20.0  # seconds
NOBODY = 65534


@pytest.fixture
def file(tmp_path):
    return tmp_path / "store.sqlite"


@pytest.fixture
def opened(file):
    """Opens a store as some member; everything is closed afterwards."""
    stores = []

    def opened(member="a", **options):
        store = SQLiteStore(file, member, **options)
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def process(file):
    """Starts a process that runs some code with ``store`` in it, and says ``ready``; it is killed afterwards."""
    started = []

    def process(code, member="b"):
        program = f"""
            import os, sys, time
            from pathlib import Path
            from flask_hotreload.coordination.records import Member
            from flask_hotreload.coordination.sqlite import SQLiteStore
            store = SQLiteStore(Path({str(file)!r}), {member!r})
            """
        text = textwrap.dedent(program) + textwrap.dedent(code)
        child = subprocess.Popen(
            [sys.executable, "-c", text], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        started.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield process
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stdin.close()


JOINED = """
store.join(Member(store.member_id, "host", os.getpid(), "0", store.view("0").head))
print("ready", flush=True)
sys.stdin.read()
"""


def member(name="a", generation=0):
    return Member(name, "host", 1, RELEASE, generation)


def transaction(name="t1", *, participants=("a",), base=0):
    return TransactionRecord(
        name, RELEASE, participants[0], tuple(participants), base, base + 1, Phase.STAGING, 10.0, b"payload"
    )


def commit(store, generation, *, name=None, payload=b"record", obsolete=()):
    name = name or f"t{generation}"
    assert store.begin(transaction(name, base=generation - 1))
    store.advance(name, to=Phase.PREPARE, deadline=1.0, payload=payload)
    store.advance(name, to=Phase.APPLY, deadline=1.0)
    assert store.commit(JournalRecord(RELEASE, generation, name, payload, ()), obsolete=obsolete)


def until(holds):
    deadline, pause = monotonic() + PATIENCE, threading.Event()
    while not holds():
        assert monotonic() < deadline
        pause.wait(0.005)


def refused(store, *words):
    """Neither reading nor writing works, and the errors say why."""
    for attempt in (lambda: store.view(RELEASE), lambda: store.abort("t1", "reason")):
        with pytest.raises(StoreUnavailable) as raised:
            attempt()
        for word in words:
            assert word in str(raised.value)


# Damage -------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_deleted_while_it_is_used_is_noticed(file, opened):
    store = opened()
    store.join(member())
    file.unlink()
    refused(store, str(file), "deleted", "restart")


def test_a_file_that_is_replaced_while_it_is_used_is_noticed(file, opened):
    store = opened()
    store.join(member())
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    copy.rename(file)
    refused(store, "replaced")


def test_a_log_that_is_deleted_while_it_is_used_is_noticed(file, opened):
    store = opened()
    store.join(member())
    Path(f"{file}-wal").unlink()
    refused(store, "deleted")


@pytest.mark.parametrize("ballot", [Ballot.PREPARED, Ballot.APPLIED])
def test_a_file_of_votes_that_is_deleted_is_noticed_before_anybody_is_held(file, opened, ballot):
    store = opened()
    store.join(member(store.member_id))
    assert store.begin(transaction(participants=(store.member_id,)))
    Path(f"{file}.{ballot.value}").unlink()
    noticed = f"{ballot.value} was deleted or replaced while workers vote there; restart"
    with pytest.raises(StoreUnavailable, match=noticed):
        store.vote(Vote("t1", Ballot.PREPARED, store.member_id, ok=True))
    assert store.abort("t1", "enough")
    assert (
        store.vote(Vote("t1", Ballot.SETTLED, store.member_id, ok=False)) == 0
    )  # what is decided can be carried out
    assert store.view(RELEASE).voted(Ballot.SETTLED)
    with pytest.raises(StoreUnavailable, match=noticed):
        store.begin(transaction("t2", participants=(store.member_id,)))


def test_what_is_decided_is_decided_though_late_votes_cannot_be_told_so(opened, monkeypatch):
    store = opened()
    store.join(member(store.member_id))
    for number, name in enumerate(["t1", "t2"]):
        assert store.begin(transaction(name, participants=(store.member_id,), base=number))
        store.advance(name, to=Phase.PREPARE, deadline=1.0)
        store.advance(name, to=Phase.APPLY, deadline=1.0)

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(Hands, "end", full)
            if name == "t1":
                assert store.commit(JournalRecord(RELEASE, 1, name, b"record", ()))
            else:
                assert store.abort(name, "enough")
    assert store.view(RELEASE, "t1").outcome is Phase.COMMITTED
    assert store.view(RELEASE, "t2").outcome is Phase.ABORTED


def test_nobody_begins_anew_while_others_use_what_was_deleted(file, opened):
    opened("a").join(member("a"))
    file.unlink()
    with pytest.raises(StoreUnavailable, match="while workers run"):
        opened("b").view(RELEASE)


def test_a_deleted_file_is_made_anew_when_nobody_uses_it(file, opened):
    store = opened("a")
    commit_one(store)
    store.close()
    for each in file.parent.iterdir():
        each.unlink()
    assert opened("b").view(RELEASE).head == 0


def commit_one(store):
    store.join(member(store.member_id))
    assert store.begin(transaction(participants=(store.member_id,)))
    store.advance("t1", to=Phase.PREPARE, deadline=1.0)
    store.advance("t1", to=Phase.APPLY, deadline=1.0)
    store.commit(JournalRecord(RELEASE, 1, "t1", b"record", ()))


def overwrite(file, *, keep):
    """Damage everything after the first ``keep`` bytes, in place."""
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with open(file, "r+b") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(keep)
        raw.write(b"\xa5" * (size - keep))


@pytest.mark.parametrize(
    "keep", [0, 16, 100, 4096], ids=["all of it", "all but the magic", "the schema", "the tables"]
)
def test_a_damaged_file_is_set_aside_when_it_is_opened(file, opened, caplog, keep):
    store = opened("a")
    commit_one(store)
    store.close()
    overwrite(file, keep=keep)
    damaged = file.read_bytes()
    with caplog.at_level(logging.ERROR, logger="flask_hotreload"):
        assert opened("b").view(RELEASE).head == 0
    (aside,) = (each for each in file.parent.iterdir() if ".corrupt-" in each.name and each.suffix != ".lock")
    assert aside.read_bytes() == damaged
    assert str(aside) in caplog.text
    assert opened("b").join(member("b"))


def test_a_file_that_is_damaged_while_it_is_used_is_an_error_until_a_restart(file, opened):
    store = opened("a")
    commit_one(store)
    overwrite(file, keep=0)
    refused(store, "damaged", "restart")
    with pytest.raises(StoreUnavailable, match="while workers run"):
        opened("b").view(RELEASE)
    store.close()
    assert opened("b").view(RELEASE).head == 0


def test_a_database_of_something_else_is_left_alone(file, opened):
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(StoreUnavailable, match="something else"):
        opened().view(RELEASE)
    assert file.read_bytes() == before


def test_a_store_of_another_version_is_left_alone(file, opened):
    opened("a").view(RELEASE)
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version={database.VERSION + 1}")
    connection.close()
    with pytest.raises(StoreUnavailable, match="another version"):
        opened("b").view(RELEASE)


def test_after_a_reboot_members_and_the_undecided_transaction_are_void(file, opened):
    store = opened("a")
    commit_one(store)
    assert store.begin(transaction("t2", base=1))
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE meta SET boot = 'an earlier one'")
    connection.close()
    view = opened("b").view(RELEASE, "t2")
    assert view.members == ()
    assert view.outcome is Phase.ABORTED
    assert (view.head, len(opened("b").journal(RELEASE))) == (1, 1)


# Whoever is in the way ----------------------------------------------------------------------------------------------


def test_a_stopped_writer_is_an_error_that_names_it_and_not_a_hang(opened, process):
    store = opened(busy_seconds=0.2)
    commit_one(store)
    other = process(
        """
        with store._database.write():
            print("ready", flush=True)
            sys.stdin.read()
        """
    )
    other.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match=f"process {other.pid} .*stopped"):
        store.abort("t1", "reason")
    assert store.view(RELEASE).head == 1  # who reads is not in anybody's way
    other.send_signal(signal.SIGCONT)
    other.kill()
    other.wait()
    store.put_blobs({"d": b"1"})


def test_another_program_that_locks_the_file_is_an_error(file, opened):
    store = opened(busy_seconds=0.1)
    store.join(member())
    foreign = sqlite3.connect(file, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another program"):
        store.update(member())
    foreign.execute("ROLLBACK")
    foreign.close()
    store.update(member())


def test_a_disk_that_is_full_is_an_error_and_reading_goes_on(opened):
    store = opened()
    commit_one(store)
    connection = store._database._writer
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable, match="make room"):
        store.put_blobs({"big": b"x" * 100_000})
    assert store.blobs(["big"]) == {}
    assert store.view(RELEASE).head == 1
    connection.execute("PRAGMA max_page_count=1000000")
    store.put_blobs({"big": b"x" * 100_000})


def test_a_limit_of_the_size_of_files_is_an_error_and_passes(file, opened):
    store = opened()
    commit_one(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StoreUnavailable, match="a limit of its size"):
            store.put_blobs({"big": b"x" * 2_000_000})
        assert store.view(RELEASE).head == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.put_blobs({"big": b"x" * 2_000_000})
    assert set(store.blobs(["big"])) == {"big"}


@contextmanager
def without_privileges():
    """As root, permissions mean nothing."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder_of_nobody():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder
        folder.chmod(0o700)


@pytest.mark.parametrize("made_before", [True, False])
def test_a_folder_that_may_not_be_written_is_an_error_with_the_remedy(folder_of_nobody, made_before):
    with without_privileges():
        file = folder_of_nobody / "store.sqlite"
        if made_before:
            store = SQLiteStore(file, "a")
            store.view(RELEASE)
            store.close()
            for each in folder_of_nobody.iterdir():
                each.chmod(0o400)
        folder_of_nobody.chmod(0o500)
        with pytest.raises(StoreUnavailable, match=r"(?s)Permission denied.*read and write"):
            SQLiteStore(file, "a").view(RELEASE)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreUnavailable, match="No such file"):
        SQLiteStore(tmp_path / "nowhere" / "store.sqlite").view(RELEASE)


def test_nobody_else_can_read_what_is_in_the_store(file, opened):
    previous = os.umask(0)
    try:
        commit_one(opened())
    finally:
        os.umask(previous)
    for each in file.parent.iterdir():
        if not each.is_socket():
            assert not each.stat().st_mode & 0o077, each


@pytest.mark.parametrize("name", ["a store?.sqlite", "100%#.sqlite", "ä.sqlite", "n" * 100 + ".sqlite"])
def test_a_file_may_have_any_name_and_its_folder_any_length(tmp_path, name):
    folder = tmp_path / ("deep" * 50)
    folder.mkdir()
    first, second = SQLiteStore(folder / name, "a" * 300), SQLiteStore(folder / name, "b/../c")
    assert first.join(member("a" * 300))
    assert second.join(member("b/../c"))
    waited = threading.Thread(target=first.wait, args=(PATIENCE,))
    waited.start()
    second.ring(["a" * 300])
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()
    assert (folder / name).exists()
    first.close()
    second.close()


# Life and death -----------------------------------------------------------------------------------------------------


def test_a_killed_process_is_dead_and_a_stopped_one_is_not(opened, process):
    store = opened()
    other = process(JOINED)
    other.send_signal(signal.SIGSTOP)
    until(lambda: "T" in Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0])
    assert not store.dead(["b"])
    other.kill()
    until(lambda: store.dead(["b"]) == {"b"})


def test_a_process_is_known_by_host_and_pid(file):
    store = SQLiteStore(file)
    assert store.member_id == f"{socket.gethostname()}:{os.getpid()}"
    second = SQLiteStore(file)
    assert second.member_id == f"{store.member_id}.2"
    store.close()
    second.close()


def test_two_that_live_do_not_have_one_id(opened):
    assert opened("a").member_id == "a"
    with pytest.raises(StoreUnavailable, match="another process that runs is member a"):
        _ = opened("a").member_id


def test_a_process_joins_as_itself_only(opened):
    with pytest.raises(ValueError, match="cannot join as b"):
        opened("a").join(member("b"))


def test_who_gets_the_id_of_a_dead_one_does_not_go_on_where_that_one_was(opened, process):
    store = opened("a")
    store.join(member("a"))
    other = process(JOINED)
    started = store.begin(transaction(participants=("b", "a")))
    assert started
    other.kill()
    other.wait()
    again = opened("b")
    assert again.member_id == "b"
    view = store.view(RELEASE, "t1")
    assert [each.id for each in view.members] == ["a"]
    assert view.outcome is Phase.ABORTED
    assert "b has died" in view.active.reason


def test_whoever_joins_removes_what_the_dead_have_left(file, opened, process):
    other = process(JOINED)
    assert member_file(file, "b").exists()
    before = set(file.parent.glob("*.sock"))
    other.kill()
    other.wait()
    store = opened("a")
    assert store.join(member("a"))
    assert [each.id for each in store.view(RELEASE).members] == ["a"]
    assert not member_file(file, "b").exists()
    assert not before & set(file.parent.glob("*.sock"))


def test_what_the_dead_have_left_is_kept_while_their_transaction_is_undecided(opened, process):
    store = opened("a")
    store.join(member("a"))
    other = process(JOINED)
    assert store.begin(transaction(participants=("b", "a")))
    other.kill()
    other.wait()
    assert not opened("c").join(member("c"))
    assert store.dead(["b"]) == {"b"}


def test_a_forked_child_is_nobody_and_disturbs_nobody(opened):
    store = opened(None)
    store.join(member(store.member_id))
    parent = store.member_id
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            alive = store.dead([parent]) == set()
            same = store.view(RELEASE).members[0].id == parent
            told = f"{store.member_id} {alive} {same}"
            store.close()
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reading, 1000).decode()
    os.close(reading)
    os.close(writing)
    assert told == f"{socket.gethostname()}:{child} True True"
    until(lambda: store.dead([f"{socket.gethostname()}:{child}"]))
    assert store.dead([parent]) == set()
    store.update(member(parent))
    assert [each.id for each in store.view(RELEASE).members] == [parent]
    waited = threading.Thread(target=store.wait, args=(PATIENCE,))
    waited.start()
    store.ring([parent])
    waited.join(PATIENCE / 2)
    assert not waited.is_alive()


def test_a_child_that_outlives_its_parent_does_not_keep_it_alive(opened, process):
    store = opened("a")
    other = process(
        """
        store.join(Member(store.member_id, "host", os.getpid(), "0", 0))
        if os.fork() == 0:
            print("ready", flush=True)
            sys.stdin.read()  # until the test ends
            os._exit(0)
        time.sleep(60)
        """
    )
    assert not store.dead(["b"])
    other.kill()
    until(lambda: store.dead(["b"]) == {"b"})


def test_a_program_that_a_worker_starts_does_not_keep_it_alive(opened, process):
    store = opened("a")
    other = process(
        """
        import subprocess
        store.join(Member(store.member_id, "host", os.getpid(), "0", 0))
        subprocess.Popen(["sleep", "5"], close_fds=False, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    other.kill()
    until(lambda: store.dead(["b"]) == {"b"})


def test_a_store_that_was_made_before_a_fork_is_opened_in_each_process(file):
    store = SQLiteStore(file)
    assert not file.exists()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if store.join(member(store.member_id)) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert store.join(member(store.member_id))
    store.close()


# What it costs ------------------------------------------------------------------------------------------------------


def test_the_file_does_not_grow_with_what_is_obsolete(file, opened):
    store = opened()
    store.join(member())
    sizes = []
    for generation in range(1, 201):
        commit(store, generation, payload=os.urandom(20_000), obsolete=[generation - 1])
        sizes.append(file.stat().st_size + Path(f"{file}-wal").stat().st_size)
    assert len(store.journal(RELEASE)) == 1
    assert max(sizes[100:]) <= 1.5 * max(sizes[:100])


def test_a_record_is_read_anew_where_another_has_got_the_id_of_one_long_ago(opened, monkeypatch):
    monkeypatch.setattr("flask_hotreload.coordination.recorded.REMEMBERED", 1)
    monkeypatch.setattr("flask_hotreload.coordination.past.REMEMBERED", 1)
    store, reader = opened("a"), opened("b")
    assert store.join(member("a"))
    commit(store, 1, payload=b"first")
    assert [record.payload for record in reader.journal(RELEASE)] == [b"first"]
    for generation in (2, 3, 4):
        commit(store, generation, obsolete=[generation - 1])
        store.tidy()
    commit(store, 5, name="t1", payload=b"another", obsolete=[4])
    assert [record.payload for record in reader.journal(RELEASE)] == [b"another"]


def test_the_log_does_not_grow_with_what_members_tell(file, opened):
    store = opened()
    store.join(member())
    for _ in range(3000):
        store.update(member())
    assert Path(f"{file}-wal").stat().st_size < 12 << 20
    store.tidy()  # it begins anew with what is written next
    store.update(member())
    store.update(member())
    assert Path(f"{file}-wal").stat().st_size <= database.LONG_LOG


def test_reading_and_writing_from_many_threads_is_right(opened):
    store = opened()
    names = [f"m{number}" for number in range(8)]
    others = [opened(name) for name in names]
    for name, other in zip(names, others, strict=True):
        assert other.join(member(name))
    store.join(member("a"))
    assert store.begin(transaction(participants=("a", *names)))
    failed = []

    def work(name):
        try:
            for ballot in Ballot:
                assert store.vote(Vote("t1", ballot, name, ok=True))
                assert name in store.view(RELEASE).voted(ballot)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failed
    assert len(store.view(RELEASE).votes) == len(names) * len(Ballot)


def test_under_gevent_others_run_while_one_waits(file):
    pytest.importorskip("gevent")
    program = f"""
        from gevent import monkey; monkey.patch_all()
        import gevent, sys, time
        from pathlib import Path
        from flask_hotreload.coordination.sqlite import SQLiteStore
        from flask_hotreload.errors import StoreUnavailable
        first = SQLiteStore(Path({str(file)!r}), "a", busy_seconds=0.3)
        second = SQLiteStore(Path({str(file)!r}), "b")
        assert (first.member_id, second.member_id) == ("a", "b")
        turns = []
        def count():
            while True:
                turns.append(1)
                gevent.sleep(0.001)
        counter = gevent.spawn(count)
        waiting = gevent.spawn(first.wait, 30)
        gevent.sleep(0.05)
        assert len(turns) > 5, turns
        assert not waiting.ready()
        second.ring(["a"])
        waiting.join(10)
        assert waiting.ready()
        turns.clear()
        with second._database.write():
            try:
                first.abort("t", "reason")
            except StoreUnavailable as error:
                assert "locked" in str(error)
            else:
                raise AssertionError("it was not locked")
        assert len(turns) > 5, turns
        first.close(); second.close()
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


def test_a_look_while_the_next_one_begins_does_not_lose_the_votes_of_the_last(opened, monkeypatch):
    """The file of votes begins anew an instant before the row does."""
    store, other = opened("a"), opened("b")
    assert store.join(Member("a", "host", 1, RELEASE, 0))
    first = TransactionRecord("t1", RELEASE, "a", ("a",), 0, 1, Phase.PREPARE, 1e9, b"")
    assert store.begin(first)
    assert store.vote(Vote("t1", Ballot.PREPARED, "a", ok=True)) == 1
    assert store.abort("t1", "for a test")
    called, go, views = threading.Event(), threading.Event(), []
    call = Hands.call

    def slowly(hands, transaction):
        call(hands, transaction)
        called.set()
        assert go.wait(PATIENCE)

    monkeypatch.setattr(Hands, "call", slowly)
    beginning = threading.Thread(target=other.begin, args=(msgspec.structs.replace(first, id="t2"),))
    beginning.start()
    assert called.wait(PATIENCE)
    looking = threading.Thread(target=lambda: views.append(store.view(RELEASE)))
    looking.start()
    looking.join(0.1)
    assert not views, "it has shown the last one without its votes"
    go.set()
    for thread in (looking, beginning):
        thread.join(PATIENCE)
    assert [view.active.id for view in views] == ["t2"]

"""A retry with the id of a reload that has begun gets what became of that one, whoever has died over it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from conftest import until

from flask_hotreload import inventory as inventory_module
from flask_hotreload.attempts import Attempts
from flask_hotreload.coordination.payload import Payload, SourceReference, keys_of, seal
from flask_hotreload.coordination.records import Ballot, JournalRecord, Member, Phase, TransactionRecord, Vote
from flask_hotreload.coordination.signing import Signer, key_beside
from flask_hotreload.coordination.sqlite import SQLiteStore
from flask_hotreload.coordination.store import REPORTS
from flask_hotreload.document import read_document
from flask_hotreload.errors import ReloadBusy, ReloadInvalid, StoreUnavailable, WorkerFailed
from flask_hotreload.portable import portable
from flask_hotreload.report import ReloadReport
from flask_hotreload.sources import Source

BODY = """
@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount
"""
ID = "deploy-77"


class Elsewhere:
    """Another worker, whom this test is. It coordinates one reload and can die at any point of it."""

    def __init__(self, site, file):
        self._site = site
        self.store = SQLiteStore(file, "elsewhere:1")
        self._signer = Signer(key_beside(file))
        self._release = self.store.view("").release
        self.record = None
        assert self.store.join(Member("elsewhere:1", "elsewhere", 1, self._release, 0))

    def view(self):
        return self.store.view(self._release)

    def die(self):
        self.store.close()

    def begin(self, identity=ID):
        view = self.view()
        self._payload = self._said(view.newest + 1, identity)
        self.record = TransactionRecord(
            identity,
            self._release,
            "elsewhere:1",
            tuple(member.id for member in view.members),
            view.head,
            view.newest + 1,
            Phase.STAGING,
            self.store.now() + 20,
            seal(self._payload, self._signer),
        )
        assert self.store.begin(self.record)

    def _said(self, generation, identity):
        entry = {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"}
        document = read_document({"data": [entry], "id": identity, "label": "v2"})
        return Payload(
            self._site.app.import_name,
            self._release,
            generation,
            identity,
            "http",
            "somebody",
            "2026-01-01T12:00:00.000Z",
            portable(document, lambda path: f"0:{path}"),
        )

    def to_apply(self):
        """Until the other one has its lock closed, and has voted for it."""
        file = self._site.folder / "handlers.py"
        source = Source(str(file), file.read_bytes())
        self.store.put_blobs({source.digest: source.data})
        self._digests = (source.digest,)
        keys = keys_of(self._payload.document, ("handlers",))
        sources = (SourceReference(0, "handlers.py", str(file), source.digest),)
        self._sealed = seal(msgspec.structs.replace(self._payload, sources=sources, keys=keys), self._signer)
        self.store.vote(Vote(self.record.id, Ballot.PREPARED, "elsewhere:1", ok=True))
        for phase, ballot in ((Phase.PREPARE, Ballot.PREPARED), (Phase.APPLY, Ballot.APPLIED)):
            deadline = self.store.now() + 20
            assert self.store.advance(self.record.id, to=phase, deadline=deadline, payload=self._sealed)
            self.ring()
            until(lambda ballot=ballot: set(self.view().voted(ballot)) - {"elsewhere:1"}, f"nobody has {ballot}")
            self._agreed(ballot)

    def _agreed(self, ballot):
        assert all(vote.ok for vote in self.view().voted(ballot).values()), self.view().votes

    def commit(self):
        self.store.vote(Vote(self.record.id, Ballot.APPLIED, "elsewhere:1", ok=True))
        record, release = self.record, self._release
        assert self.store.commit(JournalRecord(release, record.generation, record.id, self._sealed, self._digests))
        self.ring()

    def ring(self):
        self.store.ring(self.record.participants)

    def run(self):
        self.begin()
        self.to_apply()
        self.commit()


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "meeting"
    folder.mkdir(mode=0o700)
    return folder / "store.sqlite"


@pytest.fixture
def service(site, file):
    """A worker that has joined."""
    site.serve(BODY, coordinator=f"sqlite:///{file}", prepare_timeout=1.0)
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    assert site.call("rate", 1) == 1
    yield site
    agent_of(site).stop()


@pytest.fixture
def elsewhere(service, file):
    elsewhere = Elsewhere(service, file)
    yield elsewhere
    elsewhere.store.close()


def agent_of(site):
    return site.rpc._service.membership.agent


def listed(site):
    """What the history tells: ids and statuses, newest first."""
    return [(report.id, report.status) for report in site.rpc.history()]


def test_when_the_coordinator_died_after_the_decision_the_retry_gets_its_report(service, elsewhere):
    elsewhere.run()
    elsewhere.die()
    report = service.reload("rate", id=ID)
    assert (report.id, report.status, report.generation, report.previous) == (ID, "committed", 1, 0)
    assert (report.label, report.trigger, report.actor) == ("v2", "http", "somebody")
    assert report.started_at == "2026-01-01T12:00:00.000Z"
    assert [(change.path, change.name, change.change) for change in report.changes] == [("/api", "rate", "replaced")]
    assert {worker.id: worker.error for worker in report.workers}["elsewhere:1"] == "died"
    assert service.reload("rate", id=ID) == report
    assert (service.rpc.generation, service.call("rate", 1)) == (1, 2)
    assert listed(service) == [(ID, "committed")]


def test_when_the_coordinator_died_before_the_decision_the_retry_is_told_that_it_was_aborted(service, elsewhere):
    elsewhere.begin()
    elsewhere.to_apply()
    elsewhere.die()
    for _ in range(2):
        with pytest.raises(WorkerFailed, match="elsewhere:1 has died") as caught:
            service.reload("rate", id=ID)
        assert caught.value.worker == "elsewhere:1"
        assert (caught.value.report.status, caught.value.report.generation) == ("aborted", 0)
    assert (service.rpc.generation, service.call("rate", 1)) == (0, 1)
    assert listed(service) == [(ID, "aborted")]
    assert service.reload("rate", id="deploy-78").generation == 1


def test_when_the_coordinator_died_over_its_own_part_the_retry_is_told_that_it_was_aborted(service, elsewhere):
    elsewhere.begin()
    elsewhere.die()
    with pytest.raises(WorkerFailed, match="elsewhere:1 has died"):
        service.reload("rate", id=ID)
    assert service.reload("rate").generation == 1


def test_a_coordinator_of_whom_no_trace_is_left_has_died_too(service, elsewhere, file):
    elsewhere.run()
    elsewhere.die()
    successor = SQLiteStore(file, "elsewhere:2")
    release = successor.view("").release
    until(lambda: successor.join(Member("elsewhere:2", "elsewhere", 2, release, 1)), "it cannot join")
    assert "elsewhere:1" not in {member.id for member in successor.view(release).members}
    assert successor.dead(["elsewhere:1"]) == set()
    successor.close()
    report = service.reload("rate", id=ID)
    assert report.status == "committed"
    assert {worker.id: worker.error for worker in report.workers}["elsewhere:1"] == "died"


@pytest.mark.parametrize("decided", [True, False])
def test_the_report_is_written_before_another_transaction_takes_the_place(service, elsewhere, decided):
    elsewhere.begin()
    elsewhere.to_apply()
    if decided:
        elsewhere.commit()
    elsewhere.die()
    assert service.reload("rate", id="another").generation == 1 + decided
    assert listed(service) == [("another", "committed"), (ID, "committed" if decided else "aborted")]
    if decided:
        assert service.reload("rate", id=ID).generation == 1
    else:
        with pytest.raises(WorkerFailed, match="elsewhere:1"):
            service.reload("rate", id=ID)
    assert service.rpc.generation == 1 + decided


def test_the_history_tells_of_a_reload_whose_coordinator_has_died(service, elsewhere):
    elsewhere.run()
    assert listed(service) == []  # it lives, and is about to tell
    elsewhere.die()
    until(lambda: listed(service), "nobody tells")  # one that was alive just now is not looked at again at once
    assert listed(service) == [(ID, "committed")]


def test_a_retry_while_the_reload_is_under_way_waits_for_its_report(service, elsewhere):
    elsewhere.begin()
    written = ReloadReport(ID, "committed", 1, 0, "told by the coordinator", None, "http", None)
    with ThreadPoolExecutor(1) as thread:
        retry = thread.submit(service.reload, "rate", id=ID)
        until(lambda: agent_of(service)._conductor.busy, "the retry is not asked for")
        elsewhere.to_apply()
        elsewhere.commit()
        elsewhere.store.put_report(msgspec.json.encode(written), transaction=ID)
        elsewhere.ring()
        assert retry.result(10).label == "told by the coordinator"
    assert service.rpc.generation == 1


def test_a_retry_that_waits_in_vain_is_told_to_try_again(service, elsewhere):
    elsewhere.begin()
    with pytest.raises(ReloadBusy, match="try again"):
        service.reload("rate", id=ID)


def test_a_coordinator_that_lives_and_does_not_tell_is_not_waited_for_longer_than_for_a_turn(service, elsewhere):
    elsewhere.run()
    report = service.reload("rate", id=ID)
    assert (report.status, report.generation) == ("committed", 1)
    assert service.rpc.generation == 1
    # What the coordinator tells after all takes the place of it.
    late = msgspec.structs.replace(report, label="told by the coordinator")
    elsewhere.store.put_report(msgspec.json.encode(late), transaction=ID)
    assert [report.label for report in service.rpc.history()] == ["told by the coordinator"]


def test_an_id_whose_report_is_not_kept_any_more_is_refused_with_the_remedy(service, elsewhere):
    elsewhere.run()
    elsewhere.die()
    assert service.reload("rate", id="another").generation == 2
    store = agent_of(service)._store
    other = msgspec.json.encode(ReloadReport("x", "committed", 1, 0, None, None, "http", None))
    for _ in range(REPORTS):
        store.put_report(other)
    with pytest.raises(ReloadInvalid, match=r"deploy-77.*use a new one"):
        service.reload("rate", id=ID)
    assert service.rpc.generation == 2
    assert (
        service.reload_over_http(data=[{"dispatcher": "rate", "scriptPath": "handlers.py"}], id=ID).status_code == 400
    )


def test_what_has_begun_unseen_is_ended_at_once_and_told_to_a_retry(service, monkeypatch):
    store = agent_of(service)._store
    begin = store.begin
    lost = threading.Event()

    def losing_the_answer(record):
        begun = begin(record)
        if begun and not lost.is_set():  # a first attempt may have been made on a view from before it was asked for
            lost.set()
            raise StoreUnavailable("the answer is lost")
        return begun

    monkeypatch.setattr(store, "begin", losing_the_answer)
    with pytest.raises(StoreUnavailable, match="nothing was reloaded"):
        service.reload("rate", id=ID)
    until(lambda: store.view("").active.phase is Phase.ABORTED, "it is not ended")
    with pytest.raises(WorkerFailed, match="had lost the store"):
        service.reload("rate", id=ID)
    assert service.reload("rate", id="deploy-78").generation == 1


def test_a_retry_that_expects_what_its_first_attempt_has_replaced_gets_the_report(service, monkeypatch):
    first = service.reload("rate", id=ID, expect=0)
    # Between the commit and its report, another worker finds neither an earlier report nor what is expected.
    monkeypatch.setattr(agent_of(service), "earlier", lambda identity: None)
    service.rpc._service.reloader._attempts = Attempts()
    report = service.reload("rate", id=ID, expect=0)
    assert (report.id, report.status, report.generation) == (first.id, "committed", 1)
    with pytest.raises(ReloadBusy, match="not 0 as expected"):
        service.reload("rate", id="another", expect=0)


def test_only_an_id_that_was_given_can_have_been_used_before(service, monkeypatch):
    looked_for, store = [], agent_of(service)._store
    has_begun = store.has_begun
    monkeypatch.setattr(store, "has_begun", lambda identity: looked_for.append(identity) or has_begun(identity))
    made_up = service.reload("rate")
    assert made_up.id not in looked_for
    service.write("handlers.py", "def rate(amount: int) -> int: return 3 * amount")
    service.reload("rate", id=ID)
    assert ID in looked_for
    looked_for.clear()
    service.rpc.rollback()
    assert looked_for == []
    assert service.control("/rollback", method="POST", json={"id": "back-again"}).get_json()["id"] in looked_for


def test_behind_a_reload_a_worker_reads_what_a_rollback_would_need_at_once(service, monkeypatch):
    monkeypatch.setattr(inventory_module, "_known", None)
    read, store = [], agent_of(service)._store
    journal = store.journal
    monkeypatch.setattr(store, "journal", lambda release: read.append(journal(release)) or read[-1])
    report = service.rpc.reload()
    until(lambda: read and [record.transaction for record in read[-1]] == [report.id], "nobody reads the journal")
    until(lambda: inventory_module._known is not None, "nobody finds out whose the modules are")


def test_health_is_told_while_the_first_request_waits_until_the_worker_has_joined(site, file, monkeypatch):
    site.serve(BODY, coordinator=f"sqlite:///{file}")
    membership = site.rpc._service.membership
    began, go, join = threading.Event(), threading.Event(), membership._join

    def join_slowly(place):
        began.set()
        assert go.wait(10)
        join(place)

    monkeypatch.setattr(membership, "_join", join_slowly)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(site.call("rate", 1)))
    asking.start()
    try:
        assert began.wait(10)
        assert site.control("/health", token=None).status_code == 503
        assert answers == []
    finally:
        go.set()
        asking.join(10)
    assert answers == [1]
    assert site.control("/health", token=None).status_code == 200
    agent_of(site).stop()

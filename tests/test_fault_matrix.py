"""Each process of a reload, killed, paused and stalled at each step of the protocol, under load.

Afterwards all workers agree, every lock is open, nobody but the killed worker's own clients has lost a request, who
asks again with the same id is told what came of it, and the next reload works; how long that takes is measured, and
bounded by the deadlines of the phases.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPException
from time import monotonic

import pytest
from checker import Checker
from cluster import DOCUMENT, Cluster, cluster, service, until
from stopping import Stop

pytestmark = pytest.mark.alone

#: Seconds for each phase, as configured; with the margin of 2 s, prepare may take 3 s, drain and apply 4 s.
ENV = {"HOTRELOAD_PREPARE_TIMEOUT": "1", "HOTRELOAD_TIMEOUT": "1", "HOTRELOAD_APPLY_TIMEOUT": "1"}
#: Longer than all phases together: nobody can still be waiting for the one that is stopped.
STALL = 5.0
PAUSE = 0.3
#: Seconds until all is well again, counted from the kill or from the moment when a stopped process goes on. A worker
#: that replaces a killed one takes about one to be started.
BOUND = 8.0

ENTRY = {**DOCUMENT["data"][0], "overload": ["choosy"]}
CHOOSY = """
def choosy(server, module, dispatcher):
    if os.path.exists("refuse") and str(os.getpid()) in open("refuse").read():
        raise RuntimeError("this process does not want to")
"""

#: In the order of the protocol. From ``coordinator.committed`` on there is no way back.
COORDINATOR = [
    "coordinator.staging",
    "participant.staging",
    "participant.prepared",
    "coordinator.prepared",
    "coordinator.applying",
    "participant.applying",
    "participant.applied",
    "coordinator.before-commit",
    "coordinator.committed",
    "participant.committed",
    "participant.released",
    "participant.settled",
]
PARTICIPANT = [step for step in COORDINATOR if step.startswith("participant.")]
DECIDED = COORDINATOR[COORDINATOR.index("coordinator.committed") :]
CASES = [
    *(("coordinator", step, fault) for step in COORDINATOR for fault in ("kill", "pause", "stall")),
    *(("participant", step, fault) for step in PARTICIPANT for fault in ("kill", "pause", "stall")),
    *(
        (role, "participant.restoring", fault)
        for role in ("coordinator", "participant")
        for fault in ("kill", "stall")
    ),
]
SAMPLE = [
    ("coordinator", "coordinator.before-commit", "kill"),
    ("coordinator", "coordinator.committed", "kill"),
    ("coordinator", "coordinator.before-commit", "stall"),
    ("participant", "participant.applied", "kill"),
    ("participant", "participant.committed", "stall"),
    ("participant", "participant.restoring", "kill"),
]


@contextmanager
def asked(running: Cluster, coordinator: int, document: dict):
    """A reload that ``coordinator`` is asked for, as a future of status and answer; ``None`` if it died over it."""

    def ask(connection) -> tuple[int, dict] | None:
        try:
            return running.post_reload(document, connection=connection)
        except (OSError, HTTPException):
            return None

    with running.connected_to(coordinator) as connection, ThreadPoolExecutor(1) as thread:
        yield lambda: thread.submit(ask, connection)


def inflict(running: Cluster, victim: int, fault: str, stop: Stop, answer: Future) -> float:
    """Do it, and return when the trouble was over."""
    if fault == "kill":
        running.kill(victim)
        stop.remove()
        return monotonic()
    running.stop(victim)
    # Neither a guess nor a race: a stopped process does nothing, for however long.
    try:
        answer.result(STALL if fault == "stall" else PAUSE)
    except TimeoutError:
        pass
    running.resume(victim)
    stop.let_go()
    return monotonic()


def check(running: Cluster, stops, role: str, step: str, fault: str) -> float:
    """Run one case, and return how many seconds all took to be well again."""
    workers = running.await_members()
    coordinator, participant = min(workers), max(workers)
    victim = coordinator if role == "coordinator" else participant
    before = running.call("where")["generation"]
    running.edit(before + 1, extra=CHOOSY)
    if step == "participant.restoring":
        (running.folder / "refuse").write_text(str(sorted(workers)[1]))
    document = {"data": [ENTRY], "id": f"{coordinator} {step} {fault} {before}"}
    with Checker(running.address, clients=8, rate=60) as checker:
        with asked(running, coordinator, document) as ask:
            stop = Stop(stops, victim, step)
            answer = ask()
            stop.await_reached()
            over = inflict(running, victim, fault, stop, answer)
            told = answer.result(30)
        # Agreement: every worker answers, by one generation, which is what was decided.
        members = running.await_members()
        answers = running.everywhere(pids=members)
        (generation,) = {each["generation"] for each in answers.values()}
        (edition,) = {each["edition"] for each in answers.values()}
        again = running.post_reload(document)  # by whomever
        (running.folder / "refuse").unlink(missing_ok=True)
        running.edit(generation + 1, extra=CHOOSY)
        report = running.reload({"data": [ENTRY]})
        took = monotonic() - over
    assert generation - before in outcomes(role, step, fault), (generation, before, told)
    assert edition == generation
    assert report["generation"] == generation + 1
    assert {worker["pid"] for worker in report["workers"]} == members
    assert all(worker["ok"] for worker in report["workers"])
    for answer in (told or again, again):
        # Who dies when it has voted that it has settled has done its part.
        died = fault == "kill" and step != "participant.settled"
        check_answer(*answer, committed=generation > before, victim=victim, died=died)
    checker.verdict(lost_with=victim if fault == "kill" else None).assert_clean()
    assert took < BOUND, f"it took {took:.1f} s until all was well again"
    return took


def outcomes(role: str, step: str, fault: str) -> set[int]:
    """By how much the generation may have grown."""
    if step == "participant.restoring":
        return {0}
    if step in DECIDED or fault == "pause":
        return {1}
    if fault == "kill" and role == "participant":
        return {1}  # who has died is out
    return {0}


def check_answer(status: int, answer: dict, *, committed: bool, victim: int, died: bool) -> None:
    """The answer tells the truth: whether it happened, and what became of the victim."""
    assert (status == 200) is committed, (status, answer)
    report = answer if committed else answer["report"]
    assert report["status"] == ("committed" if committed else "aborted")
    if died:
        told = {worker["pid"]: worker for worker in report["workers"]}
        assert told[victim]["ok"] is False
        assert told[victim]["error"] == "died"


@pytest.fixture
def service_with_stops(tmp_path):
    """Four workers, and the folder in which they look for stops."""
    stops = tmp_path / "stops"
    stops.mkdir()
    # A worker that goes on after a stall would else close connections as idle that hold a request.
    patient = ("--keep-alive", "75")
    with cluster(service(tmp_path / "service"), env={**ENV, "CLUSTER_STOPS": str(stops)}, options=patient) as running:
        running.await_members()
        running.edit(1)
        running.reload()  # as long as nothing is committed, the successor of a killed worker serves the disk
        yield running, stops


def test_whoever_fails_wherever_all_agree_and_go_on(service_with_stops):
    running, stops = service_with_stops
    for case in SAMPLE:
        print(case, f"{check(running, stops, *case):.2f} s")


@pytest.mark.long
@pytest.mark.parametrize(("role", "step", "fault"), CASES)
def test_the_full_matrix_of_faults(service_with_stops, role, step, fault):
    running, stops = service_with_stops
    print(f"{check(running, stops, role, step, fault):.2f} s")


def has_begun(running, identity):
    with closing(sqlite3.connect(f"file:{running.store()}/store.sqlite?mode=ro", uri=True)) as store:
        return store.execute("SELECT 1 FROM active WHERE id = ? AND phase = 'prepare'", (identity,)).fetchone()


def test_who_asked_is_told_what_became_of_it_though_the_next_reload_has_begun(service_with_stops):
    running, stops = service_with_stops
    first, second = sorted(running.await_members())[:2]
    generation = running.call("where")["generation"]
    with asked(running, first, {**DOCUMENT, "id": "the first"}) as ask_first:
        stop = Stop(stops, first, "participant.settled")
        answer = ask_first()
        stop.await_reached()  # it has said that it has settled, and has not looked who else has
        with asked(running, second, {**DOCUMENT, "id": "the second"}) as ask_second:
            following = ask_second()
            until(lambda: has_begun(running, "the second"), "the second has not begun")
            stop.let_go()
            reports = [told for status, told in (answer.result(30), following.result(30)) if status == 200]
    assert [report["generation"] for report in reports] == [generation + 1, generation + 2]
    for report in reports:
        assert len(report["workers"]) == 4
        assert all(worker["ok"] and worker["pause_ms"] > 0 for worker in report["workers"])

"""Until when a worker admits requests, and which of them wait."""

import threading
from math import inf
from time import monotonic

import pytest
from actors import PATIENCE, Actor

from flask_hotreload.coordination.lease import GRACE, Lease
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.rwlock import ReadersWriterLock, Slot, current_slot


class Renewals:
    """What a store answers, as the test says; each answer is waited for."""

    def __init__(self):
        self.answer = inf
        self.asked = threading.Semaphore(0)

    def __call__(self):
        self.asked.release()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def renewals():
    return Renewals()


@pytest.fixture
def lease(renewals):
    refused = threading.Event()
    found = Lease(renewals, refused=refused.set, gate=lambda lease: None, longest=PATIENCE)
    found.was_refused = refused
    yield found
    found.stop()


@pytest.fixture
def actor():
    actor = Actor()
    yield actor
    actor.end()


def entered(lease, lock, slot):
    return lease.gated(lock)(slot, {})


def test_nobody_waits_where_leases_do_not_end(lease):
    lease.begin(inf)
    assert lease.runs
    assert lease.steady()
    assert not lease.finite


def test_a_request_waits_for_a_lease_that_has_run_out(lease, renewals, actor):
    renewals.answer = -inf
    lease.begin(monotonic())
    slot, lock = Slot(), ReadersWriterLock()
    entering = actor.start(entered, lease, lock, slot)
    assert lease.was_refused.wait(PATIENCE)
    assert not entering.done()
    assert lock.in_flight == 0
    lease.grant(monotonic() + 60)
    assert entering.result(PATIENCE) is None
    assert lock.in_flight == 1
    actor.do(lock.release_read, slot)


def test_what_was_known_before_a_request_came_does_not_let_it_in(lease, renewals, actor):
    renewals.answer = -inf
    before = monotonic()
    lease.begin(before)
    entering = actor.start(lease.wait)
    assert lease.was_refused.wait(PATIENCE)
    lease.grant(before)
    assert not entering.done()
    lease.grant(monotonic())
    entering.result(PATIENCE)


def test_a_nested_request_never_waits(lease, renewals):
    lock, outer, inner = ReadersWriterLock(), Slot(), Slot()
    lock.acquire_read(outer, {})
    token = current_slot.set(outer)
    try:
        renewals.answer = -inf
        lease.begin(monotonic())
        lease.end()
        assert entered(lease, lock, inner) is outer
    finally:
        current_slot.reset(token)
        lock.release_read(inner)
        lock.release_read(outer)


def test_while_the_store_is_away_requests_go_on(lease, renewals, actor, caplog):
    renewals.answer = StoreUnavailable("cut off")
    lease.begin(monotonic())
    actor.start(lease.wait).result(PATIENCE)
    assert lease.away == "cut off"
    assert lease.until <= monotonic() + GRACE
    assert not lease.steady()
    renewals.answer = monotonic() + 3600
    for _ in range(3):
        assert renewals.asked.acquire(timeout=PATIENCE)
    lease.wait()
    assert "serves on: cut off" in caplog.text


def test_who_has_just_reached_the_store_is_not_steady(lease, renewals):
    renewals.answer = monotonic() + 3600
    lease.begin(renewals.answer)
    assert lease.runs
    assert not lease.steady()


def test_when_it_cannot_catch_up_requests_are_served_by_what_there_is(lease, renewals, actor, caplog):
    renewals.answer = -inf
    lease.begin(monotonic())
    lease.end()
    entering = actor.start(lease.wait)
    lease.give_way("it cannot run what is committed")
    entering.result(PATIENCE)
    assert "may answer by an older generation" in caplog.text

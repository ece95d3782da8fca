"""The readers–writer lock: each test is one rule, and forces the interleaving that could break it."""

from __future__ import annotations

import contextvars
import gc
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from time import monotonic

import pytest
from actors import PATIENCE, actors, until

from flask_hotreload.mutex import Mutex
from flask_hotreload.rwlock import Gate, ReadersWriterLock, Slot, current_slot
from flask_hotreload.serial import serialized


@contextmanager
def reading(lock, environ=None, pin=None):
    """What the middleware does: a slot, marked in the context, released at the end."""
    slot = Slot()
    try:
        if lock.acquire_read(slot, environ) is None:
            slot.pin = pin
        token = current_slot.set(slot)
        try:
            yield slot
        finally:
            current_slot.reset(token)
    finally:
        lock.release_read(slot)


def enter(lock, environ=None):
    """A slot that is released later, as that of a response which is being sent."""
    slot = Slot()
    lock.acquire_read(slot, environ)
    slot.pin = None
    return slot


@contextmanager
def closed(lock):
    gate = Gate()
    try:
        assert lock.close(gate, timeout=PATIENCE)
        yield gate
    finally:
        lock.open(gate)


def assert_untouched(lock):
    assert repr(lock) == "<ReadersWriterLock open, 0 inside, 0 held>"
    slot = enter(lock)
    assert lock.in_flight == 1
    lock.release_read(slot)
    with lock.write(timeout=0) as inside:
        assert inside == ()


# Readers and the writer ------------------------------------------------------------------------------------------


def test_readers_share():
    lock = ReadersWriterLock()
    meeting = threading.Barrier(5, timeout=PATIENCE)

    def read():
        with reading(lock):
            meeting.wait()  # passes only if all are inside at once
            meeting.wait()

    with actors(4) as cast:
        done = [actor.start(read) for actor in cast]
        meeting.wait()
        assert lock.in_flight == 4
        meeting.wait()
        for future in done:
            future.result(PATIENCE)
    assert_untouched(lock)


def test_the_writer_waits_for_readers_that_are_inside():
    lock = ReadersWriterLock()
    with actors(2) as (reader, writer):
        slot = reader.do(enter, lock)
        gate = Gate()
        writer.do(lock.close, gate)
        drained = writer.start(lock.drain, gate)
        assert not drained.done()
        lock.release_read(slot)
        assert drained.result(PATIENCE) == ()
        lock.open(gate)
    assert_untouched(lock)


def test_the_writer_excludes_readers():
    lock = ReadersWriterLock()
    with actors(2) as (reader, writer):
        gate = Gate()
        writer.do(lock.close, gate)
        assert writer.do(lock.drain, gate) == ()
        held = reader.start(enter, lock)
        until(lambda: lock.held == 1)
        assert lock.in_flight == 0
        assert not held.done()
        lock.open(gate)
        lock.release_read(held.result(PATIENCE))
    assert_untouched(lock)


def test_a_waiting_writer_stops_new_readers():
    lock = ReadersWriterLock()
    with actors(3) as (early, late, writer):
        slot = early.do(enter, lock)
        gate = Gate()
        writer.do(lock.close, gate)
        drained = writer.start(lock.drain, gate)
        held = late.start(enter, lock)
        until(lambda: lock.held == 1)
        assert not drained.done()
        assert not held.done()
        lock.release_read(slot)
        assert drained.result(PATIENCE) == ()
        assert not held.done()
        lock.open(gate)
        lock.release_read(held.result(PATIENCE))
    assert_untouched(lock)


def test_opening_lets_in_all_that_were_held():
    lock = ReadersWriterLock()
    with actors(20) as cast:
        gate = Gate()
        lock.close(gate)
        futures = [actor.start(enter, lock) for actor in cast]
        until(lambda: lock.held == 20)
        assert gate.held == 20
        lock.open(gate)
        assert lock.in_flight == 20  # at once, not when they wake
        for future in futures:
            lock.release_read(future.result(PATIENCE))
    assert_untouched(lock)


def test_who_was_held_by_one_writer_is_not_held_by_the_next():
    lock = ReadersWriterLock()
    with actors(2) as (reader, second):
        first_gate, second_gate = Gate(), Gate()
        lock.close(first_gate)
        held = reader.start(enter, lock)
        until(lambda: lock.held == 1)
        turn = second.start(lock.close, second_gate)
        lock.open(first_gate)
        assert turn.result(PATIENCE)
        assert lock.drain(second_gate, timeout=0), "the second writer has to wait for the reader"
        slot = held.result(PATIENCE)  # although the second gate is closed
        assert lock.held == 0
        lock.release_read(slot)
        assert lock.drain(second_gate, timeout=0) == ()
        lock.open(second_gate)
    assert_untouched(lock)


def test_writers_take_turns():
    lock = ReadersWriterLock()
    with actors(1) as (second,):
        first_gate, second_gate = Gate(), Gate()
        lock.close(first_gate)
        assert second.do(lock.close, second_gate, timeout=0) is False
        turn = second.start(lock.close, second_gate)
        assert not turn.done()
        lock.open(first_gate)
        assert turn.result(PATIENCE) is True
        lock.open(second_gate)
    assert_untouched(lock)


def test_a_gate_is_used_once():
    lock = ReadersWriterLock()
    gate = Gate()
    with pytest.raises(RuntimeError, match="closed gate"):
        lock.drain(gate)
    lock.close(gate)
    lock.open(gate)
    with pytest.raises(RuntimeError, match="used once"):
        lock.close(gate)
    with pytest.raises(RuntimeError, match="closed gate"):
        lock.drain(gate)


def test_a_slot_counts_until_its_first_release_only():
    lock = ReadersWriterLock()
    one, other = enter(lock), enter(lock)
    lock.release_read(one)
    lock.release_read(one)
    assert lock.in_flight == 1
    lock.release_read(other)
    assert_untouched(lock)


def test_any_thread_may_release():
    lock = ReadersWriterLock()
    with actors(2) as (one, other):
        slot = one.do(enter, lock)
        other.do(lock.release_read, slot)
    assert_untouched(lock)


def test_stragglers_may_be_ignored():
    lock = ReadersWriterLock()
    with actors(3) as cast:
        slots = [
            actor.do(enter, lock, {"REQUEST_METHOD": "GET", "PATH_INFO": f"/{i}"}) for i, actor in enumerate(cast)
        ]
        with lock.write(timeout=0, ignoring=2) as inside:
            assert [reader.path for reader in inside] == ["/0", "/1", "/2"]  # three are too many: the time-out counts
        lock.release_read(slots[1])
        with lock.write(ignoring=2) as inside:  # no time-out: it returns because two are few enough
            assert [reader.path for reader in inside] == ["/0", "/2"]
        for slot in slots:
            lock.release_read(slot)
    assert_untouched(lock)


def test_an_exception_in_either_mode_releases():
    lock = ReadersWriterLock()
    with pytest.raises(ZeroDivisionError), reading(lock):
        1 / 0  # noqa: B018  # it is the exception that is wanted
    with pytest.raises(ZeroDivisionError), lock.write():
        1 / 0  # noqa: B018  # it is the exception that is wanted
    assert_untouched(lock)


# Nested readers --------------------------------------------------------------------------------------------------


def test_a_nested_read_passes_a_closed_gate():
    lock = ReadersWriterLock()
    with actors(1) as (writer,), reading(lock, pin="old") as outer:
        gate = Gate()
        writer.do(lock.close, gate)
        with reading(lock, pin="new") as inner:
            assert inner.pin == "old"
            assert lock.in_flight == 1  # it is part of the outer one
        assert lock.drain(gate, timeout=0) != ()
        lock.release_read(outer)
        assert lock.drain(gate, timeout=0) == ()
        lock.open(gate)
    assert_untouched(lock)


def test_a_nested_read_passes_in_a_copied_context():
    lock = ReadersWriterLock()
    with actors(2) as (other, writer), reading(lock, pin="old"):
        gate = Gate()
        writer.do(lock.close, gate)

        def read():
            with reading(lock) as slot:
                return slot.pin

        assert other.do(contextvars.copy_context().run, read) == "old"
        lock.open(gate)


def test_the_writer_waits_for_a_nested_read_that_outlives_its_outer_one():
    lock = ReadersWriterLock()
    with actors(1) as (other,):
        with reading(lock, {"REQUEST_METHOD": "GET", "PATH_INFO": "/outer"}):
            inner = other.do(contextvars.copy_context().run, enter, lock, {"REQUEST_METHOD": "PUT", "PATH_INFO": "/"})
        assert lock.in_flight == 1
        with lock.write(timeout=0) as inside:
            assert [(reader.method, reader.path) for reader in inside] == [("PUT", "/")]
        lock.release_read(inner)
    assert_untouched(lock)


def test_a_stale_marker_does_not_pass():
    lock = ReadersWriterLock()
    with reading(lock):
        context = contextvars.copy_context()
    with actors(1) as (other,):
        gate = Gate()
        lock.close(gate)
        held = other.start(context.run, enter, lock)
        until(lambda: lock.held == 1)
        assert not held.done()
        lock.open(gate)
        lock.release_read(held.result(PATIENCE))
    assert_untouched(lock)


class Interleaved(dict):
    """The lock's readers; ``before[operation]`` runs once, at the last moment before somebody is written in."""

    def __init__(self, readers=()):
        super().__init__(readers)
        self.before = {}

    def __setitem__(self, slot, root):
        self.before.pop("one", int)()
        super().__setitem__(slot, root)

    def update(self, slots):
        self.before.pop("several", int)()
        super().update(slots)


@pytest.mark.parametrize("way", ["open", "just opened"])
def test_a_reader_is_held_by_a_writer_that_counted_before_it_was_written_in(way):
    lock = ReadersWriterLock()
    lock._readers = Interleaved()
    with actors(3) as (reader, writer, earlier):
        gate, earlier_gate = Gate(), Gate()

        def write():
            assert writer.do(lock.close, gate)
            assert writer.do(lock.drain, gate) == ()

        if way == "just opened":  # the barrier is there, and open: its writer was interrupted
            earlier.do(lock.close, earlier_gate)
            earlier_gate._barrier.open()
        lock._readers.before["one" if way == "open" else "several"] = write
        held = reader.start(enter, lock)
        until(lambda: lock.held == 1)
        assert lock.in_flight == 0
        writer.do(lock.open, gate)
        lock.release_read(held.result(PATIENCE))
    assert_untouched(lock)


def test_a_nested_reader_is_held_by_a_writer_that_counted_before_it_and_after_its_outer_one():
    lock = ReadersWriterLock()
    with actors(2) as (entrant, writer):
        gate = Gate()
        with reading(lock) as outer:
            context = contextvars.copy_context()

            def write():
                lock.release_read(outer)
                assert writer.do(lock.close, gate)
                assert writer.do(lock.drain, gate) == ()

            lock._readers = Interleaved(lock._readers)
            lock._readers.before["one"] = write
            held = entrant.start(context.run, enter, lock)
            until(lambda: lock.held == 1)
            assert lock.in_flight == 0
        writer.do(lock.open, gate)
        lock.release_read(held.result(PATIENCE))
    assert_untouched(lock)


def test_a_marker_of_another_lock_is_looked_through():
    one, other = ReadersWriterLock(), ReadersWriterLock()
    with actors(1) as (writer,), reading(one, pin="one's"), reading(other, pin="other's") as slot:
        assert slot.pin == "other's"
        gate = Gate()
        writer.do(one.close, gate)
        with reading(one) as nested:
            assert nested.pin == "one's"
        writer.do(one.open, gate)


def test_a_thread_that_has_a_slot_inside_is_not_held():
    """It could not release that slot while it is held, so the writer would wait for it in vain."""
    lock = ReadersWriterLock()
    with actors(1) as (writer,):
        unclosed = enter(lock)  # its marker is not in the context
        unclosed.pin = "old"
        gate = Gate()
        writer.do(lock.close, gate)
        with reading(lock) as slot:
            assert slot.pin == "old"
        lock.release_read(unclosed)
        assert lock.drain(gate, timeout=0) == ()
        lock.open(gate)
    assert_untouched(lock)


def test_the_writers_own_thread_is_not_held():
    lock = ReadersWriterLock()
    with lock.write(), reading(lock):
        assert lock.in_flight == 1
    assert_untouched(lock)


# Passing ---------------------------------------------------------------------------------------------------------


def test_callbacks_pass_a_closed_gate_with_their_pin():
    lock = ReadersWriterLock()
    with actors(1) as (callback,), lock.write():

        def call():
            with lock.passing("staged"), reading(lock, pin="live") as slot:
                return slot.pin

        assert callback.do(call) == "staged"
    assert_untouched(lock)


def test_the_pass_ends_with_the_block_in_copied_contexts_too():
    lock = ReadersWriterLock()
    with actors(1) as (other,), closed(lock):
        with lock.passing("staged"):
            context = contextvars.copy_context()
        held = other.start(context.run, enter, lock)
        until(lambda: lock.held == 1)
    lock.release_read(held.result(PATIENCE))
    assert_untouched(lock)


# Lending ---------------------------------------------------------------------------------------------------------


def test_who_reloads_gives_its_slot_up():
    lock = ReadersWriterLock()
    with reading(lock):
        with lock.write() as inside:  # without a time-out: it would wait for itself for ever
            assert inside == ()
        assert lock.in_flight == 1
    assert_untouched(lock)


def test_a_slot_that_the_callers_thread_forgot_does_not_delay_it():
    lock = ReadersWriterLock()
    forgotten = enter(lock)
    with lock.write() as inside:
        assert inside == ()
    assert lock.in_flight == 1
    lock.release_read(forgotten)
    assert_untouched(lock)


def test_who_waits_for_its_turn_has_given_its_slot_up():
    lock = ReadersWriterLock()
    inside, proceed = threading.Event(), threading.Event()

    def reload_in_request():
        with reading(lock):
            inside.set()
            assert proceed.wait(PATIENCE)
            with lock.write() as left:
                return left

    with actors(2) as (writer, request):
        waits = request.start(reload_in_request)
        assert inside.wait(PATIENCE)
        gate = Gate()
        writer.do(lock.close, gate)
        proceed.set()
        assert writer.do(lock.drain, gate) == ()  # without a time-out
        assert not waits.done()
        writer.do(lock.open, gate)
        assert waits.result(PATIENCE) == ()
    assert_untouched(lock)


def test_two_requests_that_reload_do_not_wait_for_each_other():
    lock = ReadersWriterLock()
    inside_both = threading.Barrier(2, timeout=PATIENCE)

    def reload_in_request():
        with reading(lock):
            inside_both.wait()
            with lock.write() as inside:
                return inside

    with actors(2) as cast:
        futures = [actor.start(reload_in_request) for actor in cast]
        assert [future.result(PATIENCE) for future in futures] == [(), ()]
    assert_untouched(lock)


def test_slots_are_regained_only_when_the_gate_is_open():
    lock = ReadersWriterLock()
    lent, proceed = threading.Event(), threading.Event()

    def lend():
        with reading(lock):
            with lock.lend():
                lent.set()
                assert proceed.wait(PATIENCE)
            return lock.in_flight

    with actors(1) as (reader,):
        future = reader.start(lend)
        assert lent.wait(PATIENCE)
        with closed(lock) as gate:
            assert lock.drain(gate) == ()
            proceed.set()
            until(lambda: lock.held == 1)
            assert lock.in_flight == 0
        assert future.result(PATIENCE) == 1
    assert_untouched(lock)


def test_a_slot_that_is_released_while_lent_does_not_come_back():
    lock = ReadersWriterLock()
    slot = enter(lock)
    with closed(lock), lock.lend():
        lock.release_read(slot)  # and then there is nothing to wait for
    assert_untouched(lock)


def test_a_slot_that_is_released_while_it_waits_to_be_regained_does_not_come_back():
    lock = ReadersWriterLock()

    def lend():
        with lock.lend():
            pass

    with actors(1) as (lender,):
        slot = lender.do(enter, lock)
        gate = Gate()
        lock.close(gate)
        future = lender.start(lend)
        until(lambda: lock.held == 1)
        lock.release_read(slot)
        lock.open(gate)
        future.result(PATIENCE)
    assert_untouched(lock)


# Interruptions ---------------------------------------------------------------------------------------------------


class Interruption(BaseException):
    pass


def test_a_drain_that_times_out_leaves_no_trace_and_wakes_the_held():
    lock = ReadersWriterLock()
    with actors(3) as (early, late, writer):
        slot = early.do(enter, lock, {"REQUEST_METHOD": "GET", "PATH_INFO": "/slow"})
        gate = Gate()
        writer.do(lock.close, gate)
        held = late.start(enter, lock)
        until(lambda: lock.held == 1)
        (straggler,) = writer.do(lock.drain, gate, timeout=0.01)
        assert (straggler.method, straggler.path) == ("GET", "/slow")
        writer.do(lock.open, gate)
        lock.release_read(held.result(PATIENCE))
        lock.release_read(slot)
    assert_untouched(lock)


def test_a_writer_that_does_not_get_its_turn_leaves_no_trace():
    lock = ReadersWriterLock()
    with actors(1) as (second,):

        def write():
            with lock.write(timeout=0.01):
                pytest.fail("it is not its turn")

        with closed(lock), pytest.raises(TimeoutError, match=r"0\.01 s"):
            second.do(write)
    assert_untouched(lock)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_senseless_timeout_is_refused(seconds):
    lock = ReadersWriterLock()
    with pytest.raises(ValueError, match="seconds ahead"), lock.write(timeout=seconds):
        pass
    assert_untouched(lock)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_a_keyboard_interrupt_while_draining_leaves_no_trace_and_wakes_the_held():
    lock = ReadersWriterLock()
    with actors(2) as (early, late):
        slot = early.do(enter, lock)
        held = []

        def press():
            until(lambda: lock.closed)
            held.append(late.start(enter, lock))
            until(lambda: lock.held == 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        presser = threading.Thread(target=press)
        presser.start()
        with pytest.raises(KeyboardInterrupt), lock.write():
            pytest.fail("there is a reader inside")
        presser.join(PATIENCE)
        lock.release_read(held[0].result(PATIENCE))
        lock.release_read(slot)
    assert_untouched(lock)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_a_keyboard_interrupt_while_held_leaves_nothing_inside():
    lock = ReadersWriterLock()
    gate = Gate()
    with actors(1) as (writer,):
        writer.do(lock.close, gate)

        def press():
            until(lambda: lock.held == 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        presser = threading.Thread(target=press)
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            enter(lock)
        presser.join(PATIENCE)
        assert lock.held == 0
        writer.do(lock.open, gate)
    assert_untouched(lock)


@pytest.mark.parametrize("victim", ["writer", "held reader", "lender"])
def test_an_interruption_at_any_point_leaves_no_trace(victim):
    """Python looks for signals when a function begins and after each call of a C function: raise at each of them."""
    own = {sys.modules[f"flask_hotreload.{name}"].__file__ for name in ("rwlock", "barrier")}
    victims = {"writer": interrupted_writer, "held reader": interrupted_reader, "lender": interrupted_lender}

    def interrupted(stop_at):
        seen = 0

        def profile(frame, event, argument):
            nonlocal seen
            names = {frame.f_code.co_name, frame.f_back.f_code.co_name}
            # What a destructor raises goes to nobody: it would be no interruption of the victim.
            if event in ("call", "c_return") and frame.f_code.co_filename in own and "__del__" not in names:
                seen += 1
                if seen == stop_at:
                    sys.setprofile(None)
                    raise Interruption

        lock = ReadersWriterLock()
        with actors(3) as cast:
            others = []
            gate = Gate()
            try:
                victims[victim](lock, gate, profile, others, *cast)
            except Interruption:
                hit = True
            else:
                hit = False
            finally:
                sys.setprofile(None)
            # The exception and its frames are gone. Nobody who was held may still be.
            for future in others:
                slot = future.result(PATIENCE)
                if slot is not None:
                    lock.release_read(slot)
        assert_untouched(lock)
        return hit

    n = 1
    while interrupted(n):
        n += 1
    assert n > 20, "the interruptions have missed the lock"


def interrupted_writer(lock, _, profile, others, late, *__):
    with reading(lock):
        sys.setprofile(profile)
        with lock.write():
            sys.setprofile(None)
            others.append(late.start(enter, lock))
            until(lambda: lock.held == 1)
            sys.setprofile(profile)
        sys.setprofile(None)


def interrupted_reader(lock, gate, profile, others, writer, opener, fellow):
    done = threading.Event()
    writer.do(lock.close, gate)

    def open_then():
        until(lambda: lock.held == 2 or done.is_set())
        lock.open(gate)

    others.append(fellow.start(enter, lock))
    until(lambda: lock.held == 1)
    others.append(opener.start(open_then))
    slot = Slot()
    try:
        sys.setprofile(profile)
        lock.acquire_read(slot)
        sys.setprofile(None)
    finally:
        sys.setprofile(None)
        lock.release_read(slot)
        done.set()


def interrupted_lender(lock, gate, profile, others, writer, opener, _):
    done = threading.Event()

    def open_then():
        until(lambda: lock.held == 1 or done.is_set())
        lock.open(gate)

    with reading(lock):
        try:
            sys.setprofile(profile)
            with lock.lend():
                sys.setprofile(None)
                writer.do(lock.close, gate)
                others.append(opener.start(open_then))
                sys.setprofile(profile)
            sys.setprofile(None)
        finally:
            sys.setprofile(None)
            done.set()


def test_a_writer_that_vanishes_opens_its_gate():
    lock = ReadersWriterLock()
    with actors(1) as (reader,):
        gate = Gate()
        lock.close(gate)
        held = reader.start(enter, lock)
        until(lambda: lock.held == 1)
        del gate
        gc.collect()
        lock.release_read(held.result(PATIENCE))
    assert not lock.closed
    assert_untouched(lock)


def test_who_waits_for_its_turn_gets_it_from_a_writer_that_vanishes():
    lock = ReadersWriterLock()
    with actors(1) as (second,):
        gate, next_gate = Gate(), Gate()
        lock.close(gate)
        turn = second.start(lock.close, next_gate)
        del gate
        gc.collect()
        assert turn.result(PATIENCE)
        lock.open(next_gate)
    assert_untouched(lock)


def test_opening_twice_is_harmless_while_the_held_pass_on():
    lock = ReadersWriterLock()
    with actors(10) as cast:
        for _ in range(50):
            gate = Gate()
            lock.close(gate)
            futures = [actor.start(enter, lock) for actor in cast]
            until(lambda: lock.held == 10)
            lock.open(gate)
            for _ in range(10):
                lock.open(gate)
                gate._barrier.open()
            for future in futures:
                lock.release_read(future.result(PATIENCE))
    assert_untouched(lock)


# Destructors, forks ----------------------------------------------------------------------------------------------


class ReleasesAtTheEnd:
    def __init__(self, lock):
        self.lock, self.slot = lock, enter(lock)
        self.myself = self  # only the collector finds it

    def __del__(self):
        self.lock.release_read(self.slot)


def test_a_destructor_may_release_wherever_the_collector_runs():
    """With a threshold of one it runs at every allocation inside the lock."""
    lock = ReadersWriterLock()
    threshold = gc.get_threshold()
    with actors(1) as (writer,):
        for _ in range(50):
            ReleasesAtTheEnd(lock)
            gate = Gate()
            gc.set_threshold(1)
            try:
                writer.do(lock.close, gate)
                future = writer.start(lock.drain, gate, timeout=PATIENCE)
                gc.collect()
                assert future.result(PATIENCE) == ()
            finally:
                gc.set_threshold(*threshold)
                lock.open(gate)
    assert_untouched(lock)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # that is the subject
def test_a_forked_child_starts_with_a_clean_lock():
    lock = ReadersWriterLock()
    with actors(2) as (reader, writer):
        slot = reader.do(enter, lock)
        gate = Gate()
        writer.do(lock.close, gate)
        drained = writer.start(lock.drain, gate)
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                assert_untouched(lock)
                status = 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lock.closed  # the parent's is as it was
        lock.release_read(slot)
        assert drained.result(PATIENCE) == ()
        lock.open(gate)
    assert_untouched(lock)


def test_a_released_slot_keeps_no_request_alive():
    lock = ReadersWriterLock()
    environ = {"PATH_INFO": "/"}
    with reading(lock, environ):
        context = contextvars.copy_context()
    (slot,) = [value for variable, value in context.items() if variable is current_slot]
    assert slot.environ is None


# Who is inside ---------------------------------------------------------------------------------------------------


def test_repr_and_readers_tell_who_is_inside():
    lock = ReadersWriterLock()
    with actors(3) as (one, other, late):
        before = monotonic()
        slots = [
            one.do(enter, lock, {"REQUEST_METHOD": "GET", "PATH_INFO": "/first"}),
            other.do(enter, lock, {"REQUEST_METHOD": "POST"}),
        ]
        first, second = lock.readers()
        assert (first.method, first.path) == ("GET", "/first")
        assert (second.method, second.path) == ("POST", "?")
        assert (monotonic() - before) * 1000 >= first.age_ms >= second.age_ms >= 0
        with closed(lock):
            held = late.start(enter, lock)
            until(lambda: lock.held == 1)
            assert repr(lock) == "<ReadersWriterLock closed, 2 inside, 1 held>"
        for slot in [*slots, held.result(PATIENCE)]:
            lock.release_read(slot)
    assert_untouched(lock)


# A dispatcher's own lock -----------------------------------------------------------------------------------------


def test_waiting_for_a_dispatchers_lock_lends_the_slot():
    lock = ReadersWriterLock()
    inside = threading.Semaphore(0)
    finish = threading.Event()
    function = serialized(lambda: finish.wait(PATIENCE), Mutex(), lock)

    def request():
        with reading(lock):
            inside.release()
            return function()

    with actors(3) as cast:
        futures = [actor.start(request) for actor in cast]
        for _ in cast:
            assert inside.acquire(timeout=PATIENCE)
        until(lambda: lock.in_flight == 1)  # those who wait do not count
        finish.set()
        assert [future.result(PATIENCE) for future in futures] == [True] * 3
    assert_untouched(lock)


def test_the_call_that_runs_may_reload_while_others_wait_for_it():
    lock = ReadersWriterLock()
    running, waiting = threading.Event(), threading.Event()
    order = []

    def body(name, reloads):
        order.append(name)
        running.set()
        if reloads:
            assert waiting.wait(PATIENCE)
            with lock.write(timeout=PATIENCE) as inside:
                assert inside == ()

    function = serialized(body, Mutex(), lock)

    def request(name, reloads):
        with reading(lock):
            if not reloads:
                waiting.set()
            function(name, reloads)

    with actors(2) as (one, other):
        futures = [one.start(request, "first", True)]
        assert running.wait(PATIENCE)
        futures.append(other.start(request, "second", False))
        for future in futures:
            future.result(PATIENCE)
    assert order == ["first", "second"]
    assert_untouched(lock)


def test_nobody_waits_for_the_gate_with_a_dispatchers_lock_in_hand():
    lock = ReadersWriterLock()
    mutex = threading.Lock()
    inside = threading.Event()
    function = serialized(lambda: "done", mutex, lock)

    def request():
        with reading(lock):
            inside.set()
            return function()

    with actors(1) as (waiter,):
        mutex.acquire()
        future = waiter.start(request)
        assert inside.wait(PATIENCE)
        until(lambda: lock.in_flight == 0)  # it waits for the mutex
        with closed(lock):
            mutex.release()
            for _ in range(100):  # it takes it, sees the closed gate, and lets go of it
                assert mutex.acquire(timeout=PATIENCE)
                mutex.release()
            assert not future.done()
            assert lock.in_flight == 0
        assert future.result(PATIENCE) == "done"
    assert_untouched(lock)


def test_a_call_that_would_wait_for_itself_is_an_error():
    lock = ReadersWriterLock()

    def body():
        return function()

    function = serialized(body, Mutex(), lock)
    with reading(lock), pytest.raises(RuntimeError, match="it would wait for itself"):
        function()
    with actors(1) as (other,):

        def elsewhere():
            return other.do(contextvars.copy_context().run, inner)

        inner = serialized(elsewhere, Mutex(), lock)
        with reading(lock), pytest.raises(RuntimeError, match="elsewhere allows one call at a time"):
            inner()
    assert_untouched(lock)


def test_a_context_that_outlives_the_call_may_call_again():
    lock = ReadersWriterLock()
    mutex = Mutex()
    contexts = []
    function = serialized(lambda: contexts.append(contextvars.copy_context()), mutex, lock)
    function()
    inside = threading.Event()

    def request():
        with reading(lock):
            inside.set()
            function()

    with actors(1) as (other,):
        mutex.lock.acquire()
        waiting = other.start(contexts[0].run, request)
        assert inside.wait(PATIENCE)
        until(lambda: lock.in_flight == 0 or waiting.done())
        assert not waiting.done()
        mutex.lock.release()
        waiting.result(PATIENCE)
    assert_untouched(lock)


# gevent ----------------------------------------------------------------------------------------------------------

GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
from flask_hotreload.rwlock import Gate, ReadersWriterLock, Slot, current_slot
lock = ReadersWriterLock()

def read(entered=None, leave=None):
    slot = Slot()
    try:
        lock.acquire_read(slot)
        if entered: entered.set()
        if leave: leave.wait()
    finally:
        lock.release_read(slot)

def clean():
    assert repr(lock) == "<ReadersWriterLock open, 0 inside, 0 held>", lock
    with lock.write(timeout=0) as inside:
        assert inside == ()
"""


def in_gevent(script):
    pytest.importorskip("gevent")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GEVENT + script], check=True, timeout=30, env={**os.environ}
    )


def test_a_killed_greenlet_does_not_keep_its_slot():
    in_gevent("""
from gevent.event import Event
entered, never = Event(), Event()
greenlet = gevent.spawn(read, entered, never)
entered.wait()
assert lock.in_flight == 1
greenlet.kill()
assert greenlet.dead
clean()
""")


def test_a_greenlet_that_is_killed_while_held_leaves_nothing_inside():
    in_gevent("""
gate = Gate()
lock.close(gate)
greenlets = [gevent.spawn(read) for _ in range(3)]
while lock.held < 3: gevent.sleep(0)
greenlets[0].kill()
assert lock.held == 2
lock.open(gate)
gevent.joinall(greenlets, timeout=10, raise_error=True)
clean()
""")


def test_a_writer_that_is_killed_wakes_the_held():
    in_gevent("""
from gevent.event import Event
entered, leave = Event(), Event()
inside = gevent.spawn(read, entered, leave)
entered.wait()
def write():
    with lock.write(): raise AssertionError("there is a reader inside")
writer = gevent.spawn(write)
while not lock.closed: gevent.sleep(0)
held = gevent.spawn(read)
while not lock.held: gevent.sleep(0)
writer.kill()
held.get(timeout=10)
leave.set()
inside.get(timeout=10)
clean()
""")


def test_greenlets_are_distinct_owners_also_when_patched_after_the_import():
    in_gevent("")  # the patched import works at all
    pytest.importorskip("gevent")
    late = GEVENT.replace("monkey.patch_all()\nimport gevent\n", "", 1).replace(
        "lock = ReadersWriterLock()", "lock = ReadersWriterLock()\nmonkey.patch_all()\nimport gevent", 1
    )
    script = """
from gevent.event import Event
entered, leave = Event(), Event()
request = gevent.spawn(read, entered, leave)
entered.wait()
def reload():
    with lock.write(timeout=0) as inside: return len(inside)
assert gevent.spawn(reload).get(timeout=10) == 1, "another greenlet's slot was lent"
def reload_in_request():
    slot = Slot()
    lock.acquire_read(slot)
    try: return reload()
    finally: lock.release_read(slot)
assert gevent.spawn(reload_in_request).get(timeout=10) == 1, "the greenlet's own slot was not lent"
leave.set()
request.get(timeout=10)
clean()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", late + script], check=True, timeout=30)


# No lost wake-up -------------------------------------------------------------------------------------------------


def random_runs(count, *, threads, seed):
    """Rounds in which all threads do random things to one lock; a lost wake-up would end one in its deadline."""
    lock = ReadersWriterLock()
    inside = []  # who reads now; append and remove are atomic

    def round_of(rng):
        for _ in range(rng.randrange(1, 4)):
            deed = rng.randrange(8)
            if deed < 4:
                with reading(lock):
                    inside.append(None)
                    if deed == 1:
                        with reading(lock):
                            pass
                    if deed == 2:
                        inside.pop()
                        with lock.write() as left:
                            assert left == ()
                            assert not inside
                        inside.append(None)
                    if deed == 3:
                        inside.pop()
                        with lock.lend():
                            pass
                        inside.append(None)
                    inside.pop()
            elif deed < 6:
                with lock.write() as left:
                    assert left == ()
                    assert not inside
            else:
                with suppress(TimeoutError), lock.write(timeout=rng.random() * 1e-4) as left:
                    assert left or not inside

    def many(seed):
        rng = random.Random(seed)
        for _ in range(count // threads):
            round_of(rng)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with actors(threads) as cast:
            futures = [actor.start(many, f"{seed}/{i}") for i, actor in enumerate(cast)]
            for future in futures:
                future.result(PATIENCE + count / 1000)
    finally:
        sys.setswitchinterval(interval)
    assert inside == []
    assert_untouched(lock)


def test_no_wake_up_is_lost_in_random_runs_of_many_threads():
    random_runs(20_000, threads=8, seed=os.environ.get("SEED", "1"))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("threads", [2, 3, 8, 32])
def test_no_wake_up_is_lost_in_100_000_random_runs(threads):
    random_runs(100_000, threads=threads, seed=os.environ.get("SEED", "long"))

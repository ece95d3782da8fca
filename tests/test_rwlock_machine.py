"""The readers–writer lock against a model of it: random sequences of all that can be done with it."""

from __future__ import annotations

import contextvars
import gc

from actors import PATIENCE, Actor, until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from flask_hotreload.rwlock import Gate, ReadersWriterLock, Slot, current_slot

INSIDE, HELD, LENT, RETURNING, GONE = "inside", "held", "lent", "returning", "gone"


class ModelReader:
    """What should be the case for one slot, and the thread that owns it."""

    def __init__(self, name, marker=None):
        self.name = name
        self.marker = marker
        self.outer = next((each for each in self.markers() if each.state == INSIDE), None)
        self.root = self if self.outer is None else self.outer.root
        self.actor = Actor()
        self.slot = Slot()
        self.slot.pin = name
        self.state = GONE
        self.waiting = None
        self.loan = None

    def markers(self):
        marker = self.marker
        while marker is not None:
            yield marker
            marker = marker.marker


class LockMachine(RuleBasedStateMachine):
    """Every reader lives on a thread of its own, which stays alive. Who must wait is looked for in ``lock.held``."""

    readers = Bundle("readers")

    def __init__(self):
        super().__init__()
        self.lock = ReadersWriterLock()
        self.writer = Actor()
        self.gate = None
        self.all = []
        self.held_by_gate = 0

    # What readers do

    def _begin(self, reader):
        context = contextvars.Context()
        context.run(current_slot.set, reader.marker and reader.marker.slot)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": reader.name}
        reader.waiting = reader.actor.start(context.run, self.lock.acquire_read, reader.slot, environ)
        self.all.append(reader)
        if self.gate is not None and reader.outer is None:
            reader.state = HELD
            self.held_by_gate += 1
            self._until_held()
        else:
            assert reader.waiting.result(PATIENCE) is (reader.outer and reader.outer.slot)
            reader.state = INSIDE
        return reader

    def _until_held(self):
        until(lambda: self.lock.held == self._count(HELD, RETURNING))

    def _count(self, *states):
        return sum(reader.state in states for reader in self.all)

    @rule(target=readers)
    def enter(self):
        return self._begin(ModelReader(f"/{len(self.all)}"))

    @rule(target=readers, marker=readers)
    def enter_with_the_marker_of(self, marker):
        reader = self._begin(ModelReader(f"/{len(self.all)}", marker))
        if reader.outer is not None:
            assert reader.slot.pin == reader.outer.slot.pin
        return reader

    @rule()
    def enter_in_the_writers_context(self):
        entered = ModelReader("/passing")

        def call():
            with self.lock.passing("staged"):
                self.lock.acquire_read(entered.slot)
                assert entered.slot.pin == "staged"
                self.lock.release_read(entered.slot)

        entered.actor.do(call)
        entered.actor.end()

    @rule(reader=readers)
    def release(self, reader):
        if reader.state != HELD:
            self.writer.do(self.lock.release_read, reader.slot)
        if reader.state == LENT:
            reader.actor.do(reader.loan.__exit__, None, None, None)  # nothing to wait for any longer
        if reader.state in (INSIDE, LENT):
            reader.state = GONE

    @rule(reader=readers)
    def lend(self, reader):
        if reader.state == INSIDE:
            reader.loan = self.lock.lend()
            reader.actor.do(reader.loan.__enter__)
            reader.state = LENT

    @rule(reader=readers)
    def return_what_was_lent(self, reader):
        if reader.state == LENT:
            reader.waiting = reader.actor.start(reader.loan.__exit__, None, None, None)
            if self.gate is None:
                reader.waiting.result(PATIENCE)
                reader.state = INSIDE
            else:
                reader.state = RETURNING
                self._until_held()

    # What the writer does

    @rule()
    def close(self):
        gate = Gate()
        closed = self.writer.do(self.lock.close, gate, timeout=0)
        assert closed == (self.gate is None)
        if closed:
            self.gate = gate
            self.held_by_gate = 0

    @precondition(lambda self: self.gate is not None)
    @rule(ignoring=st.integers(0, 3))
    def drain(self, ignoring):
        left = self.writer.do(self.lock.drain, self.gate, timeout=0, ignoring=ignoring)
        assert len(left) == len(self._roots())

    @precondition(lambda self: self.gate is not None)
    @rule()
    def open(self):
        assert self.gate.held == self.held_by_gate
        self.writer.do(self.lock.open, self.gate)
        assert self.lock.held == 0
        self.gate = None
        self._let_in()

    @precondition(lambda self: self.gate is not None)
    @rule()
    def vanish(self):
        self.gate = None
        until(lambda: gc.collect() is not None and not self.lock.closed)
        self._let_in()

    def _let_in(self):
        for reader in self.all:
            if reader.state in (HELD, RETURNING):
                outer = reader.waiting.result(PATIENCE)
                reader.state = INSIDE if reader.slot.unreleased else GONE
                if outer is not None:  # while it was held the one whose marker it has came back
                    reader.root = next(each.root for each in reader.markers() if each.slot is outer)

    # What must always hold

    def _roots(self):
        return {reader.root.name for reader in self.all if reader.state == INSIDE}

    @invariant()
    def the_lock_agrees(self):
        assert self.lock.closed == (self.gate is not None)
        assert self.lock.held == self._count(HELD, RETURNING)
        assert self.lock.in_flight == len(self._roots())
        told = [reader.path for reader in self.lock.readers()]
        assert len(told) == len(self._roots())
        assert set(told) <= {reader.name for reader in self.all if reader.state == INSIDE}

    def teardown(self):
        if self.gate is not None:
            self.open()
        for reader in self.all:
            if reader.state == LENT:
                reader.actor.do(reader.loan.__exit__, None, None, None)
            self.lock.release_read(reader.slot)
        for actor in [self.writer, *(reader.actor for reader in self.all)]:
            actor.end()
            actor.thread.join(PATIENCE)
        assert repr(self.lock) == "<ReadersWriterLock open, 0 inside, 0 held>"


LockMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestLockMachine = LockMachine.TestCase

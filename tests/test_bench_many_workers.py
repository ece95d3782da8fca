"""The simulation of many workers: a seed is a history, and what it tells follows from what is put in."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.many_workers import COSTS, Costs, Growing, outcomes

NOTHING = Growing(0.0, 0.0, 0.0)
FREE = Costs(command=0.0, view=NOTHING, publish=NOTHING, write=0.0, own=0.0, close=0.0, read=NOTHING)
AT_ONCE = (0.0, 0.0)


def test_a_seed_is_a_history():
    assert outcomes(20, 5, seed=7) == outcomes(20, 5, seed=7)
    assert outcomes(20, 5, seed=7) != outcomes(20, 5, seed=8)


@pytest.mark.parametrize("workers", [2, 30])
def test_where_nothing_costs_anything_the_pause_is_the_messages_that_follow_each_other(workers):
    # The last vote and its answer, a ring to Redis and on to the coordinator, the decision and its answer, and the
    # ring that tells of it.
    for outcome in outcomes(workers, 3, costs=FREE, delays=(0.001, 0.001)):
        assert 0.006 <= outcome.pause <= 0.0081
        assert outcome.pause / 0.001 == pytest.approx(round(outcome.pause / 0.001))


def test_where_messages_take_no_time_the_server_has_to_do_everything_one_after_the_other():
    (outcome,) = outcomes(100, 1, delays=AT_ONCE)
    # After the first one has closed: the others' votes, and all looks for the decision.
    assert outcome.pause > 150 * COSTS.command
    assert outcome.pause < 0.05


def test_the_pause_grows_with_the_workers_and_with_the_way():
    few, many, most = (min(each.pause for each in outcomes(number, 3)) for number in (10, 100, 400))
    assert few < many < most
    (near,) = outcomes(10, 1, delays=(0.0001, 0.0002))
    assert near.pause < few


def test_a_decision_that_is_written_slowly_makes_the_pause_longer():
    slow = Costs(**{**{name: getattr(COSTS, name) for name in COSTS.__dataclass_fields__}, "write": 0.05})
    assert outcomes(10, 1, costs=slow, delays=AT_ONCE)[0].pause > 0.05


def test_what_grows_follows_what_was_measured():
    growing = Growing(1.0, 2.0, 12.0)
    assert [growing.of(workers) for workers in (10, 55, 100, 550, 1000)] == [1.0, 1.5, 2.0, 7.0, 12.0]
    values = [growing.of(workers) for workers in range(1, 1200, 7)]
    assert all(less <= more for less, more in pairwise(values))

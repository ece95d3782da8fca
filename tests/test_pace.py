"""Who prepares new code takes short turns, and rests after each for as long as the others need."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from flask_hotreload.pace import PATIENCE, REST, RESTS, TURN, Pace, ShortTurns


@pytest.fixture
def others_at_work() -> Iterator[None]:
    """Another thread is at work from before the test until after it, half of the time."""
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        while not ended.wait(0.001):
            use_processor(0.001)
            begun.set()

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait()
    yield
    ended.set()
    worker.join()


def use_processor(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(100))


def timed(function: Callable[[], object]) -> float:
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


@pytest.mark.usefixtures("others_at_work")
def test_a_rest_is_as_long_as_the_turn_asks_for() -> None:
    pace = Pace(at_most=60)
    use_processor(0.02)
    assert timed(pace.give_way) >= REST * 0.02
    assert pace.rested >= REST * 0.02


@pytest.mark.usefixtures("others_at_work")
def test_time_in_which_nothing_was_computed_asks_for_no_rest() -> None:
    pace = Pace(at_most=60)
    time.sleep(0.1)
    pace.give_way()
    assert pace.rested < 0.1


@pytest.mark.usefixtures("others_at_work")
def test_all_rests_together_are_bounded() -> None:
    pace = Pace(at_most=0.05)
    for _ in range(5):
        use_processor(0.02)
        pace.give_way()
    assert pace.rested == pytest.approx(0.05)


@pytest.mark.parametrize(("moment", "rests"), [(60.0, True), (0.0, False)])
def test_who_was_at_work_a_moment_ago_is_given_way_to(
    moment: float, rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_hotreload.pace.MOMENT", moment)
    pace = Pace(at_most=60)
    request = threading.Thread(target=use_processor, args=(0.02,))
    request.start()
    request.join()
    pace.give_way()
    before = pace.rested
    use_processor(0.02)
    pace.give_way()  # nobody else has worked since
    assert (pace.rested > before) is rests


@pytest.mark.usefixtures("others_at_work")
@pytest.mark.parametrize(("saturated", "rests_on"), [(0.0, True), (float("inf"), False)])
def test_while_others_use_more_than_that_share_the_rest_goes_on(
    saturated: float, rests_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_hotreload.pace.SATURATED", saturated)
    pace = Pace(at_most=3 * REST * 0.02)
    use_processor(0.02)
    pace.give_way()
    assert pace.rested >= REST * 0.02
    assert (pace.rested == pytest.approx(3 * REST * 0.02)) is rests_on


@pytest.mark.usefixtures("others_at_work")
def test_who_is_always_saturated_is_given_way_to_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_hotreload.pace.SATURATED", 0.0)
    pace = Pace(at_most=60)
    use_processor(0.02)
    pace.give_way()
    after_a_long_turn = pace.rested
    assert after_a_long_turn == pytest.approx(RESTS * REST * 0.02, rel=0.5)
    pace.give_way()
    assert pace.rested - after_a_long_turn == pytest.approx(PATIENCE)


def test_nobody_rests_where_nobody_else_works() -> None:
    pace = Pace(at_most=60)
    for _ in range(5):
        use_processor(0.02)
        pace.give_way()
    assert pace.rested == 0


def test_turns_are_short_while_anybody_wants_them_and_as_before_afterwards():
    before = sys.getswitchinterval()
    one, other = ShortTurns(), ShortTurns()
    assert sys.getswitchinterval() == pytest.approx(TURN)
    one.end()
    one.end()
    assert sys.getswitchinterval() == pytest.approx(TURN)
    other.end()
    assert sys.getswitchinterval() == pytest.approx(before)


def test_turns_that_somebody_else_has_set_meanwhile_stay():
    before = sys.getswitchinterval()
    turns = ShortTurns()
    try:
        sys.setswitchinterval(0.002)
        turns.end()
        assert sys.getswitchinterval() == pytest.approx(0.002)
    finally:
        sys.setswitchinterval(before)


def test_no_full_collection_begins_by_itself_meanwhile():
    before = gc.get_threshold()
    full = []

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(info)

    turns = ShortTurns()
    gc.callbacks.append(collected)
    try:
        kept = [[[number]] for number in range(200_000)]  # enough for several of them otherwise
    finally:
        gc.callbacks.remove(collected)
        turns.end()
    assert full == []
    assert len(kept) == 200_000
    assert gc.get_threshold() == before

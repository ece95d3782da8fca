"""Which records of the journal a later worker runs, and which ones stay for rollbacks."""

from __future__ import annotations

import pytest

from flask_hotreload.coordination.journal import Entry, Journal
from flask_hotreload.coordination.payload import Payload, keys_of
from flask_hotreload.errors import ReloadInvalid

WHOLE = None


class History:
    """Commits one record after another, as a coordinator does, and keeps of the journal what it says."""

    def __init__(self, *, keep: int = 3, began: int = 0) -> None:
        self.keep = keep
        self.generation = began
        self.entries: dict[int, Entry] = {}

    @property
    def journal(self) -> Journal:
        return Journal([self.entries[number] for number in sorted(self.entries)], self.generation)

    def reload(self, *names: str, whole: bool = False) -> int:
        data = WHOLE if whole else [entry(name) for name in names]
        return self._commit({"data": data, "clearOld": False, "label": None})

    def rollback(self, to: int | None = None) -> int:
        if to is None:
            newest = self.journal.newest
            assert newest is not None
            assert newest.parent is not None
            to = newest.parent
        return self._commit({"data": None, "clearOld": False, "label": None}, restores=to)

    def _commit(self, document, *, restores=None):
        number = self.generation + 1
        keys = () if restores is not None else keys_of(document, ())
        following = self.journal.followed_by(number, keys=keys, clear_old=False, restores=restores, keep=self.keep)
        payload = Payload(
            deployment="app", release="0", generation=number, transaction=f"t{number}", trigger="http", actor=None,
            started_at="", document=document, keys=keys, live=following.live, parent=following.parent,
            began=following.began, turned=following.turned, restores=restores,
        )  # fmt: skip
        for generation in following.obsolete:
            del self.entries[generation]
        self.entries[number] = Entry(payload, f"hash {number}")
        assert [live.generation for live in following.live] == sorted(self.entries)[:-1]
        self.generation = number
        return number

    def runs(self) -> list[int]:
        return [payload.generation for payload in self.journal.runs]


def entry(name):
    return {"dispatcher": name, "path": "/api", "scriptPath": "/a.py", "exclusiveModule": False, "overload": []}


def test_a_reload_of_the_whole_source_makes_everything_before_it_superfluous():
    history = History(keep=0)
    history.reload("f")
    history.reload("g")
    history.reload(whole=True)
    assert history.runs() == sorted(history.entries) == [3]


def test_reloads_of_dispatchers_run_on_top_of_the_whole_source_that_they_followed():
    history = History(keep=0)
    history.reload(whole=True)
    history.reload("f")
    history.reload("g")
    history.reload("f")
    assert history.runs() == sorted(history.entries) == [1, 3, 4]


def test_what_a_rollback_would_need_stays_and_does_not_run():
    history = History(keep=2)
    for _ in range(5):
        history.reload(whole=True)
    assert sorted(history.entries) == [3, 4, 5]
    assert history.runs() == [5]
    assert [payload.generation for payload in history.journal.recipe(4)] == [4]
    with pytest.raises(ReloadInvalid, match=r"kept are: 0, 3, 4"):
        history.journal.recipe(2)


def test_a_generation_that_stays_keeps_all_that_makes_it():
    history = History(keep=1)
    history.reload("f")
    history.reload("g")
    history.reload(whole=True)
    assert [payload.generation for payload in history.journal.recipe(2)] == [1, 2]
    history.reload("f")
    assert sorted(history.entries) == [3, 4]


def test_a_rollback_runs_what_the_generation_that_it_restores_had_run():
    history = History()
    history.reload(whole=True)
    history.reload("f")
    history.reload(whole=True)
    assert history.rollback() == 4
    assert history.runs() == [1, 2]
    history.reload("f")
    assert history.runs() == [1, 5]


def test_a_rollback_to_where_the_release_began_runs_nothing():
    history = History(began=7)
    history.reload(whole=True)
    history.rollback()
    assert history.journal.newest.restores == 7
    assert history.runs() == []
    assert history.journal.newest.parent is None


def test_rollbacks_one_after_the_other_lead_further_back_and_never_to_what_was_left():
    history = History(keep=3)
    for _ in range(3):
        history.reload(whole=True)
    led = []
    while history.journal.newest is None or history.journal.newest.parent is not None:
        history.rollback()
        led.append(history.journal.newest.restores)
    assert led == [2, 1, 0]
    history.rollback(3)
    assert history.runs() == [3]


def test_after_a_rollback_and_a_reload_the_next_rollback_leads_to_what_the_first_had_restored():
    history = History()
    history.reload(whole=True)
    history.reload(whole=True)
    history.rollback()  # 3, which is 1
    history.reload(whole=True)
    history.rollback()
    assert history.journal.newest.restores == 3
    assert history.runs() == [1]
    assert history.journal.newest.parent == 0


def test_a_worker_that_missed_a_rollback_is_told_that_what_it_runs_may_not_lead_there():
    history = History()
    history.reload("f")
    assert history.journal.newest.turned == 0
    history.reload("g")
    history.rollback()
    history.reload("h")
    assert history.journal.newest.turned == 3

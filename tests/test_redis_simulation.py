"""The simulation over the store in Redis: the same histories in virtual time, on a real server.

A seed that fails is named, and can be run again alone:
``SIMULATION_SEED=4711 pytest tests/test_redis_simulation.py``.
"""

import hashlib
import os
from collections import Counter
from contextlib import contextmanager
from itertools import count
from math import inf

import pytest
import simulation
from msgspec.structs import replace
from redis_server import RedisServer

from flask_hotreload.coordination.records import Phase
from flask_hotreload.coordination.redis import RedisStore
from flask_hotreload.coordination.redis_scripts import SCRIPTS, Script

BATCH = 12
LONG_BATCH = 500
CHOSEN = os.environ.get("SIMULATION_SEED")
#: So many histories at most does it take to notice that a script is broken.
ENOUGH = 400
_numbers = count(1)


class InRedis(RedisStore):
    """Its clock and its leases are the simulation's; all else is as always.

    A lease has no end in the server: before it matters, this deletes those that have ended in virtual time.
    """

    def __init__(self, url, *, clock, lease):
        super().__init__(url, f"simulation {next(_numbers)}", "simulation", clock=clock, lease=0)
        self._seconds = inf if lease is None else lease
        self._ends = {}
        self._is_checked = True  # the server is set otherwise than a deployment's; that need not be said

    def _run(self, script, *arguments):
        now = self.now()
        ended = [name for name, end in self._ends.items() if end <= now]
        if ended:
            self._server.ask(("DEL", *(self._key(f"lease:{name}") for name in ended)))
        for name in ended:
            del self._ends[name]
        return super()._run(script, *arguments)

    def view(self, release, transaction=None):
        """In an order that does not depend on the server's hashing, so that a seed is one history."""
        view = super().view(release, transaction)
        votes = sorted(view.votes, key=lambda vote: (vote.ballot, vote.member))
        members = sorted(view.members, key=lambda member: member.id)
        return replace(view, votes=tuple(votes), members=tuple(members))

    def join(self, member):
        joined = super().join(member)
        if joined:
            self._ends[member.id] = self.now() + self._seconds
        return joined

    def renew(self, member, generation):
        if super().renew(member, generation) == -inf:
            return -inf
        self._ends[member] = self.now() + self._seconds
        return self._ends[member]

    def bury(self, member):
        self._ends[member] = -inf

    def _keys(self):
        (keys,) = self._server.ask(("KEYS", self._prefix.replace("{", r"\{") + "*"))
        return keys

    def saved(self):
        keys = self._keys()
        return dict(self._ends), dict(zip(keys, self._server.ask(*(("DUMP", key) for key in keys)), strict=True))

    def fall_back(self, saved):
        ends, dumped = saved
        self.remove()
        self._ends = dict(ends)
        for key, value in dumped.items():
            self._server.ask(("RESTORE", key, 0, value))

    def remove(self):
        keys = self._keys()
        if keys:
            self._server.ask(("DEL", *keys))


@contextmanager
def stores(server):
    """Makes stores; everything is removed afterwards."""
    made = []

    def store(**options):
        made.append(InRedis(server.unix_url, **options))
        return made[-1]

    try:
        yield store
    finally:
        for each in made:
            each.remove()
            each.close()


def run(server, seeds):
    """What has been decided in these histories."""
    decided = Counter()
    for seed in seeds:
        with stores(server) as store:
            decided.update(simulation.run(seed, store).decisions.values())
    return decided


@pytest.fixture(scope="module")
def quick_redis(tmp_path_factory):
    """A server that writes nothing to the disk: what is lost is decided by the simulation."""
    with RedisServer(tmp_path_factory.mktemp("redis"), appendonly="no") as server:
        yield server


@pytest.mark.parametrize("first", [int(CHOSEN)] if CHOSEN else range(0, 4 * BATCH, BATCH))
def test_every_promise_holds_over_redis_too(quick_redis, first):
    decided = run(quick_redis, [first] if CHOSEN else range(first, first + BATCH))
    if not CHOSEN:  # else nothing would have been tested
        assert decided[Phase.COMMITTED] > BATCH
        assert decided[Phase.ABORTED] > BATCH / 4


@pytest.mark.long
@pytest.mark.skipif(CHOSEN is not None, reason="one history was asked for")
def test_a_number_is_one_history_whatever_the_server_is(quick_redis, tmp_path):
    seeds = range(20)
    told = []
    with RedisServer(tmp_path / "another", appendonly="no") as another:
        for server in (quick_redis, another):
            for seed in seeds:
                with stores(server) as store:
                    told.append(list(simulation.run(seed, store).decisions.items()))
    assert told[: len(seeds)] == told[len(seeds) :]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(2_000_000, 2_000_000 + 8 * LONG_BATCH, LONG_BATCH))
def test_every_promise_holds_over_redis_in_very_many_histories(quick_redis, first):
    run(quick_redis, range(first, first + LONG_BATCH))


# A simulation that finds nothing proves nothing, unless it finds what is put there. ---------------------------------

#: Script, what is right in it, what is not, and a history that soon notices.
FAULTS = {
    "joins in the middle": ("join", "undecided() and get('of') == release or ", "", 2),
    "joins behind": ("join", " or head_of(release) ~= tonumber(generation)", "", 1289),
    "begins without who has joined": (
        "begin",
        "elseif members[number + 1] == release then",
        "elseif false then",
        634,
    ),
    "commits what was aborted": ("commit", "get('phase') ~= 'apply'", "false", 13),
    "aborts what was committed": ("abort", " or not undecided()", "", 2),
}


@pytest.mark.skipif(CHOSEN is not None, reason="one history was asked for")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_script_is_noticed(quick_redis, fault, monkeypatch):
    name, right, wrong, soon = FAULTS[fault]
    source = SCRIPTS[name].source
    assert source.count(right) == 1
    broken = source.replace(right, wrong)
    monkeypatch.setitem(SCRIPTS, name, Script(broken, hashlib.sha1(broken.encode()).hexdigest()))
    with pytest.raises(simulation.Violation):
        run(quick_redis, [soon, *range(ENOUGH)])

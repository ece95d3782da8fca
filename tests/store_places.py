"""The stores that the contract tests run over, and what their members write."""

import itertools

from flask_hotreload.coordination.memory import MemoryStore
from flask_hotreload.coordination.records import JournalRecord, Member, Phase, TransactionRecord
from flask_hotreload.coordination.redis import RedisStore
from flask_hotreload.coordination.sqlite import SQLiteStore

RELEASE = "0"


class InMemory:
    """All members share one store."""

    def __init__(self, folder):
        self._store = MemoryStore()

    def store(self, member="a"):
        return self._store

    def end(self, member):
        self._store.bury(member)

    def close(self):
        pass


class InSQLite:
    """Each member has its own, as in a process of its own."""

    def __init__(self, folder):
        self._file = folder / "store.sqlite"
        self._stores = {}

    def store(self, member="a"):
        if member not in self._stores:
            self._stores[member] = SQLiteStore(self._file, member)
        return self._stores[member]

    def end(self, member):
        self._stores.pop(member).close()

    def close(self):
        for store in self._stores.values():
            store.close()


class InRedis:
    """Each member has its own, as in a process on a host of its own."""

    deployments = itertools.count()

    def __init__(self, server):
        self._server = server
        self._deployment = f"deployment {next(self.deployments)} {{of}} a test"
        self._stores = {}

    def store(self, member="a"):
        if member not in self._stores:
            self._stores[member] = RedisStore(self._server.unix_url, self._deployment, member)
        return self._stores[member]

    def end(self, member):
        self._stores.pop(member).close()

    def close(self):
        for store in self._stores.values():
            store.close()


def member(name="a", *, release=RELEASE, generation=0, **more):
    return Member(name, "host", 1, release, generation, **more)


def transaction(name="t1", *, participants=("a",), base=0, generation=1, release=RELEASE, payload=b"payload"):
    return TransactionRecord(
        name, release, participants[0], tuple(participants), base, generation, Phase.STAGING, 10.0, payload
    )


def record(name="t1", *, generation=1, release=RELEASE, payload=b"record", digests=(), sources=""):
    return JournalRecord(release, generation, name, payload, digests, sources)


def join(place, *names, release=RELEASE, generation=0):
    for name in names:
        assert place.store(name).join(member(name, release=release, generation=generation))


def begun(place, *names, name="t1", base=0):
    """The store, with a transaction of these members."""
    if names:
        join(place, *names)
    store = place.store("a")
    assert store.begin(transaction(name, participants=names or ("a",), base=base, generation=base + 1))
    return store


def to_apply(store, name="t1"):
    assert store.advance(name, to=Phase.PREPARE, deadline=20.0)
    assert store.advance(name, to=Phase.APPLY, deadline=30.0)


def committed(store, generation, *, obsolete=(), release=RELEASE, member="a", base=None, **more):
    """Run one whole transaction of a member."""
    name, base = f"t{generation}", generation - 1 if base is None else base
    begins = transaction(name, participants=(member,), base=base, generation=generation, release=release)
    assert store.begin(begins)
    to_apply(store, name)
    assert store.commit(record(name, generation=generation, release=release, **more), obsolete=obsolete)

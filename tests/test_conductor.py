"""What a worker looks at when its turn to reload has come."""

from types import SimpleNamespace

import pytest

from flask_hotreload.coordination.conductor import Conductor
from flask_hotreload.coordination.memory import MemoryStore
from flask_hotreload.coordination.records import Member
from flask_hotreload.document import Document
from flask_hotreload.errors import ReloadBusy
from flask_hotreload.host import Asked


def test_expect_has_to_hold_when_the_turn_has_come_and_not_only_when_it_was_asked():
    store, worker = MemoryStore("a"), SimpleNamespace(generation=0)
    conductor = Conductor(
        store,
        worker,
        signer=None,
        reports=SimpleNamespace(complete=lambda record: None),
        member=Member("a", "a", 1, "0", 0),
        deployment="shop",
        timeouts=SimpleNamespace(prepare_timeout=20.0),
        portable=lambda document: {},
    )
    asking = conductor.ask(Document(expect=0, id="mine"), Asked("python"))
    worker.generation = 1  # another worker's reload was committed while this one waited for its turn
    conductor.step(store.view("0"), store.now())
    assert asking.done.is_set()
    with pytest.raises(ReloadBusy, match="generation 1 is live, not 0 as expected"):
        raise asking.outcome
    assert not store.has_begun("mine")

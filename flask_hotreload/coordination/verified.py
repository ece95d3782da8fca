"""What was signed, verified once: the same bytes at the same place need not be read twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from flask_hotreload.coordination.journal import Entry
from flask_hotreload.coordination.payload import Payload, hash_of
from flask_hotreload.coordination.records import JournalRecord

#: How many of those that are in no journal yet are remembered: one that is prepared soon may be.
RECENT = 4


@dataclass(frozen=True, eq=False)
class _Seen:
    signed: bytes
    payload: Payload

    @cached_property
    def entry(self) -> Entry:
        return Entry(self.payload, hash_of(self.signed))


class Verified:
    """Used by one thread at a time. ``unseal(signed, generation, transaction)`` verifies, or raises."""

    def __init__(self, unseal: Callable[[bytes, int, str], Payload]) -> None:
        self._unseal = unseal
        self._recent: deque[_Seen] = deque(maxlen=RECENT)
        self._journal: dict[tuple[int, str], _Seen] = {}  # when it was read last

    def payload(self, signed: bytes, generation: int, transaction: str) -> Payload:
        """What is signed for this place. Raise as ``unseal``."""
        seen = self._see(signed, generation, transaction)
        if seen not in self._recent:  # which it is by identity
            self._recent.append(seen)
        return seen.payload

    def journal(self, records: Sequence[JournalRecord]) -> list[Entry]:
        """The same for each of them. Raise as ``unseal``."""
        seen = [self._see(record.payload, record.generation, record.transaction) for record in records]
        self._journal = {_place_of(each.payload): each for each in seen}
        return [each.entry for each in seen]

    def _see(self, signed: bytes, generation: int, transaction: str) -> _Seen:
        place = generation, transaction
        before = [self._journal.get(place), *self._recent]
        for seen in before:
            if seen is not None and _place_of(seen.payload) == place and seen.signed == signed:
                return seen
        return _Seen(signed, self._unseal(signed, generation, transaction))


def _place_of(payload: Payload) -> tuple[int, str]:
    return payload.generation, payload.transaction

"""Who the members are, as they tell of themselves, and what this worker tells of itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from flask_hotreload.deadline import Deadline
from flask_hotreload.mutex import Mutex

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import Member, Vote
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.coordination.worker import Worker
    from flask_hotreload.probation import Tally

#: Seconds that what a worker has told of itself is as good as new, and that others wait for it to tell it anew.
FRESH = 0.25
TELLING = 0.05


class Roll:
    """As ``member`` sees and tells it. Any thread may ask. All but :meth:`told` raise :class:`StoreUnavailable`."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        *,
        member: Member,
        load: Callable[[], tuple[int, int]],
        tally: Callable[[], Tally | None],
    ) -> None:
        """``load()``: requests inside and held now. ``tally()``: what is counted of a generation on probation."""
        self._store = store
        self._worker = worker
        self._member = member
        self._load = load
        self._tally = tally
        self._telling = Mutex()  # held while something is told, so that what is told later is newer
        self._patience = threading.Event()  # never set
        #: When it was last told how this worker is, on the store's clock.
        self.told_at = 0.0

    def told(self) -> Member:
        """How this worker is now."""
        self.told_at = self._store.now()
        in_flight, held = self._load()
        return replace(
            self._member,
            generation=self._worker.generation,
            in_flight=in_flight,
            held=held,
            seen=self.told_at,
            sources=self._worker.sources,
            tally=self._tally(),
        )

    def publish(self) -> None:
        """Tell it."""
        with self._telling.lock:
            self._store.update(self.told())

    def vote(self, vote: Vote) -> int:
        """Cast it, as :meth:`Store.vote` does, and tell how this worker is now."""
        with self._telling.lock:
            return self._store.vote(vote, told=self.told())

    def living(self) -> tuple[Member, ...]:
        """Every living member, as it last told of itself."""
        view = self._store.view(self._member.release)
        dead = self._store.dead([member.id for member in view.members])
        return tuple(member for member in view.members if member.id not in dead)

    def fresh(self) -> tuple[Member, ...]:
        """Every living member, as it tells of itself now; one that does not within ``TELLING`` s, as it last did."""
        asked, patience = self._store.now(), Deadline(TELLING)
        living = self.living()
        self._store.ring([member.id for member in living])
        while any(member.seen < asked - FRESH for member in living) and not patience.expired:
            self._patience.wait(TELLING / 10)
            living = self.living()
        return living

    def first(self) -> str | None:
        """The id of the first of the release's living members: one at a time, but for moments of change."""
        release = self._member.release
        return min((member.id for member in self.living() if member.release == release), default=None)

    def tallies(self) -> dict[str, Tally]:
        """What the others of the release have counted."""
        members = self._store.view(self._member.release).members
        return {each.id: each.tally for each in members if each.tally is not None and self._is_sibling(each)}

    def is_first(self) -> bool:
        """Whether no other living worker of the release comes before this one."""
        return all(self._member.id < member.id for member in self.living() if self._is_sibling(member))

    def _is_sibling(self, member: Member) -> bool:
        return member.release == self._member.release and member.id != self._member.id

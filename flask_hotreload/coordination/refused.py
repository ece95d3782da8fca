"""A worker whose signing key is not that of its deployment: the others list it, and it takes no part in anything."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from msgspec.structs import replace

from flask_hotreload.errors import StoreUnavailable

if TYPE_CHECKING:
    from flask_hotreload.coordination.records import Member
    from flask_hotreload.coordination.store import Store

#: The release under which such workers are listed; so they neither vote nor catch up.
REFUSED = "refused: another signing key"
STATE = "refused"


class Refused:
    """``member``: this worker. Call :meth:`show` more often than a lease lasts."""

    def __init__(self, store: Store, member: Member) -> None:
        self._store = store
        self._member = replace(member, release=REFUSED, state=STATE)

    def show(self) -> None:
        """Be listed, as long as anybody lives who has the deployment's key.

        Then all that were refused leave, so that the key of one of them can become the deployment's.
        """
        try:
            view = self._store.view(REFUSED)
            others = {member.id for member in view.members if member.release != REFUSED}
            if not others - self._store.dead(others):
                self._store.leave(self._member.id)
                return
            if self._store.renew(self._member.id, view.head) == -inf:
                self._store.new_release(REFUSED, only_if=view.release)
                head = self._store.view(REFUSED).head
                self._store.join(replace(self._member, generation=head, seen=self._store.now()))
        except StoreUnavailable:
            pass  # whoever cannot reach the store lists nobody

"""From what a new worker imports its application: the disk, or the base of its release.

As long as nothing has been reloaded, from the disk, as with plain gunicorn; then each worker that joins leaves what
it has imported as the base. Once something is committed, from the base, so that it serves what its siblings serve,
whatever lies on the disk by now. In both cases the worker looks before it imports the application if this package is
loaded in gunicorn's master, which ``-c python:flask_hotreload.gunicorn`` does; else when the application imports
this package, which leaves what it has imported before that to the disk.

Whatever is wrong with the store or with what it holds, the disk counts, and the log says why. This is for stores of
the master's own: workers that name a store are of a release that is recognised by what lies on the disk.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flask_hotreload import boot
from flask_hotreload.base_finder import BaseFinder
from flask_hotreload.coordination import presence
from flask_hotreload.coordination.base import (
    Base,
    base_of,
    base_sources,
    committed_base,
    open_base,
    seal_base,
)
from flask_hotreload.coordination.meeting_place import STORE, folders_of
from flask_hotreload.coordination.signing import Signer, key_beside
from flask_hotreload.coordination.sqlite import SQLiteStore
from flask_hotreload.errors import StoreUnavailable
from flask_hotreload.imported import Imported, file_of, imported, process_began
from flask_hotreload.interpreter import interpreter
from flask_hotreload.sources import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask_hotreload.coordination.payload import Signs
    from flask_hotreload.coordination.store import Store
    from flask_hotreload.sources import Roots

_log = logging.getLogger("flask_hotreload")
_SHOWN = 5  # how many modules one line names


class BootSources:
    """Of this process."""

    def __init__(self) -> None:
        self._finder = BaseFinder()
        self._made_in = os.getpid()
        self._inherited: frozenset[str] = frozenset()  # names of modules that the master has imported
        self._found: bool | None = None  # what a look at the store has come to; None: there was none, or in vain
        self._served: dict[str, Source] = {}  # by file

    def served(self, roots: Roots) -> dict[str, Source]:
        """Real path → source, of the files of the base that is imported here, whatever lies there by now."""
        resolved = roots.resolve()
        return {resolved.real_path(file): source for file, source in self._served.items()}

    # Before and while the application is imported ----------------------------------------------------------------

    def begin(self, place: boot.Place) -> None:
        """Import the base from now on, if something was committed. Never raises."""
        if os.getpid() != self._made_in:
            self._inherited = frozenset(interpreter.live.copy())
        sources: dict[str, Source] = {}
        namespaces: dict[str, tuple[str, ...]] = {}
        try:
            for folder in folders_of(place.master_pid):
                store = folder / STORE
                if store.exists() or presence.anybody_is_alive(store):
                    _read(store, place.release, sources, namespaces)
        except StoreUnavailable as error:
            sources, namespaces = {}, {}
            _log.warning("this worker imports what lies on the disk, not what was served before: %s", error)
        except Exception:  # noqa: BLE001  # whatever it is, a worker that could start from the disk shall start
            sources, namespaces = {}, {}
            _log.exception("this worker imports what lies on the disk, not what was served before")
        else:
            self._found = bool(sources)
        self._served = {source.path: source for source in sources.values()}
        self._finder.install(sources, namespaces)

    def end(self, place: boot.Place) -> None:
        """What is imported from now on comes from the disk."""
        self._finder.remove()

    # When the worker has joined ----------------------------------------------------------------------------------

    def imported(self, store: Store, roots: Roots, release: str) -> Imported | None:
        """What :meth:`keep` is to be given; ``None``: something was committed, or the store is away."""
        try:
            committed = store.journal(release)
        except StoreUnavailable:
            return None
        began, asked = process_began(), self._finder.asked
        if committed:
            return None
        return imported(roots.resolve(), lambda name: asked.get(name, began), without=self._inherited)

    def keep(self, store: Store, signer: Signs, found: Imported, *, deployment: str, release: str) -> None:
        """Leave what this worker has imported as the base, unless something was committed. Never raises.

        Of a file that may not hold any more what was imported, the base of an earlier worker counts, if there is one.
        """
        try:
            sealed = store.base(release)
            base, blobs = base_of(found, deployment, release, _opened(sealed, signer, release))
            sealed_anew = seal_base(base, signer)
            if sealed_anew != sealed:
                blobs |= store.blobs(base.digests() - blobs.keys())
                store.put_base(release, sealed_anew, blobs)
        except StoreUnavailable as error:
            _log.warning("workers that start later will import what lies on the disk by then: %s", error)
            return
        except Exception:  # noqa: BLE001  # whatever it is, this worker can serve
            _log.exception("workers that start later will import what lies on the disk by then")
            return
        unsure = [name for name in found.unsure if name not in base.modules]
        if unsure:
            _log.warning(
                "%s: changed on disk while this worker imported it; workers that start later will import what lies "
                "on the disk by then",
                _some(unsure),
            )

    def differs(self, store: Store, signer: Signs, release: str) -> bool:
        """Whether this worker runs other code than its siblings, and would not if it were started again now.

        So it is with one that had imported the disk before the first reload was committed, and joins after that. A
        difference that would remain is logged.
        """
        if self._found is None:
            return False
        try:
            base = committed_base(store, signer, release)
        except StoreUnavailable:
            return False  # said when it was looked for
        different = [] if base is None else list(_different(base))
        if different and self._found:
            _log.warning(
                "%s: imported from the disk, where it is not what the other workers run; with gunicorn -c "
                "python:flask_hotreload.gunicorn a new worker imports what they run",
                _some(different),
            )
        return bool(different) and not self._found


def _read(
    file: Path, release: str | None, sources: dict[str, Source], namespaces: dict[str, tuple[str, ...]]
) -> None:
    """Add what the base in one store holds, if workers that boot now, and this one, are of its release."""
    key = os.environ.get("HOTRELOAD_SIGNING_KEY")
    signer = Signer(key_beside(file) if not key else key.encode())
    store = SQLiteStore(file)
    try:
        current = store.view("").release
        base = committed_base(store, signer, current) if release in (None, current) else None
        if base is not None:
            sources.update(base_sources(store, base))
            namespaces.update(base.namespaces)
    finally:
        store.close()


def _opened(sealed: bytes | None, signer: Signs, release: str) -> Base | None:
    """``None`` also for one that is not as it was signed: another one takes its place."""
    try:
        return None if sealed is None else open_base(sealed, signer, release)
    except StoreUnavailable:
        return None


def _different(base: Base) -> list[str]:
    """The modules of the base that are live as they were imported from the disk, from other bytes."""
    found = []
    for name, module in base.modules.items():
        file = file_of(interpreter.live.get(name))
        if file is None:
            continue  # not imported, served from the base, or reloaded
        try:
            same = Source(file, Path(file).read_bytes()).digest == base.digest(module)
        except OSError:
            same = False
        if not same:
            found.append(name)
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


boot_sources = BootSources()
boot.before_serving(boot_sources.end)
boot.before_loading(boot_sources.begin)

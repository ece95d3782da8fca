"""A reload as server-sent events: the body of an answer that is written while the reload is under way.

The reload runs on a thread of its own, in the context of the request, and puts its events into a queue; the server's
thread takes them out. So a reader that is slow, or gone, delays nothing: when ``MOST`` events wait, further ones are
dropped, but never the last. The request lasts until the reload has ended, whether or not somebody reads.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from flask_hotreload.progress import Progress
from flask_hotreload.side_effects import THREAD_PREFIX

MIMETYPE = "text/event-stream"
#: ``X-Accel-Buffering``: nginx shall not collect the events.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

#: Events that may wait for the reader.
MOST = 1000
#: Seconds of silence after which a comment is sent, so that no proxy takes the connection for a dead one.
SILENCE = 5.0


class EventStream:
    """``work(progress)`` is run at once; what it returns, JSON, is the data of the last event, ``report``."""

    def __init__(self, work: Callable[[Progress], bytes]) -> None:
        self._work = work
        self._events: queue.Queue[bytes | None] = queue.Queue()  # None: that was all
        self._ended = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"{THREAD_PREFIX}stream")
        self._thread.start()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            event = self._events.get(timeout=SILENCE)
        except queue.Empty:
            return b":\n\n"
        if event is None:
            self._ended = True
            raise StopIteration
        return event

    def close(self) -> None:
        """Wait until the reload has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._events.put(_event("report", self._work(self._tell)))
        finally:
            self._events.put(None)

    def _tell(self, event: str, data: dict[str, Any]) -> None:
        if self._events.qsize() < MOST:
            self._events.put(_event(event, msgspec.json.encode(data)))


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)

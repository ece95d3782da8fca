"""A process of the service under test that is stopped at a named step of a reload."""

from __future__ import annotations

import os

from cluster import until


class Stop:
    """Where the process ``pid`` stops when it comes to ``step``."""

    def __init__(self, folder, pid: int, step: str) -> None:
        self._pipe = folder / f"{pid}.{step}"
        os.mkfifo(self._pipe)

    def await_reached(self) -> None:
        reader = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)

        def told() -> bytes | None:
            try:
                return os.read(reader, 100)
            except BlockingIOError:  # somebody is about to write
                return None

        try:
            until(told, "the step is not reached")
        finally:
            os.close(reader)

    def remove(self) -> None:
        """Nobody stops here any more; who has stopped goes on with :meth:`let_go`."""
        self._pipe.unlink()

    def let_go(self) -> None:
        """Let the process, which is stopped here and running otherwise, go on."""

        def writer() -> int | None:
            try:
                return os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # it does not read yet
                return None

        descriptor = until(writer, "the process does not wait to go on")
        self.remove()
        os.close(descriptor)

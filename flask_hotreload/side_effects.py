"""What an import leaves behind outside of modules. It cannot be undone, so it is told.

Counted are things that new code makes and that nothing removes with its module: threads that run its functions,
logging handlers, ``atexit`` callbacks, signal handlers.
"""

from __future__ import annotations

import atexit
import logging
import signal
import threading

#: What the names of this package's own threads begin with.
THREAD_PREFIX = "hotreload-"


class Census:
    """What there was when it was made."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._handlers = set(_handlers())
        self._at_exit = _exit_callbacks()
        self._signals = _signals()

    def differences(self) -> list[str]:
        """What there is now and was not then, one line each."""
        found = [
            f"a thread {thread.name!r} was started and is running"
            for thread in threading.enumerate()
            if thread not in self._threads and _runs_user_code(thread)
        ]
        found += [
            f"logger {name!r} got a handler {handler!r}"
            for handler, name in _handlers().items()
            if handler not in self._handlers
        ]
        added = _exit_callbacks() - self._at_exit
        if added > 0:
            found.append(f"{added} atexit callback{'s' if added > 1 else ''} registered")
        found += [
            f"the handler of {signal.Signals(number).name} was changed"
            for number, handler in _signals().items()
            if self._signals.get(number) is not handler
        ]
        return found


def _runs_user_code(thread: threading.Thread) -> bool:
    """Whether it is no thread of a server or of this package, which come and go with requests."""
    if isinstance(thread, threading._DummyThread) or thread.name.startswith(THREAD_PREFIX):
        return False
    target = getattr(thread, "_target", None)
    module = getattr(target, "__module__", None) or type(thread).__module__
    return module.partition(".")[0] not in {
        "flask_hotreload",
        "_contextvars",
        "socketserver",
        "concurrent",
        "waitress",
    }


def _handlers() -> dict[logging.Handler, str]:
    """Every handler of every logger → the name of its logger."""
    loggers = [logging.root, *logging.root.manager.loggerDict.copy().values()]
    return {
        handler: logger.name
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in list(logger.handlers)
    }


def _exit_callbacks() -> int:
    return atexit._ncallbacks()


def _signals() -> dict[int, object]:
    return {int(number): signal.getsignal(number) for number in signal.valid_signals()}

"""What an import leaves behind outside of modules. It cannot be undone, so it is told.

Counted are things that new code makes and that nothing removes with its module: threads that run its functions,
logging handlers, ``atexit`` callbacks, signal handlers, collectors of prometheus-client; and the files and sockets
that its modules hold open.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from flask_hotreload.open_files import held_open, open_now

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

_OWN_COLLECTORS = {f"prometheus_client.{name}_collector" for name in ("process", "platform", "gc")}

_SIGNALS = sorted(map(int, signal.valid_signals()))

#: What the names of this package's own threads begin with.
THREAD_PREFIX = "hotreload-"


class Census:
    """What there was when it was made."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._handlers = set(_handlers())
        self._at_exit = _exit_callbacks()
        self._signals = _signals()
        self._collectors = _collectors()
        self._open = open_now()

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
        found += [
            f"a collector {name!r} was registered with prometheus-client"
            for collector, name in _collectors().items()
            if collector not in self._collectors
        ]
        return found

    def opened(self, modules: Mapping[str, ModuleType]) -> list[str]:
        """What these new modules hold open that was not open then, one line each."""
        opened = open_now() - self._open  # by whomever
        if not opened:
            return []
        return [f"module {name!r} holds {what} open" for name, what in held_open(modules) if what in opened]


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


def _collectors() -> dict[Any, str]:
    """Every collector of prometheus-client's own registry, but those that it registers itself → its name."""
    client = sys.modules.get("prometheus_client")
    registered: dict[Any, list[str]] = getattr(getattr(client, "REGISTRY", None), "_collector_to_names", {})
    return {
        collector: min(names, key=len, default=type(collector).__name__)  # the others are that with an ending
        for collector, names in registered.copy().items()
        if type(collector).__module__ not in _OWN_COLLECTORS
    }


def _exit_callbacks() -> int:
    return atexit._ncallbacks()


def _signals() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in _SIGNALS}

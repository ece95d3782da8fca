"""A reload followed while it is under way: phases and workers, in place on a terminal, a line each elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Group
from rich.live import Live
from rich.text import Text

from flask_hotreload.cli.events import Event
from flask_hotreload.cli.printing import Terminal, clean, note, rich_table

PHASES = ("prepare", "check", "drain", "apply", "decide", "release")


class Follower(Protocol):
    """Is told each event, within a ``with`` block."""

    def __enter__(self) -> Follower: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def tell(self, event: Event) -> None: ...


def follower(*, quiet: bool = False) -> Follower:
    """``quiet``: nothing is shown but that a connection broke."""
    terminal = Terminal(stderr=True)
    if quiet or terminal.is_plain:
        return _Lines(quiet=quiet)
    return _InPlace(terminal)


class _Workers:
    """What each worker has come to. One that has refused stays so, whatever it does afterwards."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self._released = False

    def tell(self, event: Event) -> str | None:
        """Return what is new of a worker; ``None``: nothing."""
        if event.name == "phase":
            self._released = event.data["phase"] == "release"
        if event.name == "begin":
            self.states = {clean(worker): "…" for worker in event.data["workers"]}
        if event.name != "worker":
            return None
        worker, step = clean(event.data["id"]), event.data["step"]
        if self.states.get(worker) == "failed":
            return None
        if not event.data["ok"]:
            state = "failed"
        elif step == "settled":
            state = "released" if self._released else "unchanged"
        else:
            state = clean(str(step))
        self.states[worker] = state
        return f"{worker} {state}"


class _Lines:
    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._workers = _Workers()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def tell(self, event: Event) -> None:
        news = self._workers.tell(event)
        if event.name == "again":
            note(_again(event))
        elif self._quiet:
            return
        elif event.name == "begin":
            note(f"reload {clean(event.data['id'])}: {_workers(len(event.data['workers']))}")
        elif event.name == "phase":
            note(f"{clean(event.data['phase'])} …")
        elif news is not None:
            note(f"  {news}")


class _InPlace:
    """The phases in one line, the workers in a table below. Nothing of it stays when it is over."""

    def __init__(self, terminal: Terminal) -> None:
        self._live = Live(console=terminal, transient=True, auto_refresh=False)
        self._title = "asking …"
        self._phase: str | None = None
        self._workers = _Workers()

    def __enter__(self) -> _InPlace:
        self._live.__enter__()
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def tell(self, event: Event) -> None:
        self._workers.tell(event)
        if event.name == "again":
            self._live.console.print(Text(_again(event), style="yellow"))
        elif event.name == "begin":
            self._title = f"reload {clean(event.data['id'])}: {_workers(len(event.data['workers']))}"
        elif event.name == "phase":
            self._phase = event.data["phase"]
        self._show()

    def _show(self) -> None:
        steps = Text()
        reached = PHASES.index(self._phase) if self._phase in PHASES else -1
        for number, phase in enumerate(PHASES):
            style = "green" if number < reached else "bold" if number == reached else "dim"
            steps.append(phase, style=style)
            steps.append("  ")
        rows = sorted(self._workers.states.items())
        workers = [rich_table(("worker", ""), rows)] if rows else []
        self._live.update(Group(Text(self._title), steps, *workers), refresh=True)


def _again(event: Event) -> str:
    return f"{clean(event.data['reason'])}; asking again with the same id"


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"

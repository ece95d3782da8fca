"""``flask-hotreload status``: what runs, on which workers, and who is inside; once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from flask_hotreload.cli.options import Asked, service_options
from flask_hotreload.cli.outcome import DONE, UNREACHABLE, Failure
from flask_hotreload.cli.printing import Terminal, clean, note, out, out_json, rich_table, table
from flask_hotreload.cli.report_text import summary

Status = Mapping[str, Any]

_COLUMNS = ("worker", "generation", "state", "inside", "held", "seen")


@click.command()
@service_options
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "--interval", default=1.0, show_default=True, metavar="SECONDS", type=click.FloatRange(min=0.1),
    help="Between two looks of --watch.",
)  # fmt: skip
def status(asked: Asked, watch: bool, interval: float) -> int:
    """What runs, on which workers, who is inside, and what lies on disk and does not run."""
    if watch:
        try:
            _watch(asked, interval)
        except KeyboardInterrupt:
            pass  # it is how one leaves
        return DONE
    told = asked.get()
    if asked.as_json:
        out_json(told)
        return DONE
    for line in lines(told):
        out(line)
    table(_COLUMNS, _rows(told))
    return DONE


def lines(told: Status) -> list[str]:
    """All but the workers."""
    label = f" ({clean(told['label'])})" if told.get("label") else ""
    found = [f"generation {told['generation']}{label}, {told['in_flight']} requests inside, {told['held']} held"]
    if told.get("tainted"):
        found.append(f"tainted: {clean(told['tainted'])}")
    if pending := told.get("pending"):
        found.append("on disk, and not running:")
        found += [f"  {clean(each['change'])} {clean(each['file'])}" for each in pending]
    if last := told.get("last"):
        found.append(f"last reload, {clean(last['id'])}: {summary(last)}")
        if last.get("error"):
            found.append(f"  {clean(last['error']['type'])}: {clean(last['error']['message'])}")
    return found


def _rows(told: Status) -> list[tuple[Any, ...]]:
    return [
        (
            worker["id"],
            worker["generation"],
            worker["state"],
            worker["in_flight"],
            worker["held"],
            f"{worker['seen_ms'] / 1000:.1f} s ago",
        )
        for worker in told["workers"]
    ]


def _watch(asked: Asked, interval: float) -> None:
    """A service that is away for a moment is waited for; what is wrong for good ends it."""
    terminal = Terminal()
    if asked.as_json or terminal.is_plain:
        while True:
            try:
                told = asked.get()
                out_json(told, indent=0) if asked.as_json else out(lines(told)[0])
            except Failure as failure:
                _away(failure)
                note(f"error: {clean(failure.message)}")
            time.sleep(interval)
    with Live(console=terminal, screen=False, auto_refresh=False) as live:
        while True:
            try:
                told = asked.get()
                cells = [[clean(str(cell)) for cell in row] for row in _rows(told)]
                live.update(Group(*map(Text, lines(told)), rich_table(_COLUMNS, cells)), refresh=True)
            except Failure as failure:
                _away(failure)
                live.update(Text(f"{clean(failure.message)}; asking again", style="yellow"), refresh=True)
            time.sleep(interval)


def _away(failure: Failure) -> None:
    if failure.code != UNREACHABLE:
        raise failure

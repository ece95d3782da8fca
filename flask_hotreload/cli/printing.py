"""What is written where: results to standard output, warnings and errors to standard error.

Whose reader has gone (``| head``) is written to no more; the command goes on to its end, and its exit code tells.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Terminal(Console):
    """Standard output, or standard error, as rich writes to it."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    @property
    def is_plain(self) -> bool:
        """Whether there is nobody before it who would like colours and lines that change."""
        return not self.is_terminal or self.is_dumb_terminal

    def on_broken_pipe(self) -> None:
        _let_go(self.file)


def out(text: str) -> None:
    """A line of the result."""
    _write(text, sys.stdout)


def warn(text: str) -> None:
    _write(f"warning: {text}", sys.stderr)


def note(text: str, *, style: str | None = None) -> None:
    """A line of progress, or of an error."""
    _write(text, sys.stderr, fg=style)


def out_json(value: object, *, indent: int = 2) -> None:
    encoded = msgspec.json.encode(value)
    out((msgspec.json.format(encoded, indent=indent) if indent else encoded).decode())


def table(title: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; plain columns where that is no terminal."""
    cells = [[clean("" if cell is None else str(cell)) for cell in row] for row in rows]
    terminal = Terminal()
    if terminal.is_plain:
        widths = [max(len(row[n]) for row in (title, *cells)) for n in range(len(title))]
        for row in ([name.upper() for name in title], *cells):
            out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    terminal.print(rich_table(title, cells))


def rich_table(title: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    made = Table(*title, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return made


def clean(text: str) -> str:
    """``text`` in one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " if letter in "\n\t" else "�" for letter in text)


_STYLES = {"ok": "green", "failed": "red", "committed": "green", "aborted": "red"}


def _write(text: str, file: TextIO, *, fg: str | None = None) -> None:
    try:
        click.echo(click.style(text, fg=fg) if fg is not None and _coloured() else text, file=file)
    except BrokenPipeError:
        _let_go(file)


def _coloured() -> bool:
    """Whether a terminal, if it is one, gets colours."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "dumb", "unknown")


def _let_go(file: Any) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)

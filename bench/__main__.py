"""Measure every figure and print one table of them beside their targets."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import effort
from bench.apart import measured
from bench.figure import Figure

#: In the order of the table; each is a module here with a function ``measure() -> list[Figure]``.
NAMES = (
    "lock",
    "middleware",
    "echo",
    "pause",
    "size",
    "pause_under_load",
    "open_loop",
    "preparing",
    "whole_source",
    "whole_under_load",
    "whole_memory",
    "memory",
    "rival",
    "watch",
    "cluster",
    "cluster_open_loop",
    "hosts",
    "many_workers",
    "idle_agent",
    "catch_up",
    "deployments",
)
#: Measured when they are asked for: they need what others do not.
ON_REQUEST = ("peers",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    every = NAMES + ON_REQUEST
    parser.add_argument("--only", metavar="NAME", action="append", choices=every, help=f"one of {', '.join(every)}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="just see that everything runs: figures mean nothing")
    options = parser.parse_args()
    if options.quick:
        os.environ[effort.VARIABLE] = "1"
    console = Console(width=None if sys.stdout.isatty() else 140)
    figures: list[Figure] = []
    # A fresh process for each, so that none meets what another has left in memory.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in options.only or NAMES:
            with console.status(f"measuring {name}"):
                figures += pool.apply(measured, (name,))
            if options.json:  # after each group, so that an interrupted run is not lost
                options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    console.print(_table(figures))
    return 0 if effort.quick() or all(figure.met is not False for figure in figures) else 1


def _table(figures: list[Figure]) -> Table:
    machine = f"{os.cpu_count()} cores, {platform.system()}, {platform.python_implementation()} {_version()}"
    title = f"{machine}{', a quick run: figures mean nothing' if effort.quick() else ''}"
    table = Table(title=title, title_justify="left")
    table.add_column("Figure", overflow="fold")
    table.add_column("Measured", overflow="fold")
    table.add_column("Target", overflow="fold")
    table.add_column("Met")
    for figure in figures:
        met = {True: "yes", False: "[red]NO[/red]", None: ""}[figure.met]
        table.add_row(figure.name, figure.value, figure.target, met)
    return table


def _version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


if __name__ == "__main__":
    sys.exit(main())

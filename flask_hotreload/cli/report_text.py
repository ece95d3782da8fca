"""A report in words: what a reload did, or why it did nothing, the latter as a compiler says it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask_hotreload.cli.printing import clean, note, out, table, warn

Report = Mapping[str, Any]


def print_report(report: Report) -> None:
    """All of it: warnings and errors to standard error, what was done and who did it to standard output."""
    if report.get("error"):
        print_error(report["error"])
    for warning in report.get("warnings", ()):
        warn(clean(warning))
    out(summary(report))
    for change in report.get("changes", ()):
        out(f"  {change['change']} {clean(change['path'])} {clean(change['name'])}")
    print_workers(report.get("workers", ()))


def summary(report: Report) -> str:
    """What came of it, in a line."""
    label = f" ({clean(report['label'])})" if report.get("label") else ""
    timings, held = report["timings"], report["drain"]["held"]
    took = f"{timings['total_ms']:.0f} ms"
    if report["status"] == "committed":
        back = f", as {report['restores']} was" if report.get("restores") is not None else ""
        pause = f"requests were held for {timings['pause_ms']:.1f} ms, {held} of them"
        return f"committed: generation {report['previous']} → {report['generation']}{back}{label}; {pause}; {took}"
    if report["status"] == "checked":
        return f"checked{label}: it would be committed; generation {report['generation']} goes on; {took}"
    if report["status"] == "unchanged":
        return f"unchanged: the source is as it runs, in generation {report['generation']}"
    return f"aborted{label}: nothing has changed, generation {report['generation']} goes on"


def print_workers(workers: Any) -> None:
    if not workers:
        return
    rows = [
        (
            worker["id"],
            "ok" if worker["ok"] else "failed",
            f"{worker['pause_ms']:.1f} ms",
            _shortened(_near(worker.get("error") or "")),
        )
        for worker in workers
    ]
    table(("worker", "result", "held for", "error"), rows)


def print_error(error: Mapping[str, Any]) -> None:
    """``file:line: message``, and below it the line of the source that ran, as the service has told it."""
    file, line = error.get("file"), error.get("line")
    message = str(error["message"])
    if file is None:
        note(f"error: {clean(message)}", style="red")
        return
    place = str(file) if line is None else f"{file}:{line}"
    message = message.removeprefix(f"{place}: ")
    note(f"{clean(_near(place))}: {clean(message)}", style="red")
    for quoted in source_lines(error):
        note(f"    {quoted}")


def source_lines(error: Mapping[str, Any]) -> list[str]:
    """The line at fault as the traceback quotes it, with its marks; else as the file here has it."""
    file, line = error.get("file"), error.get("line")
    if line is None:
        return []
    found: list[str] = []
    text = str(error.get("traceback") or "")
    for place in re.finditer(
        rf'^  File "{re.escape(str(file))}", line {line}\b.*\n((?:    .*\n)*)', text, re.MULTILINE
    ):
        found = [_printable(quoted[4:]) for quoted in place[1].splitlines()]
    return found or _in_file(Path(str(file)), line)


def _in_file(file: Path, line: int) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [_printable(lines[line - 1].strip())] if 0 < line <= len(lines) else []


def _near(place: str) -> str:
    """``place`` as seen from the working folder, if it lies below."""
    here = os.getcwd() + os.sep
    return place.removeprefix(here) if place.startswith(here) else place


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in line)

"""The commands: each asks the service, shows the answer, and returns its exit code."""

from __future__ import annotations

import secrets
import sys
import uuid
from pathlib import Path
from typing import Any

import click
import msgspec

from flask_hotreload.cli.asking import ask_until_answered, interrupted
from flask_hotreload.cli.entry import INTERRUPTED
from flask_hotreload.cli.following import follower
from flask_hotreload.cli.label import default_label
from flask_hotreload.cli.options import Asked, service_options, value_of
from flask_hotreload.cli.outcome import DONE, USAGE, Failure, exit_code
from flask_hotreload.cli.printing import clean, note, out, out_json, table
from flask_hotreload.cli.probation import wait_for_end
from flask_hotreload.cli.report_text import print_report
from flask_hotreload.cli.rpc import rpc
from flask_hotreload.cli.status import status


@click.group()
def commands() -> None:
    """All that :mod:`flask_hotreload.cli.entry` offers."""


commands.add_command(rpc)
commands.add_command(status)

_patience = click.option(
    "--patience", default=120.0, show_default=True, metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
    help="How long to wait for the answer.",
)  # fmt: skip
_id = click.option("--id", "identity", metavar="ID", help="By which a retry is known; by default a new one.")

_RELOAD_OPTIONS = [
    click.option("--dispatcher", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated."),
    click.option("--script", metavar="FILE", help="Where it is, as the service sees the file."),
    click.option("--path", metavar="PATH", help="The API path that serves it."),
    click.option("--instance", is_flag=True, help="It is a class, whose methods are served."),
    click.option("-f", "--file", metavar="FILE", help="The whole reload document, as JSON; - is standard input."),
    click.option("--label", metavar="TEXT", help="Shown everywhere; by default what git describe says."),
    click.option("--expect", type=click.IntRange(min=0), metavar="N", help="The generation that must be live."),
    click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="For requests that are inside."),
    click.option("--on-timeout", type=click.Choice(["proceed", "abort"]), help="What is done when it is over."),
    _id,
    _patience,
]


def _reload_options(function: Any) -> Any:
    for option in reversed(_RELOAD_OPTIONS):
        function = option(function)
    return function


_PROBATION_OPTIONS = [
    click.option("--probation", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                 help="Roll back by itself if it makes too many errors within that time."),
    click.option("--max-errors", type=click.IntRange(min=0), metavar="N", help="More are too many."),
    click.option("--error-ratio", type=click.FloatRange(0, 1), metavar="R", help="Of requests; more is too much,"),
    click.option("--min-requests", type=click.IntRange(min=1), metavar="N", help="once there were that many."),
    click.option("--wait", is_flag=True, help="Until the probation is over."),
]  # fmt: skip


def _probation_options(function: Any) -> Any:
    for option in reversed(_PROBATION_OPTIONS):
        function = option(function)
    return function


@commands.command("reload")
@service_options
@_reload_options
@_probation_options
def reload_(asked: Asked, identity: str | None, patience: float, wait: bool, **options: Any) -> int:
    """Reload the whole source, or only some dispatchers."""
    limits = {key: options.pop(name) for key, name in _LIMITS.items()}
    document = _document(identity, **options)
    given = {key: value for key, value in limits.items() if value is not None}
    if given:
        document["probation"] = {**document.get("probation", {}), **given}
    if wait and not document.get("probation"):
        raise Failure(USAGE, "--wait is for the end of a probation: say --probation SECONDS and a limit")
    return _carry_out(asked, "", document, patience, wait=wait)


_LIMITS = {
    "seconds": "probation",
    "maxErrors": "max_errors",
    "errorRatio": "error_ratio",
    "minRequests": "min_requests",
}


@commands.command()
@service_options
@_reload_options
def check(asked: Asked, identity: str | None, patience: float, **options: Any) -> int:
    """Try the new code in every worker, and serve the old on: a gate for pipelines.

    Warnings tell what its import leaves behind: threads, handlers, callbacks at exit, signal handlers.
    """
    document = _document(identity, **options) | {"dryRun": True}
    document.pop("probation", None)  # so that one file does for both: here, nothing is served that could be watched
    return _carry_out(asked, "", document, patience)


@commands.command()
@service_options
@click.option("--to", type=click.IntRange(min=0), metavar="N", help="That generation; by default the one before.")
@_id
@_patience
def rollback(asked: Asked, to: int | None, identity: str | None, patience: float) -> int:
    """Serve an earlier generation once more."""
    document: dict[str, Any] = {"id": identity or uuid.uuid4().hex}
    if to is not None:
        document["to"] = to
    return _carry_out(asked, "/rollback", document, patience)


@commands.command()
@service_options
@click.option("-n", "--number", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.argument("identity", metavar="[ID]", required=False)
def history(asked: Asked, number: int, identity: str | None) -> int:
    """The last reloads, newest first; or one of them in full."""
    if identity is not None:
        report = asked.get(f"/generations/{identity}")
        out_json(report) if asked.as_json else print_report(report)
        return DONE
    reports = asked.get("/generations")[:number]
    if asked.as_json:
        out_json(reports)
        return DONE
    rows = [
        (
            report["started_at"],
            report["id"],
            report["status"],
            report["generation"],
            report["trigger"],
            report["label"],
            f"{report['timings']['pause_ms']:.1f} ms",
            (report["error"] or {}).get("type"),
        )
        for report in reports
    ]
    table(("started at", "id", "status", "generation", "trigger", "label", "held for", "error"), rows)
    return DONE


@commands.command()
def token() -> None:
    """Make a new token, for HOTRELOAD_TOKEN of the service and of this command."""
    out(secrets.token_urlsafe(32))


# Reloading ---------------------------------------------------------------------------------------------------------


def _carry_out(asked: Asked, route: str, document: dict[str, Any], patience: float, *, wait: bool = False) -> int:
    connection = asked.connection()
    try:
        with follower(quiet=asked.as_json) as following:
            answer = ask_until_answered(connection, route, document, patience=patience, tell=following.tell)
    except KeyboardInterrupt:
        note(interrupted(document["id"]))
        return INTERRUPTED
    report = answer.value.get("report") if answer.status != 200 and isinstance(answer.value, dict) else answer.value
    if asked.as_json or not isinstance(report, dict):
        out_json(value_of(answer))
    else:
        print_report(report)
    if wait and answer.status == 200 and isinstance(report, dict) and report["status"] == "committed":
        return wait_for_end(asked, report)
    return exit_code(answer.status)


def _document(
    identity: str | None,
    *,
    names: tuple[str, ...],
    script: str | None,
    path: str | None,
    instance: bool,
    file: str | None,
    label: str | None,
    expect: int | None,
    timeout: float | None,
    on_timeout: str | None,
) -> dict[str, Any]:
    """The reload document that the options mean; they go before what the file says."""
    if file is not None and names:
        raise Failure(USAGE, "--file and --dispatcher do not go together: the file is the whole document")
    if not names and (script is not None or path is not None or instance):
        raise Failure(USAGE, "--script, --path and --instance belong to a --dispatcher")
    document = _read(file) if file is not None else {}
    if names:
        about = {"scriptPath": script, "path": path, "isInstance": instance or None}
        given = {key: value for key, value in about.items() if value is not None}
        document["data"] = [{"dispatcher": name, **given} for name in names]
    if label is None and "label" not in document:
        label = default_label()
    told = {"label": label or None, "expect": expect, "timeout": timeout, "onTimeout": on_timeout, "id": identity}
    document |= {key: value for key, value in told.items() if value is not None}
    document.setdefault("id", uuid.uuid4().hex)
    return document


def _read(file: str) -> dict[str, Any]:
    name = "standard input" if file == "-" else file
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failure(USAGE, f"{name} cannot be read: {error.strerror}") from None
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(USAGE, f"{clean(name)} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Failure(USAGE, f"{clean(name)} must hold a JSON object, the reload document")
    return document

"""What all commands are told alike, and how each of them ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from flask_hotreload.cli.connection import Answer, Connection
from flask_hotreload.cli.credentials import VARIABLE, read_token
from flask_hotreload.cli.outcome import DONE, Failure, exit_code
from flask_hotreload.cli.printing import clean, note, out_json
from flask_hotreload.cli.report_text import print_error

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Asked:
    """Of which service, and how the answer is wanted."""

    url: str
    prefix: str
    token_file: str | None
    as_json: bool

    def connection(self) -> Connection:
        """With the token. Raise :class:`Failure`."""
        return Connection(self.url, self.prefix, read_token(self.token_file))

    def public_connection(self) -> Connection:
        """Without it, for what the service tells anybody."""
        return Connection(self.url, self.prefix)

    def get(self, route: str = "") -> Any:
        """What a control route answers. Raise :class:`Failure` for anything but 200."""
        return value_of(self.connection().control("GET", route))


def service_options(function: Command) -> Command:
    """``--url``, ``--prefix``, ``--token-file``, ``--json``, as the first argument, and the exit code of failures."""

    @functools.wraps(function)
    def command(url: str, prefix: str, token_file: str | None, as_json: bool, **options: Any) -> None:
        asked = Asked(url, "/" + prefix.strip("/"), token_file, as_json)
        try:
            code = function(asked, **options)
        except Failure as failure:
            code = _failed(failure, as_json=as_json)
        click.get_current_context().exit(code or DONE)

    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, nothing else."),
        click.option("--token-file", metavar="FILE", help="Holds the token; else it is HOTRELOAD_TOKEN's."),
        click.option(
            "--prefix", default="/_reload", show_default=True, envvar="HOTRELOAD_URL_PREFIX", metavar="PATH",
            help="Where the control routes are.",
        ),
        click.option(
            "--url", default="http://127.0.0.1:8000", show_default=True, envvar="HOTRELOAD_URL", metavar="URL",
            help="Of the service; also HOTRELOAD_URL.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command  # type: ignore[return-value]  # click calls it, by name


def value_of(answer: Answer) -> Any:
    """Raise :class:`Failure` for anything but 200."""
    if answer.status == 200:
        return answer.value
    told = answer.value if isinstance(answer.value, dict) else None
    unknown = f"the service does not know this token: is it that of {VARIABLE}, or of --token-file, there?"
    raise Failure(exit_code(answer.status), unknown if answer.status == 401 else answer.problem, answer=told)


def _failed(failure: Failure, *, as_json: bool) -> int:
    """Say why, as a compiler does where there is a place; return the exit code."""
    report = failure.answer.get("report") if failure.answer is not None else None
    if isinstance(report, dict) and report.get("error"):
        print_error(report["error"])
    else:
        note(f"error: {clean(failure.message)}", style="red")
    if as_json:
        out_json(failure.to_dict())
    return failure.code

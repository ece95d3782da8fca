"""Where the command line begins: for ``flask run`` and all else that only looks which commands there are, cheaply.

The commands need the extra ``cli``; without it they are an error that says so, and ``flask run`` goes on as ever.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

INTERRUPTED = 130  # as shells have it: 128 + SIGINT


class _LoadedWhenUsed(click.Group):
    """The group of :mod:`flask_hotreload.cli.commands`, imported when one of its commands is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._group().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._group().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        for output in (sys.stdout, sys.stderr):
            if hasattr(output, "reconfigure"):
                output.reconfigure(errors="replace")  # a letter that the terminal lacks is no failure
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    @staticmethod
    def _group() -> click.Group:
        try:
            group: click.Group = importlib.import_module("flask_hotreload.cli.commands").commands
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.startswith("flask_hotreload"):
                raise
            raise click.UsageError(
                f"the command line needs {error.name}: install it with pip install 'flask-hotreload[cli]'"
            ) from None
        return group


@click.command("hotreload", cls=_LoadedWhenUsed, context_settings={"help_option_names": ["-h", "--help"]})
def hotreload() -> None:
    """Reload the code of a running service, and tell what runs there.

    \b
    The exit code says what came of it:
      0  committed, checked, or nothing to do
      1  the new code is at fault
      2  the document or the command is wrong
      3  another reload is running, or --expect does not hold
      4  a worker or the workers' store has failed
      5  it took too long
      6  the service cannot be reached
      7  there is no token, or a wrong one
    """


def main() -> None:
    """The script ``flask-hotreload``."""
    hotreload(prog_name="flask-hotreload")

"""Where the token comes from. It is never printed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flask_hotreload.cli.outcome import TOKEN, Failure
from flask_hotreload.cli.printing import warn

VARIABLE = "HOTRELOAD_TOKEN"


def read_token(file: str | None) -> str:
    """That of ``file``, else of the environment; of several, as services may have them, the first.

    Raise :class:`Failure`. A file that others can read is warned of.
    """
    if file is not None:
        return _usable(_first(_content(Path(file)).replace("\n", ",")), file)
    token = _first(os.environ.get(VARIABLE, ""))
    if not token:
        raise Failure(TOKEN, f"no token: set {VARIABLE}, or name a file that holds it with --token-file")
    return _usable(token, VARIABLE)


def _content(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        content = file.read_text("utf-8")
    except OSError as error:
        raise Failure(TOKEN, f"the token file cannot be read: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(TOKEN, f"the token file is no text: {file}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"others can read the token file {file} (mode {stat.S_IMODE(mode):04o}); chmod 600 it")
    return content


def _first(tokens: str) -> str:
    return next((token.strip() for token in tokens.split(",") if token.strip()), "")


def _usable(token: str, where: str) -> str:
    if not token:
        raise Failure(TOKEN, f"there is no token in {where}")
    if not (token.isascii() and token.isprintable()):
        raise Failure(TOKEN, f"what {where} holds cannot be a token: it has characters that no header can carry")
    return token

"""The tutorial as it stands: its files are saved, its commands run in one shell, and what they print is compared."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster import state, until
from wheels import build_wheel

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tutorial.rst"
BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n(?:    :caption: (?P<name>\S+)\n)?\n"
    r"(?P<text>(?:    .*\n|\n)+)",
    re.MULTILINE,
)
ADDRESS = "127.0.0.1:8000"
PATIENCE = 110.0  # seconds for all of it


class Block(NamedTuple):
    """``language`` sh: commands; text: what those before it print; python: a file of that name."""

    language: str
    name: str | None
    text: str


def blocks() -> list[Block]:
    return [
        Block(match["language"], match["name"], textwrap.dedent(match["text"]).strip() + "\n")
        for match in BLOCK.finditer(PAGE.read_text("utf-8"))
    ]


def script_of(every: list[Block], address: str) -> str:
    """All commands, in their order; before the output of each block comes a line with its number."""
    lines = ["set -eu"]
    for number, block in enumerate(every):
        text = block.text.replace(ADDRESS, address)
        if block.language == "python":
            lines.append(f"cat > {block.name} <<'END OF FILE'\n{text}END OF FILE")
        elif block.language == "sh":
            lines.append(f"printf '\\n@@ {number}\\n'\n{text}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where it is run; whatever happens, neither clients nor server outlive the test."""
    shop = tmp_path / "shop"
    pid_file = shop / "gunicorn.pid"
    yield tmp_path
    shop.mkdir(exist_ok=True)
    (shop / "enough").touch()
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError):
        return
    until(lambda: state(pid) in ("Z", None), "the server does not end")


def matches(shown: str, printed: str) -> bool:
    """Whether it was printed as shown, where ``…`` stands for anything within a line."""
    pattern = ".*".join(map(re.escape, shown.strip().split("…")))
    return re.fullmatch(pattern, printed.strip()) is not None


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a shell that knows neither this environment's packages nor its settings."""
    left_out = ("PYTHON", "HOTRELOAD", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(sys.executable)
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    (folder / "home").mkdir()
    environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "home"), "XDG_RUNTIME_DIR": ""}
    (folder / "source").mkdir()
    wheel = build_wheel(folder / "source")
    environment["PIP_FIND_LINKS"] = f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}"
    return subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_every_command_of_the_tutorial_prints_what_it_shows(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    every = blocks()
    done = run(script_of(every, address), folder)
    log = folder / "shop" / "gunicorn.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    parts = re.split(r"\n@@ (\d+)\n", done.stdout)
    printed = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    for number, block in enumerate(every):
        if block.language == "sh":
            below = every[number + 1] if number + 1 < len(every) else block
            shown = below.text if below.language == "text" else ""
            assert matches(shown, printed[number]), (block.text, printed[number], done.stderr)


def test_each_output_that_the_tutorial_shows_stands_below_commands() -> None:
    languages = [block.language for block in blocks()]
    for number, language in enumerate(languages):
        assert language in ("sh", "text", "python")
        assert language != "text" or languages[number - 1] == "sh"

"""The label of a reload that is given none: what git calls the source in the working folder."""

from __future__ import annotations

import subprocess


def default_label() -> str | None:
    """``git describe --always --dirty --tags``; ``None`` outside of a repository, or without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--tags"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.decode(errors="replace").strip() or None if described.returncode == 0 else None

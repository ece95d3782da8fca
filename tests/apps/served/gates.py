"""Places where the service says that it is there, and waits until the test lets it go on."""

from __future__ import annotations

import time
from pathlib import Path

FOLDER = Path(__file__).parent / "gates"


def passed(name: str) -> None:
    """Wait at the gate ``name`` if the test has closed it; the file ``name.reached`` tells that somebody is there."""
    closed = FOLDER / f"{name}.closed"
    deadline = time.monotonic() + 60
    while closed.exists():
        (FOLDER / f"{name}.reached").touch()
        time.sleep(0.005)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the test never opened {name}")

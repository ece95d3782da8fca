"""The named steps of a transaction."""

from __future__ import annotations


def at_step(name: str) -> None:
    """Does nothing. It is called at each step at which a process may die or stop, and tests make that happen here."""

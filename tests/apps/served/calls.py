from __future__ import annotations

from gates import passed


def edition() -> int:
    return 1


def hold(server, module, dispatcher) -> None:
    passed("apply")

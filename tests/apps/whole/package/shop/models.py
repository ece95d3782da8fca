from __future__ import annotations

from dataclasses import dataclass

EDITION = 0


@dataclass(frozen=True)
class Item:
    name: str
    edition: int = EDITION


class UnknownItemError(LookupError):
    edition = EDITION

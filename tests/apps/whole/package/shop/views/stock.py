from __future__ import annotations

from flask import Blueprint

from ..models import Item, UnknownItemError

EDITION = 0
stock = Blueprint("stock", __name__)


@stock.get("/stock")
def editions(item: Item | None = None) -> int:
    if not isinstance(item, Item):
        raise TypeError("an item of another generation")
    return EDITION


def find(name: str) -> Item:
    raise UnknownItemError(name)

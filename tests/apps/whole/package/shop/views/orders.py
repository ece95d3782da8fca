from __future__ import annotations

from flask import Blueprint, current_app

from .. import pricing
from ..models import Item, UnknownItemError
from ..watch import answer, pause
from .stock import find

EDITION = 0
orders = Blueprint("orders", __name__)


@orders.post("/api")
def order() -> dict:
    pause()
    from .. import late

    item = Item("tea")
    editions = [EDITION, item.edition, pricing.price(item), current_app.config["EDITION_OF_SETTINGS"]]
    try:
        find("coffee")
    except UnknownItemError as error:
        editions.append(error.edition)
    return answer(*editions, *late.look(item), *map(current_app.view_functions["stock.editions"], [item]))

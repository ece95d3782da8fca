"""All in one file, and in the ways in which code finds its own classes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import get_type_hints

import watch
from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

EDITION = 0


class Size(Enum):
    SMALL = EDITION
    LARGE = EDITION + 1


class OutOfStockError(Exception):
    edition = EDITION


class Item:
    def edition(self) -> int:
        return EDITION


class Tea(Item):
    def edition(self) -> int:
        return super().edition()


@dataclass
class Order:
    item: Item
    size: Size = Size.SMALL
    editions: list[int] = field(default_factory=list)


@app.errorhandler(OutOfStockError)
def out_of_stock(error: OutOfStockError) -> dict:
    return watch.answer(error.edition, *error.args)


@app.post("/api")
def order() -> dict:
    watch.pause()
    module = import_module(__name__)
    made = Order(module.Tea())
    if not isinstance(made.item, Item) or made.size is not module.Size.SMALL:
        raise TypeError("a class of another generation")
    if get_type_hints(Order)["size"] is not Size or sys.modules[__name__].Order is not Order:
        raise TypeError("a name leads to another generation")
    raise module.OutOfStockError(made.item.edition(), made.size.value, Size(EDITION).value)


@rpc.dispatcher("/rpc")
def edition() -> int:
    return EDITION


watch.begin(app)

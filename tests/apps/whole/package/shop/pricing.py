"""Circular with the models' user, and imports inside of functions."""

from . import models

EDITION = 0


def price(item: models.Item) -> int:
    from .models import Item

    if not isinstance(item, Item):
        raise TypeError("an item of another generation")
    return EDITION

"""A request is the first to import it."""

import prices

EDITION = 0


async def look() -> int:
    from prices import price

    if await price("tea") != prices.EDITION:
        raise RuntimeError("prices of another generation")
    return EDITION


def in_thread() -> int:
    import importlib

    return importlib.import_module("prices").EDITION

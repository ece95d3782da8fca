"""Views that are coroutines."""

from __future__ import annotations

import asyncio

import watch
from flask import Flask
from prices import price

from flask_hotreload import HotRPC

EDITION = 0
app = Flask(__name__)
rpc = HotRPC(app)


@app.before_request
async def before() -> None:
    await asyncio.sleep(0)


@app.post("/api")
async def order() -> dict:
    first, second = await asyncio.gather(price("tea"), price("coffee"))
    await asyncio.sleep(0.02)  # a reload may overtake the request that works here
    import late

    return watch.answer(EDITION, first, second, await late.look(), await asyncio.to_thread(late.in_thread))


@rpc.dispatcher("/rpc")
async def edition() -> int:
    return EDITION


watch.begin(app)

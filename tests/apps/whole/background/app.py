"""A thread in the background, which ends with the generation that has started it."""

from __future__ import annotations

import watch
from flask import Flask
from ticker import Ticker

from flask_hotreload import HotRPC

EDITION = 0
app = Flask(__name__)
rpc = HotRPC(app)
ticks = rpc.keep("ticks", dict)

ticker = Ticker(ticks)
rpc.on_retire(ticker.stop)
ticker.start()


@app.post("/api")
def tick() -> dict:
    watch.pause()
    return watch.answer(EDITION, ticker.edition, ticker.ask())


watch.begin(app)

import last  # noqa: E402, F401  # what fails there fails after the thread has begun

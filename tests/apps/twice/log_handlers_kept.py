"""A logger takes the same handler once."""

import logging

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

log = logging.getLogger("twice")
log.addHandler(rpc.keep("orders.log", lambda: logging.FileHandler("orders.log")))


@rpc.dispatcher("/api")
def order() -> None:
    log.warning("an order")

"""A logger is the process's: each generation adds one more handler to it."""

import logging

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

log = logging.getLogger("twice")
log.addHandler(logging.FileHandler("orders.log"))


@rpc.dispatcher("/api")
def order() -> None:
    log.warning("an order")

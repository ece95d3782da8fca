"""A collector enters the process's registry, which has one of that name when the module is imported anew."""

from flask import Flask
from prometheus_client import Counter

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

ORDERS = Counter("twice_bare_orders", "Orders taken")


@rpc.dispatcher("/api")
def order() -> None:
    ORDERS.inc()

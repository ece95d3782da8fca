"""A kept collector enters the registry once, and counts on."""

from flask import Flask
from prometheus_client import Counter

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

ORDERS = rpc.keep("orders", lambda: Counter("twice_kept_orders", "Orders taken"))


@rpc.dispatcher("/api")
def order() -> None:
    ORDERS.inc()

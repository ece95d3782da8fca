"""At the end of the process the callbacks of all generations run, each with what its own module holds."""

import atexit

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

orders: list[str] = []


@atexit.register
def save() -> None:
    print("saved", orders)


@rpc.dispatcher("/api")
def order(what: str) -> None:
    orders.append(what)

"""A retired generation takes its callback back; what is to be saved is kept."""

import atexit

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

orders: list[str] = rpc.keep("orders", list)


@atexit.register
def save() -> None:
    print("saved", orders)


rpc.on_retire(lambda: atexit.unregister(save))


@rpc.dispatcher("/api")
def order(what: str) -> None:
    orders.append(what)

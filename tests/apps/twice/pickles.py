"""A request that runs on old code pickles one of its own objects."""

import pickle
from threading import Barrier

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

inside = rpc.keep("inside", lambda: Barrier(2))
reloaded = rpc.keep("reloaded", lambda: Barrier(2))


class Order: ...


@rpc.dispatcher("/api")
def slow() -> str:
    order = Order()
    inside.wait(10)
    reloaded.wait(10)
    try:
        return type(pickle.loads(pickle.dumps(order))).__name__
    except pickle.PicklingError as error:
        return str(error)

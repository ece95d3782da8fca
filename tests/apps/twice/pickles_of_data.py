"""What is pickled is plain data: there is no class to look up."""

import pickle
from dataclasses import asdict, dataclass
from threading import Barrier

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

inside = rpc.keep("inside", lambda: Barrier(2))
reloaded = rpc.keep("reloaded", lambda: Barrier(2))


@dataclass
class Order:
    number: int


@rpc.dispatcher("/api")
def slow() -> int:
    order = Order(7)
    inside.wait(10)
    reloaded.wait(10)
    return Order(**pickle.loads(pickle.dumps(asdict(order)))).number

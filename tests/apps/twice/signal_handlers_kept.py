"""The handler is set once, when the process starts; what it calls is looked up when the signal comes."""

import importlib
import signal

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

EDITION = 0
seen = rpc.keep("seen", list)


def set_handler() -> object:
    module = __name__
    return signal.signal(signal.SIGWINCH, lambda *_: importlib.import_module(module).size_changed())


def size_changed() -> None:
    seen.append(EDITION)


rpc.keep("the handler of SIGWINCH", set_handler)


@rpc.dispatcher("/api")
def order() -> None: ...

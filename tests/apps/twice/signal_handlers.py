"""Python sets signal handlers on the main thread only, and a reload imports on a thread of its own."""

import signal

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

signal.signal(signal.SIGWINCH, lambda *_: print("size changed"))


@rpc.dispatcher("/api")
def order() -> None: ...

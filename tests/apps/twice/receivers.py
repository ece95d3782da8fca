"""Flask's signals are the process's: the receivers of the generations that stay in memory are called too."""

from flask import Flask, request_started

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

EDITION = 0
started = rpc.keep("started", list)


@request_started.connect
def note(sender: Flask) -> None:
    started.append(EDITION)


@rpc.dispatcher("/api")
def order() -> None: ...

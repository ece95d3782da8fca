"""A receiver connected to one application is called for that one's requests only."""

from flask import Flask, request_started

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

EDITION = 0
started = rpc.keep("started", list)


def note(sender: Flask) -> None:
    started.append(EDITION)


request_started.connect(note, app)


@rpc.dispatcher("/api")
def order() -> None: ...

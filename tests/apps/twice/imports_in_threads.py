"""A thread begins in no generation: what it imports is what serves, while its own code is not committed yet."""

from threading import Thread

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

noted = rpc.keep("noted", list)


def note() -> None:
    from timetable import EDITION

    noted.append(EDITION)


thread = Thread(target=note)
thread.start()
thread.join()


@rpc.dispatcher("/api")
def order() -> None: ...

"""What a thread needs is imported at the top, by the module that starts it."""

from threading import Thread

from flask import Flask
from timetable import EDITION

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

noted = rpc.keep("noted", list)


def note() -> None:
    noted.append(EDITION)


thread = Thread(target=note)
thread.start()
thread.join()


@rpc.dispatcher("/api")
def order() -> None: ...

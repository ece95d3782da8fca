"""Each generation starts a thread and a timer, and no one ends those of the generations before."""

from threading import Event, Thread, Timer

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

ended = Event()
thread = Thread(target=ended.wait, name="twice-ticker", daemon=True)
thread.start()
timer = Timer(3600, ended.set)
timer.name = "twice-timer"
timer.daemon = True
timer.start()


@rpc.dispatcher("/api")
def order() -> None: ...

"""What a generation has started ends when its last request has left."""

from threading import Event, Thread, Timer

from flask import Flask

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

ended = Event()
rpc.on_retire(ended.set)
thread = Thread(target=ended.wait, name="twice-ticker", daemon=True)
thread.start()
timer = Timer(3600, ended.set)
timer.name = "twice-timer"
timer.daemon = True
rpc.on_retire(timer.cancel)
timer.start()


@rpc.dispatcher("/api")
def order() -> None: ...

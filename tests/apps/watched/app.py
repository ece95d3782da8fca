"""A service that tells by which code it answers, and what it remembers of before."""

import os
import time
from pathlib import Path

import state
import views
from flask import Flask

from flask_hotreload import HotRPC

HERE = Path(__file__).parent

app = Flask(__name__)
rpc = HotRPC(app)
kept = rpc.keep("visits", list)


@app.get("/")
def home() -> dict:
    kept.append(1)
    state.visits += 1
    return {"edition": views.edition(), "kept": len(kept), "visits": state.visits, "pid": os.getpid()}


@app.get("/slow")
def slow() -> dict:
    """Answers once the gate is open, by the code that it began with."""
    (HERE / "slow.reached").touch()
    while not (HERE / "slow.open").exists():
        time.sleep(0.01)
    return {"edition": views.edition()}

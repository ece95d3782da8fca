"""A service whose answers tell by which code, generation and process they were given."""

import os
from multiprocessing import get_context

import state
import where
from flask import Flask

from flask_hotreload import HotReloadError, HotRPC

if "CLUSTER_STOPS" in os.environ:
    import stops

    stops.install()

app = Flask(__name__)
rpc = HotRPC(app)
rpc.register_function(where.where, "/api")
rpc.register_function(state.served, "/api")


@rpc.dispatcher("/api")
def reload_inside(document: dict) -> dict:
    return rpc.reload(**document).to_dict()


@rpc.dispatcher("/api")
def reload_unsendable(what: str) -> str:
    """Try to reload with what only this process has; return the refusal."""
    overload = {"lambda": lambda server, module, dispatcher: None, "object": {"handle": object()}}[what]
    entry = {"dispatcher": "where", "scriptPath": "where.py", "path": "/api", "overload": overload}
    try:
        rpc.reload([entry])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it was sent"


@rpc.dispatcher("/api")
def reload_in_children() -> dict:
    """What a reload comes to in each kind of child: an error, or the number of workers that took part."""
    answers = {}
    for method in ("fork", "spawn"):
        context = get_context(method)
        here, there = context.Pipe()
        process = context.Process(target=tell_of_reload, args=(there,))
        process.start()
        answers[method] = here.recv()
        process.join()
    return answers


def tell_of_reload(connection) -> None:
    try:
        report = rpc.reload([{"dispatcher": "where", "scriptPath": "where.py", "path": "/api"}])
        connection.send([worker.pid for worker in report.workers] == [os.getpid()])
    except HotReloadError as error:
        connection.send(type(error).__name__)


@app.get("/health")
def health() -> dict:
    return {"pid": os.getpid(), "generation": rpc.generation}

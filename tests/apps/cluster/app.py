"""A service whose answers tell by which code, generation and process they were given."""

import os

from flask import Flask, request
from flask_hotreload import HotRPC

import state
import where

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
def started() -> int:
    """When this process began to serve, by how many requests it has answered."""
    return state.requests


@app.before_request
def count() -> None:
    if request.path != "/health":
        state.requests += 1


@app.get("/health")
def health() -> dict:
    return {"pid": os.getpid(), "generation": rpc.generation}

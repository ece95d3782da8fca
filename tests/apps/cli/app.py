"""A service for the command line: reloads that can be stopped, and an API that describes itself."""

import os

import edition
from flask import Flask

from flask_hotreload import HotRPC, JSONRPCError

app = Flask(__name__)
rpc = HotRPC(app)
rpc.register_function(edition.edition, "/api")


@rpc.dispatcher("/api")
def add(left: int, right: int = 1) -> int:
    return left + right


@rpc.dispatcher("/api")
def fail() -> None:
    raise JSONRPCError(7, "no tea", {"kettle": "cold"})


@rpc.dispatcher("/api")
def wait(inside: str, pipe: str) -> str:
    """Write into one named pipe that the request is inside; answer when somebody writes into the other."""
    with open(inside, "w"):
        pass
    with open(pipe) as opened:
        return opened.read()


@app.get("/health")
def health() -> dict:
    return {"pid": os.getpid(), "generation": rpc.generation}


@app.get("/described/openrpc.json")
def described() -> dict:
    """What an API says of itself, by OpenRPC 1.4."""
    return {
        "openrpc": "1.4.0",
        "info": {"title": "described", "version": "1"},
        "methods": [
            {
                "name": "price",
                "summary": "What an item costs.",
                "description": "In cents.\nWithout tax.",
                "params": [
                    {"name": "item", "required": True, "schema": {"type": "string"}, "description": "Its name."},
                    {"name": "count", "schema": {"type": "integer", "default": 1}},
                    {"name": "tags", "schema": {"type": "array", "items": {"type": "string"}}},
                ],
                "result": {"name": "result", "schema": {"type": "integer"}},
            },
            {"name": "items", "params": []},
        ],
    }

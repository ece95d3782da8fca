"""A service under test in real servers: it waits for files, which works in whichever kind of worker."""

from __future__ import annotations

import calls
import state
from flask import Flask, Response
from gates import passed

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)
rpc.register_function(calls.edition, "/api")
rpc.register_function(state.count, "/api")


@app.get("/slow")
def slow() -> dict[str, int]:
    passed("slow")
    return {"edition": rpc.get("edition", "/api")(), "generation": rpc.generation}


@app.get("/endless")
def endless() -> Response:
    def chunks():
        while True:
            passed("endless")
            yield b"x" * 65536

    return Response(chunks(), content_type="application/octet-stream")

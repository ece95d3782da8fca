"""A bureau de change: the application. Start it with ``gunicorn -w 4 example_app.app:app``.

Everything here is ordinary Flask, plus three ways to make something callable by JSON-RPC 2.0:

* a function registered from another module (``rates.py`` knows nothing of Flask),
* the methods of an object that has a state (``ledger.py``),
* a decorated function, as below.

A dispatcher can be reloaded by ``POST /_reload`` with the token from ``HOTRELOAD_TOKEN``, on every worker at once.
"""

from __future__ import annotations

import os

from flask import Flask, Response

from flask_hotreload import HotRPC

from . import ledger, rates

app = Flask(__name__)
rpc = HotRPC(app)

for function in (rates.currencies, rates.quote, rates.convert, rates.interbank):
    rpc.register_function(function, path="/api")

# lock=True: one deposit at a time, so Ledger.deposit needs no lock of its own. The lock outlives a reload.
# The books are kept by the process: a reload of the whole source makes a new ledger, which goes on with them.
rpc.register_instance(ledger.Ledger(rpc.keep("books", dict)), path="/ledger", lock=True)


@rpc.dispatcher("/api")
def generation() -> int:
    """How many reloads the service has seen. A request sees one generation, from its start to its end."""
    return rpc.generation


@app.after_request
def name_the_worker(response: Response) -> Response:
    """Tell which process has answered, as one likes to know when there are several."""
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/health")
def health() -> dict[str, str]:
    """Answer a load balancer. An ordinary view: a reload holds it like any other request."""
    return {"status": "ok"}

"""An application behind the bare middleware, with a path outside of it that tells who is inside."""

from __future__ import annotations

import os
import tempfile
from types import SimpleNamespace

import gunicorn.http.wsgi
from flask import Flask, Response, request, send_file

from flask_hotreload.middleware import HotReloadMiddleware
from flask_hotreload.rwlock import ReadersWriterLock

app = Flask(__name__)
lock = ReadersWriterLock()
FILE = tempfile.NamedTemporaryFile(suffix=".bin")  # noqa: SIM115  # as long as the process
FILE.write(os.urandom(1_000_000))
FILE.flush()
sent = []  # what gunicorn's sendfile() returned each time: whether it sent the file by itself


def recorded(self, respiter, original=gunicorn.http.wsgi.Response.sendfile):
    sent.append(original(self, respiter))
    return sent[-1]


gunicorn.http.wsgi.Response.sendfile = recorded


@app.get("/")
def hello():
    return "hello"


@app.get("/endless")
def endless():
    def chunks():
        while True:
            yield b"x" * 65536

    return Response(chunks(), mimetype=request.args.get("type", "application/octet-stream"))


@app.get("/file")
def file():
    return send_file(FILE.name, mimetype="application/octet-stream")


def control(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [f'{{"inside": {lock.in_flight}, "sent": {str(sent).lower()}}}'.encode()]


served = SimpleNamespace(lock=lock, current=SimpleNamespace(wsgi_app=app.wsgi_app))
app.wsgi_app = HotReloadMiddleware(served, control=control, prefix="/_status")

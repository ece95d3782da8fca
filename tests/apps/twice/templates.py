"""A generation reads a template when it first renders it, from the disk."""

from flask import Flask, render_template

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

EDITION = 0


@app.get("/")
def home() -> str:
    return render_template("home.html", edition=EDITION)

"""Pages from templates, with a filter and a hook of the application's own."""

from __future__ import annotations

import filters
import watch
from flask import Flask, g, render_template

from flask_hotreload import HotRPC

EDITION = 0
app = Flask(__name__)
rpc = HotRPC(app)
app.register_blueprint(filters.filters)


@app.before_request
def before() -> None:
    g.edition = EDITION


@app.context_processor
def context() -> dict:
    return {"edition_of_context": EDITION}


@app.post("/api")
def page() -> dict:
    watch.pause()
    editions = [int(edition) for edition in render_template("page.html", filtered="").split()]
    return watch.answer(g.edition, *editions)


watch.begin(app)
for name in app.jinja_env.list_templates(["html"]):
    app.jinja_env.get_template(name)

"""All templates are read when the generation is made, and not again."""

from flask import Flask, render_template

from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

EDITION = 0
for name in app.jinja_env.list_templates(["html"]):
    app.jinja_env.get_template(name)


@app.get("/")
def home() -> str:
    return render_template("home.html", edition=EDITION)

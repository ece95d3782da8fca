"""How the application is found again when the whole source is reloaded: under the servers that people start."""

from __future__ import annotations

import pytest
import requests
from servers import serve

TOKEN = "0123456789abcdef-test"
PATIENCE = 30.0

SIMPLE = """
from flask import Flask
from flask_hotreload import HotRPC

app = Flask(__name__)
rpc = HotRPC(app)

@app.get("/")
def home():
    return "plain EDITION"

@rpc.dispatcher("/api")
def edition() -> int:
    return EDITION
"""

FACTORY = """
from flask import Flask
from flask_hotreload import HotRPC

rpc = HotRPC()

@rpc.dispatcher("/api")
def edition() -> int:
    return EDITION

def create_app(name="plain"):
    app = Flask(__name__)
    rpc.init_app(app)

    @app.get("/")
    def home():
        return f"{name} EDITION"

    return app
"""

TWICE = """
from flask import Flask
from flask_hotreload import HotRPC

def edition() -> int:
    return EDITION

def create_app(name="plain"):
    app = Flask(__name__)
    HotRPC(app).register_function(edition, "/api")
    app.add_url_rule("/", view_func=lambda: f"{name} EDITION")
    return app

spare = create_app()
"""

RUN = """
if __name__ == "__main__":
    import os
    app.run(port=int(os.environ["PORT"]))
"""

WAITRESS = """
if __name__ == "__main__":
    import os, waitress
    waitress.serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4)
"""

CUSTOM = """
import os
from gunicorn.app.base import BaseApplication

class Server(BaseApplication):
    def __init__(self, app):
        self.app = app
        super().__init__()

    def load_config(self):
        self.cfg.set("bind", f"127.0.0.1:{os.environ['PORT']}")
        self.cfg.set("control_socket_disable", True)

    def load(self):
        return self.app
"""

BY_OBJECT = (
    "if __name__ == '__main__':\n    from web import app\n    from server import Server\n    Server(app).run()\n"
)
IN_A_LOCAL = """
if __name__ == '__main__':
    from server import Server
    import web
    Server(web.create_app("x")).run()
"""

IN_THE_FACTORY = """
from pkg import create_app
app = create_app("x")
"""

#: name → kind of server, what it is given, files.
PLAIN = {
    "gunicorn app:app": ("gunicorn", "app:app", {"app.py": SIMPLE}),
    "gunicorn app:application": ("gunicorn", "app", {"app.py": SIMPLE + "\napplication = app\n"}),
    "gunicorn pkg.wsgi:app": (
        "gunicorn",
        "pkg.wsgi:app",
        {"pkg/__init__.py": FACTORY, "pkg/wsgi.py": IN_THE_FACTORY},
    ),
    "gunicorn app:create_app()": ("gunicorn", "app:create_app()", {"app.py": FACTORY}),
    "gunicorn app:create_app('x')": ("gunicorn", "app:create_app('x')", {"app.py": FACTORY}),
    "gunicorn app:create_app(name='x')": ("gunicorn", "app:create_app(name='x')", {"app.py": FACTORY}),
    "gunicorn app:wrapped": (
        "gunicorn",
        "app:wrapped",
        {"app.py": SIMPLE + "\nfrom werkzeug.middleware.proxy_fix import ProxyFix\nwrapped = ProxyFix(app)\n"},
    ),
    "gunicorn app:create_app('x') beside a spare": (
        "gunicorn",
        "app:create_app('x')",
        {"app.py": TWICE},
    ),
    "flask --app app": ("flask", "app", {"app.py": SIMPLE}),
    "flask --app app:create_app('x')": ("flask", "app:create_app('x')", {"app.py": FACTORY}),
    "flask --app app.py": ("flask", "app.py", {"app.py": SIMPLE}),
    "flask, app.py": ("flask", "", {"app.py": SIMPLE}),
    "flask, wsgi.py": ("flask", "", {"wsgi.py": SIMPLE}),
    "flask, a factory in app.py": ("flask", "", {"app.py": FACTORY}),
    "flask, a factory in pkg": ("flask", "pkg", {"pkg/__init__.py": FACTORY}),
    "python app.py, app.run": ("python", "app.py", {"app.py": SIMPLE + RUN}),
    "python app.py, waitress": ("python", "app.py", {"app.py": SIMPLE + WAITRESS}),
    "python app.py, a factory": ("python", "app.py", {"app.py": FACTORY + "\napp = create_app('x')\n" + RUN}),
    "waitress": ("waitress", "app:app", {"app.py": SIMPLE}),
    "a gunicorn application": ("python", "start.py", {"web.py": SIMPLE, "server.py": CUSTOM, "start.py": BY_OBJECT}),
}


class Site:
    def __init__(self, folder, files):
        self.folder = folder
        self.files = files
        self.url = ""

    def write(self, edition):
        for path, text in self.files.items():
            file = self.folder / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(text.replace("EDITION", str(edition)))

    def home(self):
        return requests.get(self.url + "/", timeout=PATIENCE).text

    def edition(self):
        body = {"jsonrpc": "2.0", "id": 1, "method": "edition"}
        return requests.post(self.url + "/api", json=body, timeout=PATIENCE).json()["result"]

    def reload(self):
        return self.post("")

    def post(self, route):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(f"{self.url}/_reload{route}", headers=headers, timeout=PATIENCE)


def started(site, kind, app, *, options=(), **env):
    settings = {"HOTRELOAD_TOKEN": TOKEN, "HOTRELOAD_COORDINATOR": "local", **env}
    return serve(kind, app=app, cwd=site.folder, options=options, env=settings)


CASES = [(name, ()) for name in PLAIN] + [(name, ("--preload",)) for name in PLAIN if name.startswith("gunicorn app")]
CASES += [("gunicorn app:app", ("--worker-class", kind)) for kind in ("sync", "gevent")]


@pytest.mark.parametrize(("name", "options"), CASES, ids=[" ".join([name, *options]) for name, options in CASES])
def test_the_application_is_made_again_as_the_server_has_made_it(tmp_path, name, options):
    kind, app, files = PLAIN[name]
    site = Site(tmp_path, files)
    site.write(1)
    with started(site, kind, app, options=options) as server:
        site.url = server.url
        home = site.home()
        assert home in ("plain 1", "x 1")
        assert site.edition() == 1
        for edition in (2, 3):
            site.write(edition)
            answer = site.reload()
            assert answer.status_code == 200, answer.text
            assert answer.json()["status"] == "committed"
            assert site.home() == home.replace("1", str(edition))
            assert site.edition() == edition
        assert site.post("/rollback").json()["restores"] == 1
        assert site.home() == home.replace("1", "2")


@pytest.mark.parametrize("setting", ["", "web:create_app('x')"])
def test_an_application_that_no_name_leads_to_is_found_by_the_setting_that_the_error_names(tmp_path, setting):
    site = Site(tmp_path, {"web.py": FACTORY, "server.py": CUSTOM, "start.py": IN_A_LOCAL})
    site.write(1)
    with started(site, "python", "start.py", HOTRELOAD_APPLICATION=setting) as server:
        site.url = server.url
        site.write(2)
        answer = site.reload()
        if setting:
            assert answer.json()["status"] == "committed"
            assert site.home() == "x 2"
        else:
            assert answer.status_code == 422
            assert "HOTRELOAD_APPLICATION" in answer.json()["detail"]
            assert site.home() == "x 1"


@pytest.mark.parametrize(
    ("env", "works"),
    [
        ({}, False),
        ({"HOTRELOAD_ROOTS": "."}, True),
        ({"HOTRELOAD_APPLICATION": "pkg:create_app('x')"}, True),
    ],
)
def test_an_entry_file_outside_of_the_roots_needs_one_of_the_settings_that_the_error_names(tmp_path, env, works):
    site = Site(tmp_path, {"pkg/__init__.py": FACTORY, "wsgi.py": IN_THE_FACTORY})
    site.write(1)
    with started(site, "gunicorn", "wsgi:app", **env) as server:
        site.url = server.url
        site.write(2)
        answer = site.reload()
        assert (answer.status_code == 200) == works, answer.text
        assert site.home() == ("x 2" if works else "x 1")
        if not works:
            assert "HOTRELOAD_ROOTS" in answer.json()["detail"]
            assert "HOTRELOAD_APPLICATION" in answer.json()["detail"]

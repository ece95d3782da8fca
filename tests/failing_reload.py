"""A service, a reload of it that fails, requests meanwhile, and a look at everything that the reload could leave.

The first entry of each document is sound: it brings a new API path and new modules, and a callback of it changes
globals. The second one fails.
"""

import contextlib
import sys
import threading

import pytest
from conftest import call, until

from flask_hotreload import ReloadError
from flask_hotreload.interpreter import interpreter

APP = """
import threading
VERSION = 1
entered, leave, gate = threading.Semaphore(0), threading.Event(), threading.Lock()

@rpc.dispatcher("/api")
def version() -> list:
    return [VERSION, kept()]

@rpc.dispatcher("/api")
def slow() -> int:
    entered.release()
    assert leave.wait(30)
    return VERSION

def kept() -> str:
    return "as it was"

@app.get("/home")
def home():
    return f"home {VERSION}"

@app.post("/taken")
def taken():
    return "view"

def change(server, module, dispatcher):
    global VERSION, kept
    VERSION, kept = 2, module.sound
    module.LIVE_NAME = globals()["added"] = 1
    globals().pop("removed", None)

removed = "something"
"""

SOUND = """
import sound_part
def sound() -> str: return "new"
def fail(server, module, dispatcher):
    raise ValueError("a callback's own fault")
"""


def serve(site, **limits):
    """Serve :data:`APP` with these settings; the parts of the reload's entries lie beside it."""
    site.serve(APP, **limits)
    site.write("sound.py", SOUND)
    site.write("sound_part.py", "PART = 1")
    site.write("broken_part.py", "NAME = 1\n[][5]  # here")
    return site


def sound(service, *, callbacks=()):
    name = f"{service.name}:change"
    return {"dispatcher": "sound", "scriptPath": "sound.py", "path": "/new/api", "overload": [name, *callbacks]}


def other(**keys):
    return {"dispatcher": "other", "scriptPath": "other.py", "path": "/api", **keys}


def write(service, code):
    """Write the failing script; return its path and, if there is one, the line at fault."""
    file = service.folder / "other.py"
    file.write_bytes(code.encode("utf-8", "surrogateescape"))
    line = next((number for number, text in enumerate(code.split("\n"), 1) if "# here" in text), None)
    return str(file), line


# Who asks meanwhile ----------------------------------------------------------------------------------------------


class Askers:
    """Threads that ask the same questions again and again; each answer has to be the old one."""

    def __init__(self, app, count=3):
        self._app = app
        self._stop = threading.Event()
        self._rounds = [0] * count
        self.wrong = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]

    def _ask(self, number):
        client = self._app.test_client()
        try:
            while not self._stop.is_set():
                answers = self._answers(client)
                if answers != ([1, "as it was"], "home 1", 404):
                    self.wrong.append(answers)
                self._rounds[number] += 1
                self._stop.wait(0.002)  # a breath, so that the reload gets the processor as well
        except BaseException as error:
            self.wrong.append(error)

    @staticmethod
    def _answers(client):
        with client.get("/home") as home, client.post("/new/api") as missing:
            return call(client, "version"), home.text, missing.status_code

    def go_on(self):
        """Return once each has had all answers twice more: nobody is held."""
        before = list(self._rounds)
        pairs = list(enumerate(before))
        until(lambda: self.wrong or all(self._rounds[i] >= was + 2 for i, was in pairs), "somebody is held")
        assert self.wrong == []

    @contextlib.contextmanager
    def asking(self):
        for thread in self._threads:
            thread.start()
        try:
            self.go_on()
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(20)


class Everything:
    """All that a failed reload could leave behind, as it is now."""

    def __init__(self, service):
        app, live = service.app, interpreter.live.copy()
        known = sys.stdlib_module_names | set(sys.builtin_module_names)  # which Python itself may import at any time
        self.modules = {name: module for name, module in live.items() if name.partition(".")[0] not in known}
        self.namespaces = {
            name: vars(module).copy()
            for name, module in live.items()
            if (getattr(module, "__file__", None) or "").startswith(str(service.folder))
        }
        self.views = app.view_functions.copy()
        self.routes = app.url_map
        self.rules = [repr(rule) for rule in app.url_map.iter_rules()]
        self.setup = app.before_request_funcs.copy(), app.extensions.copy(), app.wsgi_app
        self.dispatchers = service.rpc.status()["dispatchers"]
        self.threads = {thread for thread in threading.enumerate() if thread.name.startswith("hotreload-")}
        self.generation = service.rpc.generation

    def check(self, service):
        now = Everything(service)
        for what, before in vars(self).items():
            assert vars(now)[what] == before, what
        assert now.routes is self.routes
        reloader = service.rpc._service.reloader
        assert not reloader.lock.closed
        assert reloader.lock.held == 0


def reload_that_fails(service, *entries, error, **document):
    """Reload under requests; return what it raised, everything being as it was."""
    with Askers(service.app).asking() as askers:
        before = Everything(service)
        with pytest.raises(ReloadError) as caught:
            service.rpc.reload(list(entries), **document)
        askers.go_on()
        before.check(service)
    assert type(caught.value) is error
    report = caught.value.report
    assert (report.status, report.generation, report.error.type) == ("aborted", 0, error.__name__)
    assert service.rpc.status()["tainted"] is None
    recovers(service)
    return caught.value


def recovers(service):
    """The next reload, of sound code, works."""
    assert service.reload({"dispatcher": "sound", "scriptPath": "sound.py", "path": "/new/api"}).status == "committed"
    assert service.call("sound", path="/new/api") == "new"

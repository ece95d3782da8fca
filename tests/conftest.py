"""A small service that a test writes, serves and reloads, and a look at what is left when the test is over."""

from __future__ import annotations

import builtins
import gc
import importlib
import itertools
import linecache
import os
import signal
import sys
import textwrap
import threading
from time import monotonic

import pytest

from flask_hotreload.interpreter import interpreter
from flask_hotreload.late_imports import LateImports

# A shell lets what it starts in the background ignore Ctrl-C, and so would do every server and command of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOKEN = "0123456789abcdef-test"
PREAMBLE = """\
from flask import Flask, abort, g, request, session
from flask_hotreload import HotRPC, JSONRPCError
app = Flask(__name__)
app.secret_key = "only for tests"
rpc = HotRPC(app, **{settings!r})
"""

_numbers = itertools.count(1)


class Refused(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, error):
        super().__init__(error)
        self.code = error["code"]
        self.error = error


class Site:
    """A folder on ``sys.path`` with the one-file service ``name`` in it, which ``serve`` writes and imports."""

    def __init__(self, folder):
        self.folder = folder
        self.name = f"service_{next(_numbers)}"
        self.settings = {}
        self.module = self.app = self.rpc = None

    def write(self, path, text):
        """Write a file, its indentation taken off; return its absolute path."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return str(file)

    def rewrite(self, body):
        """Write the service's own file once more, with the same settings."""
        text = PREAMBLE.format(settings={"token": TOKEN, **self.settings})
        return self.write(f"{self.name}.py", text + textwrap.dedent(body))

    def serve(self, body="", **settings):
        """Write the service's file, import it, and return this."""
        self.settings = settings
        self.rewrite(body)
        self.adopt(self.load(self.name))
        return self

    def adopt(self, module):
        """Take the application and the extension of a module for the ones that are served."""
        self.module, self.app, self.rpc = module, module.app, module.rpc
        self.client()  # Flask imports what it tests with at the first one

    def load(self, name):
        importlib.invalidate_caches()
        return importlib.import_module(name)

    # Asking ----------------------------------------------------------------------------------------------------

    def client(self):
        return self.app.test_client()

    def call(self, method, *params, path="/api", **named):
        """The result of a JSON-RPC call. Raise :class:`Refused`."""
        return call(self.client(), method, *params, path=path, **named)

    def control(self, route="", *, method="GET", json=None, token=TOKEN, **options):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client().open(f"/_reload{route}", method=method, json=json, headers=headers, **options)

    def reload_over_http(self, **document):
        return self.control(method="POST", json=document)

    def reload(self, *entries, **document):
        """Reload these entries: names of functions in ``handlers.py``, or dicts."""
        return self.rpc.reload([entry_of(entry) for entry in entries], **document)


def entry_of(entry):
    if isinstance(entry, str):
        return {"dispatcher": entry, "scriptPath": "handlers.py", "path": "/api"}
    return entry


def call(client, method, *params, path="/api", **named):
    """The result of a JSON-RPC call. Raise :class:`Refused`."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params) or named}
    with client.post(path, json=body) as response:
        assert response.status_code == 200, (response.status, response.get_data(as_text=True))
        answer = response.get_json()
    if "error" in answer:
        raise Refused(answer["error"])
    return answer["result"]


@pytest.fixture
def site(tmp_path, nothing_is_left):
    """A :class:`Site`; afterwards its modules and its folder are out of the interpreter."""
    site = Site(tmp_path)
    before = interpreter.live.copy()
    sys.path.insert(0, str(tmp_path))
    dont, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield site
    sys.dont_write_bytecode = dont
    sys.path.remove(str(tmp_path))
    site.module = site.app = site.rpc = None
    for name in interpreter.live.keys() - before.keys():
        del interpreter.live[name]
    linecache.clearcache()


@pytest.fixture
def nothing_is_left():
    """Fail if the test leaves a thread, an open file, or a hook of the interpreter behind."""
    hooks = sys.modules, builtins.__import__, sys.meta_path.copy()
    threads = set(threading.enumerate())
    files = open_files()
    yield
    until(nobody_is_served, "a world of modules is still installed")
    until(lambda: set(threading.enumerate()) <= threads, "a thread is left")
    assert sys.modules is hooks[0], "sys.modules is not the interpreter's own"
    assert builtins.__import__ is hooks[1]
    assert sys.meta_path == hooks[2]
    assert open_files() == files


def nobody_is_served():
    """Whether all services and generations are gone, once the garbage is collected.

    A generation is retired by a thread of its own once the last reference to it is gone, which keeps its service
    until then; a service takes its finder with it.
    """
    if interpreter.installs or any(isinstance(finder, LateImports) for finder in sys.meta_path):
        gc.collect()
    return not interpreter.installs and not any(isinstance(finder, LateImports) for finder in sys.meta_path)


def until(holds, otherwise):
    """Wait until ``holds()``: for what another thread does without telling. Fail with ``otherwise`` after 10 s."""
    deadline = monotonic() + 10
    pause = threading.Event()
    while not holds():
        assert monotonic() < deadline, f"{otherwise}; threads: {threading.enumerate()}"
        pause.wait(0.002)


def open_files():
    """What the open file descriptors of this process lead to."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # that of this very listing
            continue
    return sorted(found)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A Redis server for tests that do it no harm; each uses a deployment of its own."""
    from redis_server import RedisServer

    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request, tmp_path):
    """Where the members of a deployment meet: in each implementation of the store."""
    from store_places import InMemory, InRedis, InSQLite

    if request.param == "redis":
        place = InRedis(request.getfixturevalue("redis_server"))
    else:
        place = {"memory": InMemory, "sqlite": InSQLite}[request.param](tmp_path)
    yield place
    place.close()


@pytest.fixture
def store(place):
    return place.store("a")

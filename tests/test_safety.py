"""A reload that fails changes nothing: for each kind of failure, under requests, and with a look at all it could leave.

The first entry of each document is sound: it brings a new API path and new modules, and a callback of it changes
globals. The second one fails.
"""

import contextlib
import os
import threading

import pytest
from conftest import call, until

from flask_hotreload import ApplyError, CheckFailed, DrainTimeout, LoadError, ReloadError, ReloadInvalid, WorkerFailed
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

# What the failing script holds; the line at fault ends with "# here".
IMPORTS = {
    "syntax": "import json\ndef other(:  # here",
    "not UTF-8": "NAME = 1\n# \udcff # here",
    "null byte": "NAME = 1\nOTHER = '\0'  # here",
    "exception": "import sound_part\n1 / 0  # here",
    "exception below": "import broken_part\n",
    "missing module": "import json\nimport no_such_module  # here",
    "SystemExit": "import sys\nsys.exit(3)  # here",
    "KeyboardInterrupt": "NAME = 1\nraise KeyboardInterrupt  # here",
    "recursion": "def again():\n    again()  # here\nagain()",
    "dispatcher missing": "def another(): pass",
    "dispatcher not callable": "other = 5",
    "dispatcher a class": "class other: pass",
    "hint": "def other(data: 'Missing') -> str: return data",
}
WITHOUT_LINE = {"dispatcher missing", "dispatcher not callable", "dispatcher a class", "hint"}


@pytest.fixture
def limits():
    """Seconds; those of the configuration unless a test has to wait for them."""
    return {}


@pytest.fixture
def service(site, limits):
    site.serve(APP, **limits)
    site.write("sound.py", SOUND)
    site.write("sound_part.py", "PART = 1")
    site.write("broken_part.py", "NAME = 1\n[][5]  # here")
    yield site
    site.module.leave.set()


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
                answers = call(client, "version"), client.get("/home").text, client.post("/new/api").status_code
                if answers != ([1, "as it was"], "home 1", 404):
                    self.wrong.append(answers)
                self._rounds[number] += 1
                self._stop.wait(0.002)  # a breath, so that the reload gets the processor as well
        except BaseException as error:
            self.wrong.append(error)

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
        self.modules = live
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


# The matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IMPORTS)
def test_a_script_at_fault_changes_nothing_and_is_named_with_its_line(service, kind):
    file, line = write(service, IMPORTS[kind])
    if kind == "exception below":
        file, line = str(service.folder / "broken_part.py"), 2
    error = reload_that_fails(service, sound(service), other(), error=LoadError)
    assert error.file == file
    assert file in str(error)
    assert error.line == line
    if kind not in WITHOUT_LINE:
        assert f"{file}:{line}: " in str(error)
    assert (error.report.error.file, error.report.error.line) == (file, line)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("class other:\n    def __init__(self):\n        raise ValueError('no')", 3),
        ("class other:\n    def __init__(self):\n        import sys; sys.exit()", 3),
    ],
)
def test_a_constructor_at_fault_changes_nothing(service, code, line):
    file, _ = write(service, code)
    error = reload_that_fails(service, sound(service), other(isInstance=True), error=LoadError)
    assert (error.file, error.line) == (file, line)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"scriptPath": "nowhere.py"}, LoadError),
        ({"scriptPath": "/etc/hostname"}, ReloadInvalid),
        ({"scriptPath": "leaving.py"}, ReloadInvalid),
        ({"scriptPath": "folder"}, ReloadInvalid),
        ({"scriptPath": "queue.fifo"}, ReloadInvalid),
        ({"overload": [5]}, ReloadInvalid),
        ({"overload": "missing"}, LoadError),
        ({"overload": "nowhere:missing"}, ReloadInvalid),
        ({"authorize": "missing"}, LoadError),
        ({"name": "rpc.other"}, LoadError),
        ({"path": "/taken"}, ReloadInvalid),
        ({"path": "/_reload"}, ReloadInvalid),
        ({"name": "version", "aliases": ["slow"]}, ReloadInvalid),
        ({"path": "/new/api", "name": "sound"}, ReloadInvalid),
    ],
)
def test_a_document_at_fault_changes_nothing(service, keys, error, tmp_path_factory):
    write(service, "def other() -> int: return 5")
    outside = tmp_path_factory.mktemp("outside") / "other.py"
    outside.write_text("def other() -> int: return 5")
    (service.folder / "leaving.py").symlink_to(outside)
    (service.folder / "folder").mkdir()
    os.mkfifo(service.folder / "queue.fifo")
    caught = reload_that_fails(service, sound(service), other(**keys), error=error)
    if "scriptPath" in keys:
        assert os.path.basename(keys["scriptPath"]) in str(caught)


CALLBACKS = {
    "raises": "    raise ValueError('no')  # here",
    "SystemExit": "    raise SystemExit  # here",
    "KeyboardInterrupt": "    raise KeyboardInterrupt  # here",
    "undo fails too": "    server.undo(lambda: 1 / 0)\n    raise ValueError('no')  # here",
    "changes more": "    live['VERSION'] = 7\n    raise ValueError('no')  # here",
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_callback_at_fault_changes_nothing_and_what_callbacks_had_changed_is_restored(service, kind):
    code = f"import {service.name}\nlive = vars({service.name})\ndef other(): pass\n"
    file, line = write(service, f"{code}def callback(server, module, dispatcher):\n{CALLBACKS[kind]}")
    error = reload_that_fails(service, sound(service), other(overload="callback"), error=ApplyError)
    assert (error.file, error.line) == (file, line)
    assert str(error).startswith(f"{file}:{line}: callback ")
    assert any("undo" in warning for warning in error.report.warnings) == (kind == "undo fails too")


@pytest.mark.parametrize(
    "check",
    [
        {"path": "/api", "method": "other", "result": 6},
        {"path": "/new/api", "method": "sound", "result": "old"},
        {"url": "/home", "contains": "away"},
    ],
)
@pytest.mark.parametrize("applied", [False, True])
def test_a_check_that_does_not_hold_changes_nothing(service, check, applied):
    write(service, "def other() -> int: return 5")
    reload_that_fails(
        service, sound(service), other(), error=CheckFailed, checks=[{"url": "/home"}, {**check, "applied": applied}]
    )


def test_a_migration_at_fault_changes_nothing(service):
    service.write("other.py", "def other() -> int: return 5")
    service.load("other")
    file, line = write(
        service, "def other(): pass\ndef __hot_reload__(old):\n    old.other = 5\n    raise ValueError  # here"
    )
    error = reload_that_fails(service, sound(service), other(), error=ApplyError)
    assert (error.file, error.line) == (file, line)


def test_a_drain_that_is_to_abort_changes_nothing(service):
    inside = threading.Thread(target=lambda: call(service.app.test_client(), "slow"))
    inside.start()
    assert service.module.entered.acquire(timeout=10)
    write(service, "def other() -> int: return 5")
    document = {"timeout": 0.05, "on_timeout": "abort"}
    error = reload_that_fails_while_inside(service, inside, **document)
    assert [reader.path for reader in error.readers if reader.age_ms > 50] == ["/api"]


def reload_that_fails_while_inside(service, inside, **document):
    with Askers(service.app).asking() as askers:
        before = Everything(service)
        with pytest.raises(DrainTimeout) as caught:
            service.rpc.reload([sound(service), other()], **document)
        askers.go_on()
        before.check(service)
    service.module.leave.set()
    inside.join(10)
    recovers(service)
    return caught.value


def test_what_somebody_else_has_changed_since_is_theirs(service):
    """A request of another generation assigns while the applied checks run, after the callbacks."""
    live = vars(service.module)
    write(service, f"import {service.name} as live\ndef other() -> int:\n    live.VERSION = 'theirs'\n    return 5")
    check = {"path": "/api", "method": "other", "result": 6, "applied": True}
    with pytest.raises(CheckFailed):
        service.rpc.reload([sound(service), other()], checks=[check])
    assert live["VERSION"] == "theirs"
    assert live["kept"]() == "as it was"
    assert (live["removed"], "added" in live) == ("something", False)


# What takes too long ---------------------------------------------------------------------------------------------

WAITS = "while not threading.Event().wait(0.01): pass  # here"
PREPARE = {"prepare_timeout": 0.5}
APPLY = {"apply_timeout": 0.5}


@pytest.mark.parametrize("limits", [PREPARE])
@pytest.mark.parametrize(
    ("code", "is_instance"),
    [(WAITS, False), (f"class other:\n    def __init__(self):\n        {WAITS}", True)],
)
def test_new_code_that_hangs_is_interrupted_and_changes_nothing(service, code, is_instance):
    file, line = write(service, f"import threading\n{code}")
    error = reload_that_fails(service, sound(service), other(isInstance=is_instance), error=LoadError)
    assert (error.file, error.line) == (file, line)
    assert str(error).endswith("its import had not ended after 0.5 s; it was interrupted")


@pytest.mark.parametrize("limits", [APPLY])
def test_a_callback_that_hangs_is_interrupted_and_what_it_had_changed_is_restored(service):
    code = f"import threading, {service.name} as live\ndef other(): pass\ndef callback(server, module, dispatcher):\n"
    file, line = write(service, f"{code}    live.VERSION = 3\n    {WAITS}")
    error = reload_that_fails(service, sound(service), other(overload="callback"), error=ApplyError)
    assert (error.file, error.line) == (file, line)
    assert str(error).startswith(f"{file}:{line}: callback had not ended after 0.")


@pytest.mark.parametrize(("applied", "limits"), [(False, PREPARE), (True, APPLY)])
def test_a_check_that_hangs_is_interrupted_and_changes_nothing(service, applied):
    file, line = write(service, f"import threading\ndef other() -> int:\n    {WAITS}")
    check = {"path": "/api", "method": "other", "applied": applied}
    error = reload_that_fails(service, sound(service), other(), error=CheckFailed, checks=[check])
    assert str(error).startswith(f"{file}:{line}: check of 'other' at '/api' had not ended after 0.")


# What cannot be ended --------------------------------------------------------------------------------------------

HANGS = {
    "import": """
with gate:  # here
    pass
""",
    "swallows": """
import time
while not leave.is_set():
    try:
        time.sleep(0.01)  # here
    except BaseException:
        pass
""",
    "callback": """
def callback(server, module, dispatcher):
    live.VERSION = 3
    try:
        gate.acquire()  # here
    finally:
        live.VERSION = live.late = 4
        live.other = other
""",
}


@pytest.mark.parametrize(("kind", "limits"), [("import", PREPARE), ("swallows", PREPARE), ("callback", APPLY)])
def test_code_that_cannot_be_ended_taints_the_process_until_it_ends(service, kind):
    """It hangs in C, where no exception reaches it, or swallows every exception."""
    imports = f"import {service.name} as live\nfrom {service.name} import gate, leave\n"
    file, line = write(service, f"{imports}def other() -> int: return 5\n{HANGS[kind]}")
    overload = "callback" if kind == "callback" else None
    service.module.gate.acquire()
    with Askers(service.app).asking() as askers:
        before = Everything(service)
        with pytest.raises(ApplyError if overload else LoadError, match="cannot be interrupted") as caught:
            service.rpc.reload([sound(service), other(overload=overload)])
        assert caught.value.file == file
        assert caught.value.line == line or kind == "swallows"  # which is on its way round just then
        askers.go_on()
        is_tainted(service, caught.value.report.id)
        service.module.gate.release()
        service.module.leave.set()
        until(lambda: service.rpc.status()["tainted"] is None, "it is still tainted")
        askers.go_on()
        before.check(service)
    assert service.rpc.status()["workers"][0]["state"] == "serving"
    recovers(service)


def is_tainted(service, identity):
    status = service.rpc.status()
    assert identity in status["tainted"]
    assert status["workers"][0]["state"] == "tainted"
    with pytest.raises(WorkerFailed, match="has not ended") as refused:
        recovers(service)
    assert refused.value.reason == status["tainted"]
    assert service.reload_over_http(data=sound(service)).status_code == 503

"""A reload of the whole source that fails in the middle of many modules changes nothing, under requests."""

import contextlib
import os
import sys
import threading

import pytest
from conftest import TOKEN, call, until
from failing_reload import Askers, Everything

from flask_hotreload import ApplyError, CheckFailed, DrainTimeout, LoadError, ReloadError, ReloadInvalid
from flask_hotreload.interpreter import interpreter

#: The modules of the package, in the order in which they import each other; the sixth one is at fault.
PARTS = 10
FAULTY = 5

SERVICE = """
import sys
from flask import Flask, current_app
from flask_hotreload import HotRPC
import {name}_gates as gates
from {name}_parts import part_0

def make():
    app = Flask(__name__)
    rpc = HotRPC(app, **{settings!r})
    kept = rpc.keep({kept!r}, lambda: {kept!r})

    @rpc.dispatcher("/api")
    def version() -> list:
        return [sum(part_0.versions()), kept]

    @rpc.dispatcher("/api")
    def slow() -> int:
        gates.entered.release()
        assert gates.leave.wait(30)
        return sum(part_0.versions())

    @app.get("/home")
    def home():
        from {name}_parts import part_9
        return f"home {{part_9.VERSION}}"

{factory}
    return app, rpc

app, rpc = make()
"""

PART = """
VERSION = {version}
{following}

def versions():
    return [VERSION, *({rest})]

{more}
"""


class Parts:
    """The service and its chain of modules, with a fault in the middle of it if one is asked for."""

    def __init__(self, site, **limits):
        self.site = site
        self.package = f"{site.name}_parts"
        self.settings = {"token": TOKEN, **limits}
        gates = self.gates = sys.modules[f"{site.name}_gates"] = type(sys)(f"{site.name}_gates")
        gates.entered, gates.leave, gates.lock = threading.Semaphore(0), threading.Event(), threading.Lock()
        self.write(1)
        site.adopt(site.load(site.name))
        assert call(site.client(), "version") == [10, "kept 1"]

    def write(self, version, *, more="", factory="", everywhere=""):
        """All files in that version; ``more`` ends the module in the middle, ``factory`` the factory."""
        site = self.site
        site.write(f"{self.package}/__init__.py", f"VERSION = {version}")
        for number in range(PARTS):
            last = number == PARTS - 1
            text = PART.format(
                version=version,
                following="" if last else f"from {self.package} import part_{number + 1}",
                rest="" if last else f"part_{number + 1}.versions()",
                more=(more if number == FAULTY else "") + everywhere,
            )
            self.file(number).write_text(text)
        text = SERVICE.format(name=site.name, settings=self.settings, kept=f"kept {version}", factory=factory)
        site.write(f"{site.name}.py", text)

    def file(self, number=FAULTY):
        return self.site.folder / self.package / f"part_{number}.py"

    def line(self, file):
        lines = file.read_bytes().split(b"\n")
        return next((number for number, text in enumerate(lines, 1) if b"# here" in text), None)


class PartsAskers(Askers):
    @staticmethod
    def _answers(client):
        with client.get("/home") as home, client.post("/new/api") as missing:
            version = call(client, "version")
            return (
                [version[0] // 10, "as it was" if version[1] == "kept 1" else version],
                home.text,
                missing.status_code,
            )


@pytest.fixture
def limits():
    """Seconds; those of the configuration unless a test has to wait for them."""
    return {}


@pytest.fixture
def parts(site, limits):
    parts = Parts(site, **limits)
    yield parts
    parts.gates.leave.set()


def reload_that_fails(parts, error, **document):
    """Reload under requests; return what it raised, everything being as it was."""
    site = parts.site
    with changing_nothing(parts), pytest.raises(ReloadError) as caught:
        site.rpc.reload(**document)
    assert type(caught.value) is error, caught.value
    report = caught.value.report
    assert (report.status, report.generation, report.error.type) == ("aborted", 0, error.__name__)
    return caught.value


@contextlib.contextmanager
def changing_nothing(parts):
    site = parts.site
    installs, finders, threads = interpreter.installs, sys.meta_path.copy(), set(threading.enumerate())
    with PartsAskers(site.app).asking() as askers:
        asking = set(threading.enumerate()) - threads
        before = Everything(site)
        yield
        askers.go_on()
        before.check(site)
    assert interpreter.installs == installs
    assert sys.meta_path == finders
    assert set(threading.enumerate()) - asking <= threads
    assert call(site.client(), "version") == [10, "kept 1"]
    service = site.rpc._service
    assert service._kept == {"kept 1": "kept 1"}
    assert site.rpc.status()["tainted"] is None


def recovers(parts):
    """The next reload, of sound code, works."""
    parts.write(3)
    assert parts.site.rpc.reload().status == "committed"
    assert call(parts.site.client(), "version") == [30, "kept 3"]
    parts.site.rpc.rollback()
    assert call(parts.site.client(), "version") == [10, "kept 1"]


# New code --------------------------------------------------------------------------------------------------------

WAITS = "while not threading.Event().wait(0.01): pass  # here"

IMPORTS = {
    "syntax": "def other(:  # here",
    "not UTF-8": "# \udcff # here",
    "null byte": "OTHER = '\0'  # here",
    "exception": "1 / 0  # here",
    "missing module": "import no_such_module  # here",
    "missing name": "from json import no_such_name  # here",
    "SystemExit": "import sys\nsys.exit(3)  # here",
    "KeyboardInterrupt": "raise KeyboardInterrupt  # here",
    "recursion": "def again():\n    again()  # here\nagain()",
    "route on a missing application": "app.get('/')(None)  # here",
}


@pytest.mark.parametrize("kind", IMPORTS)
def test_a_module_at_fault_changes_nothing_and_is_named_with_its_line(parts, kind):
    parts.write(2)
    text = parts.file().read_text() + IMPORTS[kind]
    parts.file().write_bytes(text.encode("utf-8", "surrogateescape"))
    error = reload_that_fails(parts, LoadError)
    file, line = str(parts.file()), parts.line(parts.file())
    assert (error.file, error.line) == (file, line)
    assert f"{file}:{line}: " in str(error)
    assert (error.report.error.file, error.report.error.line) == (file, line)
    recovers(parts)


def test_a_module_that_is_missing_changes_nothing_and_is_named_with_who_imports_it(parts):
    parts.write(2)
    parts.file().unlink()
    error = reload_that_fails(parts, LoadError)
    importer = parts.file(FAULTY - 1)
    assert (error.file, error.line) == (str(importer), 3)
    assert f"part_{FAULTY}" in str(error)
    recovers(parts)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_module_that_becomes_a_link_which_leaves_the_roots_changes_nothing(parts, what, tmp_path_factory):
    parts.write(2)
    outside = tmp_path_factory.mktemp("outside") / "moved"
    inside = parts.file() if what == "file" else parts.file().parent
    inside.rename(outside)
    inside.symlink_to(outside)
    error = reload_that_fails(parts, ReloadInvalid)
    assert str(inside) in str(error)
    assert str(outside) in str(error)
    inside.unlink()
    recovers(parts)


def test_a_module_that_becomes_a_folder_or_a_pipe_changes_nothing(parts):
    parts.write(2)
    for make in (os.mkdir, os.mkfifo):
        parts.file().unlink()
        make(parts.file())
        error = reload_that_fails(parts, LoadError)
        assert f"part_{FAULTY}" in str(error)
        (os.rmdir if make is os.mkdir else os.unlink)(parts.file())
        parts.write(2)
    recovers(parts)


@pytest.mark.parametrize("raising", ["1 / 0", "raise SystemExit", "raise KeyboardInterrupt"])
def test_a_factory_that_raises_changes_nothing_and_what_it_has_made_is_not_kept(parts, raising):
    parts.write(2, factory=f"    {raising}  # here")
    error = reload_that_fails(parts, LoadError)
    file = parts.site.folder / f"{parts.site.name}.py"
    assert (error.file, error.line) == (str(file), parts.line(file))
    recovers(parts)


def test_a_dispatcher_that_cannot_be_served_changes_nothing(parts):
    parts.write(2, factory="    @rpc.dispatcher('/api')  # here\n    def other(data: 'Missing') -> str: ...")
    error = reload_that_fails(parts, LoadError)
    assert "Missing" in str(error)
    assert error.file == str(parts.site.folder / f"{parts.site.name}.py")
    recovers(parts)


@pytest.mark.parametrize("limits", [{"prepare_timeout": 0.7}])
@pytest.mark.parametrize("where", ["more", "factory"])
def test_new_code_that_does_not_end_is_interrupted_and_changes_nothing(parts, where):
    indent = "    " if where == "factory" else ""
    parts.write(2, **{where: f"{indent}import threading\n{indent}{WAITS}"})
    error = reload_that_fails(parts, LoadError)
    file = parts.file() if where == "more" else parts.site.folder / f"{parts.site.name}.py"
    assert (error.file, error.line) == (str(file), parts.line(file))
    assert str(error).endswith("had not ended after 0.7 s; it was interrupted")
    recovers(parts)


@pytest.mark.parametrize("limits", [{"prepare_timeout": 0.7}])
def test_new_code_that_cannot_be_ended_taints_the_process_until_it_ends(parts):
    parts.write(2, more=f"import {parts.site.name}_gates as gates\nwith gates.lock:  # here\n    pass")
    parts.gates.lock.acquire()
    site = parts.site
    with PartsAskers(site.app).asking() as askers:
        before = Everything(site)
        with pytest.raises(LoadError, match="cannot be interrupted") as caught:
            site.rpc.reload()
        assert (caught.value.file, caught.value.line) == (str(parts.file()), parts.line(parts.file()))
        askers.go_on()
        assert caught.value.report.id in site.rpc.status()["tainted"]
        parts.gates.lock.release()
        until(lambda: site.rpc.status()["tainted"] is None, "it is still tainted")
        askers.go_on()
        before.check(site)
    recovers(parts)


# Checks, the drain, migrations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        {"path": "/api", "method": "version", "result": 6},
        {"path": "/api", "method": "missing"},
        {"url": "/home", "contains": "home 1"},
        {"url": "/nowhere"},
    ],
)
@pytest.mark.parametrize("applied", [False, True])
def test_a_check_that_does_not_hold_changes_nothing(parts, check, applied):
    parts.write(2)
    good = {"url": "/home", "contains": "home 2"}
    reload_that_fails(parts, CheckFailed, checks=[good, {**check, "applied": applied}])
    recovers(parts)


def test_a_drain_that_is_to_abort_changes_nothing(parts):
    parts.write(2)
    inside = threading.Thread(target=lambda: call(parts.site.app.test_client(), "slow"))
    inside.start()
    assert parts.gates.entered.acquire(timeout=10)
    error = reload_that_fails(parts, DrainTimeout, timeout=0.05, on_timeout="abort")
    assert [reader.path for reader in error.readers if reader.age_ms > 50] == ["/api"]
    parts.gates.leave.set()
    inside.join(10)
    recovers(parts)


MIGRATIONS = {
    "raises": "raise ValueError('no')  # here",
    "SystemExit": "raise SystemExit  # here",
    "KeyboardInterrupt": "raise KeyboardInterrupt  # here",
    "hangs": WAITS,
}


@pytest.mark.parametrize("limits", [{"apply_timeout": 0.5}])
@pytest.mark.parametrize("kind", MIGRATIONS)
def test_a_migration_at_fault_changes_nothing_and_what_others_had_changed_is_restored(parts, kind):
    sound = "\ndef __hot_reload__(old):\n    old.VERSION = old.ADDED = 7\n    del old.versions\n    return\n"
    parts.write(2, everywhere=sound)
    text = parts.file().read_text()
    parts.file().write_text(f"import threading\n{text}".replace("    return\n", f"    {MIGRATIONS[kind]}\n"))
    error = reload_that_fails(parts, ApplyError)
    assert (error.file, error.line) == (str(parts.file()), parts.line(parts.file()))
    recovers(parts)


def test_a_document_at_fault_changes_nothing(parts):
    parts.write(2)
    with changing_nothing(parts), pytest.raises(ReloadInvalid, match="clearOld"):
        parts.site.rpc.reload(clear_old=True)
    recovers(parts)


def test_what_cannot_be_read_and_never_was_a_module_disturbs_neither_the_start_nor_a_reload(site):
    os.mkfifo(site.folder / "pipe.py")
    (site.folder / "folder.py").mkdir()
    (site.folder / "nowhere.py").symlink_to("missing.py")
    (site.folder / "circle.py").symlink_to("circle.py")
    parts = Parts(site)
    assert site.rpc.status()["pending"] == []
    parts.write(2)
    assert site.rpc.reload().status == "committed"
    assert site.rpc.status()["pending"] == []


def test_many_failures_leave_no_modules_behind(parts):
    """Whatever fails, no new module is alive after it."""
    import gc
    import weakref

    born = []
    parts.gates.born = lambda module: born.append(weakref.ref(module))
    announce = f"import sys, {parts.site.name}_gates as gates\ngates.born(sys.modules[__name__])\n"
    for more in ("1 / 0", "raise SystemExit", "def f(:"):
        parts.write(2, everywhere=announce)
        parts.file().write_text(parts.file().read_text() + more)
        with pytest.raises(LoadError):
            parts.site.rpc.reload()
    parts.write(2, everywhere=announce)
    with pytest.raises(CheckFailed):
        parts.site.rpc.reload(checks=[{"url": "/nowhere"}])
    assert len(born) > PARTS
    gc.collect()
    assert [ref() for ref in born if ref() is not None] == []
    recovers(parts)

"""A reload that fails changes nothing: each kind of failure, under requests (see failing_reload.py)."""

import os
import threading

import pytest
from conftest import call
from failing_reload import Askers, Everything, other, recovers, reload_that_fails, serve, sound, write

from flask_hotreload import ApplyError, CheckFailed, DrainTimeout, LoadError, ReloadInvalid

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
def service(site):
    yield serve(site)
    site.module.leave.set()


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

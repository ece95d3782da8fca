"""New code, callbacks, checks and undos that take too long: interrupted, or named as what cannot be ended."""

import pytest
from conftest import until
from failing_reload import Askers, Everything, other, recovers, reload_that_fails, serve, sound, write

from flask_hotreload import ApplyError, CheckFailed, LoadError, WorkerFailed


@pytest.fixture
def limits():
    """Seconds; those of the configuration unless a test has to wait for them."""
    return {}


@pytest.fixture
def service(site, limits):
    yield serve(site, **limits)
    site.module.leave.set()


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


def test_who_asks_may_be_interrupted(service):
    """As by Ctrl-C in the main thread, which runs this."""
    code = "import signal, threading\ndef other(): pass\ndef callback(server, module, dispatcher):\n"
    interrupt = "    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)\n"
    write(service, f"{code}{interrupt}    {WAITS}")
    with Askers(service.app).asking() as askers:
        before = Everything(service)
        with pytest.raises(KeyboardInterrupt):
            service.rpc.reload([sound(service), other(overload="callback")])
        askers.go_on()
        before.check(service)
    recovers(service)


@pytest.mark.parametrize("limits", [APPLY])
@pytest.mark.parametrize("end", ["raise ValueError", WAITS])
def test_an_undo_that_hangs_is_interrupted_and_does_not_keep_the_lock_closed(service, end):
    """Whether the callback itself has raised or was interrupted."""
    code = f"import threading, {service.name} as live\ndef other(): pass\ndef undo():\n    {WAITS}\n"
    callback = f"def callback(server, module, dispatcher):\n    live.VERSION = 3\n    server.undo(undo)\n    {end}"
    file, line = write(service, code + callback)
    error = reload_that_fails(service, sound(service), other(overload="callback"), error=ApplyError)
    [warning] = error.report.warnings
    assert warning.startswith(f"{file}:{line}: undo had not ended after 0.")


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
        live.VERSION = 4
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

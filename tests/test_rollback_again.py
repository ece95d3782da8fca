"""Rolling back to what has to be executed again, and over reloads of dispatchers."""

import os
import sys

import pytest
from conftest import Refused, until
from numbered import BODY, PARTS, release, served, write
from staying import Stay

from flask_hotreload import LoadError


@pytest.fixture
def service(site):
    site.write("parts.py", PARTS.format(number=0))
    return site.serve(BODY.replace("{number}", "0"))


# Executed again ----------------------------------------------------------------------------------------------------

ENDS = """
ended = rpc.keep("ended", list)
rpc.on_retire(lambda: ended.append(number))
"""


def test_a_generation_whose_callbacks_ran_is_executed_again_from_its_own_code(service):
    release(service, 1, more=ENDS)
    one = service.load("parts")
    service.call("add", 5)
    release(service, 2)
    until(lambda: service.rpc.keep("ended", list) == [1], "generation 1 was not retired")
    service.write("parts.py", "raise SystemExit")
    report = service.rpc.rollback()
    assert (report.restores, report.status) == (1, "committed")
    assert set(report.modules) == {service.name, "parts"}
    assert served(service) == 1
    assert service.load("parts") is not one
    assert service.call("add", 6) == [6]


def test_it_is_executed_again_although_its_files_are_gone(service):
    release(service, 1, more=ENDS)
    release(service, 2)
    os.remove(service.folder / "parts.py")
    os.remove(service.folder / f"{service.name}.py")
    service.rpc.rollback()
    assert served(service) == 1
    assert service.rpc.rollback().restores == 0
    assert served(service) == 0


def test_a_generation_executed_again_retires_again(service):
    release(service, 1, more=ENDS)
    release(service, 2)
    service.rpc.rollback()
    service.rpc.rollback(2)
    until(lambda: service.rpc.keep("ended", list) == [1, 1], "it was not retired twice")


def test_code_that_fails_when_executed_again_aborts_the_rollback(service):
    once = 'assert not rpc.keep("runs", list)\n'
    release(service, 1, more=ENDS + once)
    release(service, 2)
    service.rpc.keep("runs", list).append("once")
    with pytest.raises(LoadError, match="AssertionError"):
        service.rpc.rollback()
    assert served(service) == 2
    assert service.rpc.rollback(0).restores == 0


def test_a_callback_that_an_old_request_registered_and_that_ran_lets_the_code_be_executed_again(service):
    release(service, 1)
    one = service.load("parts")
    with Stay(service, "rpc.on_retire(lambda: rpc.keep('ended', list).append(number))") as request:
        write(service, 2)
        service.rpc.reload(timeout=0)
        request.leave()
    until(lambda: service.rpc.keep("ended", list) == [1], "generation 1 was not retired")
    service.rpc.rollback()
    assert served(service) == 1
    assert service.load("parts") is not one


# Dispatcher reloads and whole ones ---------------------------------------------------------------------------------


def entry(name, **keys):
    return {"dispatcher": name, "scriptPath": "handlers.py", "path": "/api", **keys}


def test_a_rollback_undoes_a_reload_of_dispatchers(service):
    service.write("handlers.py", "def which() -> int: return 100")
    service.reload(entry("which"))
    assert service.call("which") == 100
    report = service.rpc.rollback()
    assert (report.restores, service.call("which")) == (0, 0)
    assert "handlers" not in sys.modules  # it was no part of the application as it was made


def test_rollbacks_lead_through_reloads_of_both_kinds(service):
    service.write("handlers.py", "def which() -> int: return 100")
    service.reload(entry("which"))
    release(service, 2)
    service.write("handlers.py", "def which() -> int: return 300")
    service.reload(entry("which"))
    answers = [service.call("which")]
    for _ in range(3):
        service.rpc.rollback()
        answers.append(service.call("which"))
    assert answers == [300, 2, 100, 0]
    assert service.rpc.rollback(3).restores == 3
    assert service.call("which") == 300
    assert service.call("part") == "part 2"


def test_overloads_and_what_callbacks_did_are_as_they_were(service):
    service.write(
        "handlers.py",
        """
        start, seen = 1, []
        def which() -> int: return start + sum(seen)
        def fill(server, module, dispatcher): module.seen = [20]
        """,
    )
    service.reload(entry("which", overload=[{"start": 300}, "fill"]))
    release(service, 2)
    service.rpc.rollback()
    assert service.call("which") == 320


def test_overloads_and_callbacks_are_run_again_where_the_code_is_executed_again(service):
    release(service, 1, more=ENDS)
    service.write(
        "handlers.py",
        """
        start, seen = 1, []
        def which() -> int: return start + sum(seen)
        def fill(server, module, dispatcher): module.seen = [20]
        """,
    )
    service.reload(entry("which", overload=[{"start": 300}, "fill"]))
    release(service, 3)
    os.remove(service.folder / "handlers.py")
    service.rpc.rollback()
    assert service.call("which") == 320
    assert service.call("part") == "part 1"
    assert service.rpc.rollback().restores == 1
    assert service.call("which") == 1


def settings_of(service, name):
    return next(each["settings"] for each in service.rpc.status()["dispatchers"] if each["name"] == name)


@pytest.mark.parametrize("more", ["", ENDS], ids=["as it is", "executed again"])
def test_inherited_settings_are_there_after_a_rollback(service, more):
    careful = '@rpc.dispatcher("/api", lock=True, validate=False)\ndef careful(x) -> int: return 1'
    release(service, 1, more=more + careful)
    service.write("handlers.py", "def careful(x: int) -> int: return 2")
    service.reload(entry("careful"))
    release(service, 3)
    with pytest.raises(Refused):
        service.call("careful", "x")
    service.rpc.rollback()
    assert service.call("careful", "x") == 2
    assert settings_of(service, "careful") == {"lock": True, "validate": False, "authorize": None}


@pytest.mark.parametrize("more", ["", ENDS], ids=["as it is", "executed again"])
def test_what_clear_old_removed_is_there_or_gone_as_it_was(service, more):
    release(service, 1, more=more)
    service.write("handlers.py", "def which() -> int: return 100")
    service.reload(entry("which"), clearOld=True)
    release(service, 3)
    service.rpc.rollback()
    assert service.call("which") == 100
    with pytest.raises(Refused):
        service.call("part")
    service.rpc.rollback()
    assert (service.call("which"), service.call("part")) == (1, "part 1")


def test_a_dispatcher_reload_after_a_rollback_starts_from_what_was_restored(service):
    release(service, 1, 2)
    service.rpc.rollback()
    service.write("handlers.py", "import parts\ndef part() -> str: return 'new ' + parts.Part().name()")
    service.reload(entry("part"))
    assert (service.call("part"), service.call("which")) == ("new part 1", 1)
    assert service.rpc.rollback().restores == 3
    assert served(service) == 1

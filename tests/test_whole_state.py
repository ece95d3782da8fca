"""What outlives a reload of the whole source, what is moved over, and what goes."""

import gc
import sys
import textwrap
import threading
import weakref

import pytest
from conftest import Refused, call, until
from staying import WAIT, Stay

from flask_hotreload import ApplyError, LoadError, signals

HEAD = """
import parts
number = {number}

@rpc.dispatcher("/api")
def which() -> int:
    return number
"""
PARTS = "number = {number}\nclass Part: pass\n"


@pytest.fixture
def service(site):
    """One whose reloads wait for nobody."""
    site.write("parts.py", PARTS.format(number=0))
    return site.serve(HEAD.replace("{number}", "0") + WAIT, timeout=0.0)


def write(site, number, more=""):
    site.write("parts.py", PARTS.format(number=number))
    site.rewrite(HEAD.replace("{number}", str(number)) + WAIT + more)


def release(site, number, more=""):
    write(site, number, more)
    return site.rpc.reload()


# rpc.keep ----------------------------------------------------------------------------------------------------------

KEEPS = """
made = rpc.keep("made", list)
model = rpc.keep("model", lambda: made.append(number) or ["model"])

@rpc.dispatcher("/api")
def the_model() -> int:
    assert model is rpc.keep("model", dict)
    return id(model)
"""


def test_a_kept_object_is_the_same_over_whole_reloads_and_rollbacks(service):
    release(service, 1, KEEPS)
    model = service.call("the_model")
    release(service, 2, KEEPS)
    assert service.call("the_model") == model
    service.rpc.rollback()
    assert service.call("the_model") == model
    service.rpc.rollback()
    assert service.rpc.keep("made", list) == [1]


def test_what_code_of_an_aborted_reload_made_is_not_kept(service):
    write(service, 1, KEEPS + "1 / 0")
    with pytest.raises(LoadError):
        service.rpc.reload()
    assert service.rpc.keep("made", lambda: "none yet") == "none yet"
    assert service.call("which") == 0


def test_kept_objects_are_as_before_when_a_reload_is_aborted(service):
    release(service, 1, KEEPS)
    model = service.call("the_model")
    write(service, 2, KEEPS + "1 / 0")
    with pytest.raises(LoadError):
        service.rpc.reload()
    assert service.call("the_model") == model
    release(service, 3, KEEPS)
    assert service.call("the_model") == model
    assert service.rpc.keep("made", list) == [1]


STAGED = """
staged, go = rpc.keep("events", list)
pool = rpc.keep("pool", lambda: [number])
staged.set()
assert go.wait(10)
"""


@pytest.mark.parametrize("more", ["", "1 / 0"], ids=["committed", "aborted"])
def test_a_request_that_asks_for_what_staged_code_has_made_gets_the_same_object(service, more):
    staged, go = service.rpc.keep("events", lambda: (threading.Event(), threading.Event()))
    write(service, 1, STAGED + more)
    outcome = []

    def reload():
        try:
            outcome.append(service.rpc.reload().status)
        except LoadError:
            outcome.append("aborted")

    reloading = threading.Thread(target=reload)
    reloading.start()
    assert staged.wait(10)
    made = service.rpc.keep("pool", lambda: ["another"])
    assert made == [1]
    go.set()
    reloading.join(10)
    assert outcome == ["aborted" if more else "committed"]
    assert service.rpc.keep("pool", list) is made
    if not more:
        assert service.load(service.name).pool is made


def test_threads_that_ask_at_once_get_one_object(service):
    begun, go, made, got = threading.Event(), threading.Event(), [], []

    def factory():
        made.append(1)
        begun.set()
        assert go.wait(10)
        return object()

    threads = [threading.Thread(target=lambda: got.append(service.rpc.keep("pool", factory))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert made == [1]
    assert len(set(map(id, got))) == 1


def test_a_kept_object_whose_class_is_imported_anew_is_a_warning(service):
    more = 'thing = rpc.keep("thing", parts.Part)\nplain = rpc.keep("plain", dict)'
    assert release(service, 1, more).warnings == ()
    [warning] = release(service, 2, more).warnings
    assert "the kept object 'thing' is of the class Part of parts" in warning
    assert "HOTRELOAD_KEEP" in warning


def test_the_warning_is_for_the_generations_that_have_another_class(service):
    more = 'thing = rpc.keep("thing", parts.Part)'
    release(service, 1, more)
    release(service, 2, more)
    assert service.rpc.rollback().warnings == ()  # it is this one's class
    [warning] = service.rpc.rollback().warnings  # it is none of the first generation
    assert "'thing'" in warning


# HOTRELOAD_KEEP ----------------------------------------------------------------------------------------------------


@pytest.fixture
def keeping(site):
    site.write("model.py", "number = 0\nclass Model: pass")
    site.write("data/__init__.py", "number = 0")
    site.write("data/deep/__init__.py", "number = 0")
    site.write("data/deep/rows.py", "number = 0")
    site.write("pkg/__init__.py", "number = 0")
    site.write("pkg/kept.py", "number = 0")
    site.write("pkg/other.py", "from pkg.kept import number as kept\nfrom . import kept as module\nnumber = 0")
    site.write("parts.py", PARTS.format(number=0))
    body = "import model, data.deep.rows, pkg.other\n" + HEAD.replace("{number}", "0")
    return site.serve(body, keep=["model", "data", "pkg.kept"])


def pending(site):
    return {each["file"].removeprefix(f"{site.folder}/"): each["change"] for each in site.rpc.status()["pending"]}


def test_kept_modules_are_the_same_objects_in_every_generation(keeping):
    names = ["model", "data", "data.deep", "data.deep.rows", "pkg.kept"]
    before = [keeping.load(name) for name in names]
    old = keeping.load("pkg")
    keeping.write("parts.py", PARTS.format(number=1))
    report = keeping.rpc.reload()
    assert set(report.modules) == {keeping.name, "parts", "pkg", "pkg.other"}
    assert [keeping.load(name) for name in names] == before
    new = keeping.load("pkg")
    assert new is not old
    assert new.kept is before[-1] is keeping.load("pkg.other").module
    assert keeping.load(keeping.name).data.deep.rows is before[3]
    keeping.rpc.rollback()
    assert keeping.load("pkg") is old
    assert old.kept is before[-1]


@pytest.mark.parametrize("file", ["model.py", "data/__init__.py", "data/deep/rows.py", "pkg/kept.py"])
def test_a_changed_file_of_a_kept_module_is_pending_and_no_reason_to_reload(keeping, file):
    keeping.write(file, "number = 1")
    assert pending(keeping) == {file: "modified"}
    assert keeping.rpc.reload().status == "unchanged"
    assert keeping.rpc.generation == 0
    assert pending(keeping) == {file: "modified"}


def test_a_changed_file_of_a_kept_module_stays_pending_when_another_is_reloaded(keeping):
    keeping.write("model.py", "number = 1")
    keeping.write("parts.py", PARTS.format(number=1))
    assert keeping.rpc.reload().status == "committed"
    assert keeping.load("model").number == 0
    assert pending(keeping) == {"model.py": "modified"}
    assert keeping.rpc.reload().status == "unchanged"
    keeping.rpc.rollback()
    assert pending(keeping) == {"model.py": "modified", "parts.py": "modified"}
    keeping.write("model.py", "number = 0\nclass Model: pass")
    assert pending(keeping) == {"parts.py": "modified"}


def test_a_deleted_file_of_a_kept_module_leaves_the_module(keeping):
    keeping.write("parts.py", PARTS.format(number=1))
    (keeping.folder / "model.py").unlink()
    assert keeping.rpc.reload().status == "committed"
    assert keeping.load(keeping.name).model.number == 0
    assert pending(keeping) == {"model.py": "deleted"}


def test_an_object_of_a_kept_modules_class_is_no_warning(keeping):
    keeping.rpc.keep("model", keeping.load("model").Model)
    keeping.write("parts.py", PARTS.format(number=1))
    assert keeping.rpc.reload().warnings == ()


# __hot_reload__ ----------------------------------------------------------------------------------------------------

MOVES = """
state = []
def __hot_reload__(old):
    state.extend(getattr(old, "state", ["none"]))
    state.append(number)

@rpc.dispatcher("/api")
def add(item: int) -> list:
    state.append(item)
    return state
"""


def test_state_moves_over_from_the_module_that_ran(service):
    release(service, 1, MOVES)
    assert service.call("add", 10) == ["none", 1, 10]
    release(service, 2, MOVES)
    assert service.call("add", 20) == ["none", 1, 10, 2, 20]


def test_a_migration_sees_what_the_last_request_did_before_the_lock_closed(site):
    site.write("parts.py", PARTS.format(number=0))
    site.serve(HEAD.replace("{number}", "0") + WAIT)
    release(site, 1, MOVES)
    with Stay(site, "state.append('last')") as request:
        write(site, 2, MOVES)
        reloading = threading.Thread(target=site.rpc.reload)
        reloading.start()
        until(lambda: site.rpc._service.reloader.lock.closed, "the reload did not close the lock")
        request.leave()
        reloading.join(10)
    assert site.call("add", 20) == ["none", 1, "last", 2, 20]


def test_a_migration_that_fails_leaves_both_sides_as_they_were(service):
    release(service, 1, MOVES)
    write(service, 2, MOVES.replace("state.append(number)", "old.number = 5\n    1 / 0"))
    with pytest.raises(ApplyError, match="__hot_reload__"):
        service.rpc.reload()
    assert service.call("which") == 1
    assert service.call("add", 10) == ["none", 1, 10]


def test_a_generation_that_is_restored_as_it_is_keeps_its_state_and_migrates_nothing(service):
    release(service, 1, MOVES)
    service.call("add", 10)
    release(service, 2, MOVES)
    service.call("add", 20)
    service.rpc.rollback()
    assert service.call("add", 11) == ["none", 1, 10, 11]


def test_a_generation_that_is_executed_again_takes_the_state_of_what_is_rolled_back_from(service):
    release(service, 1, MOVES + "rpc.on_retire(lambda: rpc.keep('ended', list).append(1))")
    service.call("add", 10)
    release(service, 2, MOVES)
    until(lambda: service.rpc.keep("ended", list) == [1], "generation 1 was not retired")
    service.call("add", 20)
    service.rpc.rollback()
    assert service.call("add", 11) == ["none", 1, 10, 2, 20, 1, 11]


# Retirement --------------------------------------------------------------------------------------------------------

ENDS = """
import part_with_end
order = rpc.keep("order", list)
rpc.on_retire(lambda: order.append(f"first of {number}"))
rpc.on_retire(lambda: order.append(f"second of {number}"))
"""


@pytest.fixture
def retired(service):
    """The order in which callbacks ran and generations were reported as retired."""
    order = service.rpc.keep("order", list)

    def told(sender, generation, **_):
        order.append((generation, sender.import_name if sender is not service.app else "first"))

    signals.generation_retired.connect(told)
    yield order
    signals.generation_retired.disconnect(told)


def test_callbacks_run_in_reverse_and_then_the_signal_over_reloads_and_rollbacks(service, retired):
    service.write(
        "part_with_end.py",
        f"""
        from {service.name} import rpc
        rpc.on_retire(lambda: rpc.keep("order", list).append("part"))
        """,
    )
    release(service, 1, ENDS)
    of_1 = ["second of 1", "first of 1", "part"]
    until(lambda: retired == [(0, service.name)], "generation 0 was not retired")
    retired.clear()
    release(service, 2)
    until(lambda: retired == [*of_1, (1, service.name)], "generation 1 was not retired")
    retired.clear()
    service.rpc.rollback(1)
    # It imported the module anew, as every one that is loaded, although its application needs it no more.
    until(lambda: retired == ["part", (2, service.name)], "generation 2 was not retired")
    retired.clear()
    service.rpc.rollback(0)
    until(lambda: retired == [*of_1, (3, "first")], "generation 3 was not retired")


def test_callbacks_of_an_aborted_reload_run_at_its_end_and_those_of_what_runs_wait(service, retired):
    service.write("part_with_end.py", "")
    release(service, 1, ENDS)
    write(service, 2, ENDS + "1 / 0")
    with pytest.raises(LoadError):
        service.rpc.reload()
    assert [each for each in retired if isinstance(each, str)] == ["second of 2", "first of 2"]
    retired.clear()
    release(service, 3)
    until(lambda: (1, service.name) in retired, "generation 1 was not retired")
    assert [each for each in retired if isinstance(each, str)] == ["second of 1", "first of 1"]


def test_signals_are_sent_by_the_application_that_is_served_then(service):
    seen = []

    def receive(name):
        return lambda sender, **_: seen.append((name, sender))

    receivers = {name: receive(name) for name in ("reload_started", "reload_committed", "reload_aborted")}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    try:
        release(service, 1)
        new = service.load(service.name).app
        write(service, 2, "1 / 0")
        with pytest.raises(LoadError):
            service.rpc.reload()
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)
    old = service.app
    assert new is not old
    assert seen == [
        ("reload_started", old),
        ("reload_committed", new),
        ("reload_started", new),
        ("reload_aborted", new),
    ]


# What belongs to the service ---------------------------------------------------------------------------------------

LOCKED = """
inside = rpc.keep("inside", list)
gates = rpc.keep("gates", dict)

@app.before_request
def arrive():
    if request.is_json:
        rpc.keep("arrived", list).append(request.json["params"][0])

@rpc.dispatcher("/api", lock=True)
def careful(key: str) -> int:
    inside.append(key)
    assert len(inside) == 1
    entered, leave = gates[key]
    entered.set()
    assert leave.wait(10)
    inside.remove(key)
    return number
"""


def test_a_dispatchers_lock_holds_across_generations_and_rollbacks(service):
    release(service, 1, LOCKED)
    gates = service.rpc.keep("gates", dict)
    gates.update({key: (threading.Event(), threading.Event()) for key in "abc"})
    answers = {}

    def ask(key):
        answers[key] = service.call("careful", key)

    threads = {key: threading.Thread(target=ask, args=(key,)) for key in "abc"}
    threads["a"].start()
    assert gates["a"][0].wait(10)
    release(service, 2, LOCKED)
    threads["b"].start()
    until(lambda: service.rpc.keep("arrived", list) == ["a", "b"], "the second call has not come")
    service.rpc.rollback()
    threads["c"].start()
    until(lambda: service.rpc.keep("arrived", list) == ["a", "b", "c"], "the third call has not come")
    assert service.rpc.keep("inside", list) == ["a"]
    for _entered, leave in gates.values():
        leave.set()
    for thread in threads.values():
        thread.join(10)
    assert answers == {"a": 1, "b": 2, "c": 1}


def test_a_session_survives(service):
    login = """
    @app.post("/login")
    def login():
        session["user"] = "ann"
        return ""

    @app.get("/user")
    def user():
        return f"{session['user']} {number}"
    """
    more = textwrap.dedent(login)
    release(service, 1, more)
    client = service.client()
    client.post("/login").close()
    answers = []
    for ask in (lambda: None, lambda: release(service, 2, more), service.rpc.rollback):
        ask()
        with client.get("/user") as response:
            answers.append(response.get_data(as_text=True))
    assert answers == ["ann 1", "ann 2", "ann 1"]


def test_the_extension_tells_of_the_generation_that_is_served(service):
    old = service.rpc.get("which", "/api")
    more = '@rpc.dispatcher("/more", name="other", aliases=("second",), validate=False)\ndef more() -> int: return 7'
    release(service, 1, more)
    assert service.rpc.generation == 1
    assert service.rpc.get("which", "/api") is service.load(service.name).which is not old
    assert service.rpc.get("second", "/more")() == 7
    told = {each["name"]: each for each in service.rpc.status()["dispatchers"]}
    assert set(told) == {"which", "other"}
    assert told["other"]["settings"]["validate"] is False
    assert told["other"]["module"] == service.name
    service.rpc.rollback()
    assert service.rpc.get("which", "/api") is old
    with pytest.raises(LookupError):
        service.rpc.get("other", "/more")


def test_a_request_is_told_of_its_own_generation(service):
    with Stay(
        service, "(rpc.generation, rpc.get('which', '/api') is which, len(rpc.status()['dispatchers']))"
    ) as stay:
        release(service, 1, '@rpc.dispatcher("/api")\ndef more() -> int: return 1')
        assert stay.leave() == "(0, True, 2)"  # the status is the process's


def test_the_extension_of_any_generation_is_one_on_the_same_service(service):
    release(service, 1)
    new = service.load(service.name).rpc
    assert new is not service.rpc
    assert new.generation == service.rpc.generation == 1
    assert service.load(service.name).app.extensions["hotreload"] is new
    assert new.rollback().restores == 0
    assert service.rpc.generation == 2


# Memory ------------------------------------------------------------------------------------------------------------

USED = """
from dataclasses import dataclass
from typing import Optional
from flask import render_template_string

@dataclass
class Item:
    price: int

@rpc.dispatcher("/api")
def pay(item: Item, other: Optional[Item] = None, more: "list[Item] | None" = None) -> int:
    return item.price

@app.get("/page")
def page():
    return render_template_string("{{ number }}", number=number)

@app.get("/fail")
def fail():
    abort(404)

@app.errorhandler(404)
def missing(error):
    return "missing", 404

@app.before_request
def count():
    g.count = 1
"""


def test_generations_that_have_served_are_garbage_beyond_the_kept_ones(service):
    alive = []
    for number in range(1, 9):
        release(service, number, USED)
        assert call(service.client(), "pay", {"price": 5}) == 5
        with pytest.raises(Refused):
            service.call("pay", {"price": "much"})
        for url in ("/page", "/fail"):
            service.client().get(url).close()
        module = service.load(service.name)
        things = module.app, module.app.jinja_env, module.Item, service.load("parts").Part, module.rpc, module
        alive.append([weakref.ref(thing) for thing in things])
        del module, things
    gc.collect()
    assert [[each() is not None for each in one] for one in alive] == [[False] * 6] * 4 + [[True] * 6] * 4


def test_nothing_of_aborted_reloads_stays(service):
    alive = []
    service.rpc.keep("seen", lambda: alive)
    for number in range(1, 4):
        more = "import weakref\nrpc.keep('seen', list).extend([weakref.ref(app), weakref.ref(parts.Part)])\n"
        write(service, number, more + f"raise ValueError({number})")
        with pytest.raises(LoadError):
            service.rpc.reload()
    gc.collect()
    assert len(alive) == 6
    assert [each() for each in alive] == [None] * 6
    assert sys.modules["parts"].number == 0

"""What is staged is kept for a while, served to who has the token, and then committed or discarded: one process."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from types import ModuleType

import pytest
from conftest import TOKEN, until
from shop_of_modules import Shop

from flask_hotreload import CheckFailed, LoadError, ReloadBusy, ReloadInvalid
from flask_hotreload.interpreter import interpreter

ENTRY = {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"}
RATE = "def rate() -> int: return {}"
BODY = """
    import handlers
    rpc.register_function(handlers.rate, "/api")

    @app.get("/plain")
    def plain():
        return f"generation {rpc.generation}"
    """


@pytest.fixture
def service(site):
    site.write("handlers.py", RATE.format(1))
    site.serve(BODY)
    site.write("handlers.py", RATE.format(2))
    yield site
    site.rpc.discard("next")  # whatever is left


@pytest.fixture
def shop(site):
    shop = Shop(site).serve(1)
    yield shop
    site.rpc.discard("next")


def stage(service, *, id="next", **document):
    return service.rpc.reload([ENTRY], stage=True, id=id, **document)


def headers(id="next", token=TOKEN):
    return {"HotReload-Preview": id, "Authorization": f"Bearer {token}"}


def asked(service, given=None, *, method="rate"):
    """Status, headers and body of a call."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": []}
    with service.client().post("/api", json=body, headers=given) as response:
        return response.status, list(response.headers), response.get_data()


def rate(service, given=None):
    status, _, _ = answer = asked(service, given)
    assert status == "200 OK", answer
    return int(answer[2].partition(b'"result":')[2].partition(b",")[0].rstrip(b"}"))


def look(shop, name, given=None):
    with shop.site.client().get(f"/look/{name}", headers=given) as response:
        assert response.status_code == 200, response.get_data(as_text=True)
        return response.get_json()


def write_shop(shop, edition):
    shop.write(edition)
    return shop.site.rpc.reload(stage=True, id="next", timeout=0)


# Staging ---------------------------------------------------------------------------------------------------------


def test_what_is_staged_is_served_to_who_has_the_token_and_to_nobody_else(service):
    report = stage(service, label="v2")
    assert (report.status, report.generation, report.label) == ("checked", 0, "v2")
    assert report.staged.id == "next"
    assert report.staged.until > report.started_at
    assert rate(service, headers()) == 2
    assert rate(service) == 1
    assert service.rpc.generation == 0


def test_nobody_can_tell_without_the_token_or_the_id(service):
    strangers = [
        None,
        {"HotReload-Preview": "next"},
        headers(token="0123456789abcdef-wrong"),
        headers(token=""),
        headers("another"),
        headers(""),
        {"HotReload-Preview": "next", "Authorization": f"Basic {TOKEN}"},
        {"HotReload-Preview": "next", "HotReload-Token": "0123456789abcdef-wrong"},
        {"Authorization": f"Bearer {TOKEN}"},
    ]
    before = [asked(service, given) for given in strangers]
    stage(service)
    assert [asked(service, given) for given in strangers] == before
    assert rate(service, headers()) == 2


def test_an_answer_of_what_is_staged_says_so(service):
    stage(service)
    assert ("HotReload-Preview", "next") in asked(service, headers())[1]


def test_no_cache_may_keep_the_answer_to_a_preview(site):
    body = """
    @app.get("/cached")
    def cached():
        return "answer", {"cache-control": "public, max-age=60", "Expires": "tomorrow", "X-More": "1"}
    """
    site.serve(body)
    site.rewrite(body + "MORE = 1\n")
    site.rpc.reload(stage=True, id="next")
    with site.client().get("/cached") as response:
        assert response.headers["Cache-Control"] == "public, max-age=60"
    with site.client().get("/cached", headers=headers()) as response:
        assert response.headers.getlist("Cache-Control") == ["private, no-store"]
        assert ("Expires" in response.headers, response.headers["X-More"]) == (False, "1")
    assert site.rpc.discard("next")


def test_the_application_does_not_get_to_see_the_token_nor_needs_to_know_it(site):
    body = """
    @app.get("/headers")
    def seen():
        return dict(request.headers)
    """
    site.serve(body)
    site.rewrite(body + "MORE = 1\n")
    site.rpc.reload(stage=True, id="next")

    def seen(given):
        with site.client().get("/headers", headers=given) as response:
            return response.get_json(), response.headers.get("HotReload-Preview")

    assert seen(headers()) == ({"Host": "localhost", "User-Agent": f"Werkzeug/{version('werkzeug')}"}, "next")
    mine = {"HotReload-Preview": "next", "HotReload-Token": TOKEN, "Authorization": "Bearer of-the-application"}
    told, preview = seen(mine)
    assert (told["Authorization"], preview) == ("Bearer of-the-application", "next")
    assert "Hotreload-Token" not in told
    assert site.rpc.discard("next")


def test_the_generation_of_a_preview_is_the_one_that_it_would_be(service):
    stage(service)

    def told(given=None):
        with service.client().get("/plain", headers=given) as response:
            return response.get_data(as_text=True)

    assert (told(), told(headers())) == ("generation 0", "generation 1")


def test_the_status_tells_what_is_staged_and_for_how_long(service):
    assert service.rpc.status()["staged"] is None
    stage(service)
    staged = service.control().get_json()["staged"]
    assert (staged["id"], staged["generation"]) == ("next", 1)
    assert 590 < staged["seconds_left"] <= 600
    service.rpc.commit("next")
    assert service.rpc.status()["staged"] is None


def test_a_retry_of_a_stage_gets_the_same_report(service):
    report = stage(service)
    service.write("handlers.py", RATE.format(3))
    assert stage(service) == report
    assert rate(service, headers()) == 2


def test_code_or_checks_that_fail_stage_nothing_and_leave_what_was_staged(service):
    stage(service)
    with pytest.raises(CheckFailed):
        stage(service, id="checked", checks=[{"path": "/api", "method": "rate", "result": 5}])
    service.write("handlers.py", "1 / 0")
    with pytest.raises(LoadError):
        stage(service, id="broken")
    assert rate(service, headers()) == 2
    assert rate(service, headers("checked")) == rate(service, headers("broken")) == 1


def test_what_is_staged_takes_the_place_of_what_was_staged_before(service):
    stage(service, id="first")
    service.write("handlers.py", RATE.format(3))
    stage(service)
    assert rate(service, headers("first")) == 1
    assert rate(service, headers()) == 3
    with pytest.raises(ReloadInvalid, match="'first'"):
        service.rpc.commit("first")
    service.rpc.commit("next")
    assert rate(service) == 3


def test_an_unchanged_whole_source_stages_nothing(service):
    service.rpc.reload()
    report = service.rpc.reload(stage=True, id="next")
    assert (report.status, report.staged) == ("unchanged", None)
    assert service.rpc.status()["staged"] is None


def test_a_dry_run_stages_nothing_and_both_together_are_refused(service):
    with pytest.raises(ReloadInvalid, match="exclude each other"):
        stage(service, dry_run=True)


def test_what_a_preview_asks_of_the_application_itself_and_streams_is_of_its_code_too(shop):
    write_shop(shop, 2)
    shop.write(1)
    response = shop.site.client().get("/stream/import_module", headers=headers())
    chunks = response.iter_encoded()
    assert next(chunks) == b"first\n"
    shop.site.rpc.discard("next")
    assert json.loads(next(chunks)) == [2, 2]
    response.close()


def test_paths_that_are_exempt_can_be_previewed_and_calls_within_a_preview_are_of_it(site):
    body = """
    NUMBER = {number}

    @app.get("/events/number")
    def number():
        return str(NUMBER)

    @app.get("/inner")
    def inner():
        return app.test_client().get("/events/number").get_data()
    """
    site.serve(body.replace("{number}", "1"), exempt=["/events"])
    site.rewrite(body.replace("{number}", "2"))
    site.settings["exempt"] = ["/events"]
    site.rpc.reload(stage=True, id="next")
    for path in ("/events/number", "/inner"):
        for given, number in ((None, "1"), (headers(), "2")):
            with site.client().get(path, headers=given) as response:
                assert response.get_data(as_text=True) == number, path
    assert site.rpc.discard("next")


# Committing ------------------------------------------------------------------------------------------------------


def test_a_commit_serves_what_was_staged_whatever_lies_on_disk_by_then(service):
    stage(service, label="v2")
    service.write("handlers.py", "1 / 0")
    report = service.rpc.commit("next")
    assert (report.status, report.generation, report.previous, report.label) == ("committed", 1, 0, "v2")
    assert report.id == "next.commit"
    assert [change.name for change in report.changes] == ["rate"]
    assert report.staged is None
    assert rate(service) == 2
    assert rate(service, headers()) == 2


def test_what_was_staged_is_what_is_committed_nothing_is_imported_again(service):
    service.write("handlers.py", "import gates\ngates.imported.append(1)\n" + RATE.format(2))
    gates = interpreter.live["gates"] = ModuleType("gates")
    gates.imported = []
    stage(service)
    assert rate(service, headers()) == 2
    service.rpc.commit("next")
    assert (rate(service), gates.imported) == (2, [1])


def test_state_that_a_preview_leaves_in_staged_modules_is_there_after_the_commit(service):
    service.write("handlers.py", "seen = []\ndef rate() -> int:\n    seen.append(1)\n    return len(seen)\n")
    stage(service)
    assert [rate(service, headers()) for _ in range(3)] == [1, 2, 3]
    service.rpc.commit("next")
    assert rate(service) == 4


def test_a_preview_works_on_the_state_that_is_shared(site):
    site.write("handlers.py", RATE.format(1))
    site.serve(BODY + "\n    kept = rpc.keep('counts', dict)\n")
    code = f"""
    from {site.name} import rpc
    mine = rpc.keep("mine", list)
    def rate() -> int:
        counts = rpc.keep("counts", dict)
        counts["rate"] = counts.get("rate", 0) + 1
        assert rpc.keep("mine", list) is mine
        return counts["rate"]
    """
    site.write("handlers.py", code)
    stage(site)
    assert [rate(site, headers()) for _ in range(2)] == [1, 2]
    assert site.module.kept == {"rate": 2}
    site.rpc.commit("next")
    assert rate(site) == 3


def test_callbacks_and_applied_checks_wait_for_the_commit(service):
    calls = []
    entry = {**ENTRY, "overload": lambda server, module, dispatcher: calls.append(server.generation)}
    check = {"path": "/api", "method": "rate", "result": 2, "applied": True}
    service.rpc.reload([entry], stage=True, id="next", checks=[check])
    assert (rate(service, headers()), calls) == (2, [])
    service.rpc.commit("next")
    assert len(calls) == 1


def test_a_commit_that_fails_changes_nothing_and_uses_up_what_was_staged(service):
    entry = {**ENTRY, "overload": lambda server, module, dispatcher: 1 / 0}
    service.rpc.reload([entry], stage=True, id="next")
    for _ in range(2):  # a retry gets the same
        with service.control("/commit", method="POST", json={"id": "next"}) as response:
            assert response.status_code == 422
            assert "ZeroDivisionError" in response.get_json()["detail"]
    assert rate(service) == rate(service, headers()) == 1
    assert service.rpc.status()["staged"] is None
    stage(service, id="again")
    assert service.rpc.commit("again").generation == 1


def test_a_retry_of_a_commit_gets_the_same_report(service):
    stage(service)
    report = service.rpc.commit("next")
    assert service.rpc.commit("next") == report
    assert service.rpc.generation == 1


def test_another_reload_in_between_makes_the_commit_a_409(service):
    stage(service)
    service.write("handlers.py", RATE.format(3))
    service.rpc.reload([ENTRY])
    assert rate(service, headers()) == 3
    with service.control("/commit", method="POST", json={"id": "next"}) as response:
        assert response.status_code == 409
        assert "staged for generation 0, and 1 is served now" in response.get_json()["detail"]
    with pytest.raises(ReloadBusy):
        service.rpc.commit("next")
    assert rate(service) == 3


def test_reloads_that_change_nothing_leave_what_is_staged(service):
    stage(service)
    service.rpc.reload([ENTRY], dry_run=True)
    with pytest.raises(ReloadBusy):
        service.rpc.reload([ENTRY], expect=7)
    service.rpc.commit("next")
    assert rate(service) == 2


def test_a_rollback_leads_back_from_what_was_committed(service):
    stage(service)
    service.rpc.commit("next")
    service.rpc.rollback()
    assert rate(service) == 1
    service.rpc.rollback(to=1)
    assert rate(service) == 2


def test_new_names_and_routes_are_there_for_a_preview_only(service):
    service.write("handlers.py", RATE.format(2) + "\ndef more() -> int: return 5")
    service.rpc.reload([ENTRY, {**ENTRY, "dispatcher": "more"}], stage=True, id="next")
    absent = asked(service, method="more")

    def direct(given=None):
        with service.client().post("/api/more", headers=given) as response:
            return response.status_code, response.get_data()

    assert b"-32601" in absent[2]
    assert b'"result":5' in asked(service, headers(), method="more")[2]
    assert (direct()[0], direct(headers())) == (404, (200, b"5"))
    service.rpc.discard("next")
    assert direct(headers())[0] == 404
    assert asked(service, method="more") == absent


# Whole source ----------------------------------------------------------------------------------------------------


def test_a_preview_of_the_whole_source_finds_its_own_code_wherever_it_looks(shop):
    names = ["statement", "import_module", "sys_modules", "strings", "hints", "circles", "pickles", "first_import"]
    write_shop(shop, 2)
    shop.write(1)  # what the live code imports late comes from the disk
    for name in names:
        assert set(look(shop, name, headers())) == {2}, name
        assert set(look(shop, name)) == {1}, name
    shop.site.rpc.commit("next")
    for name in names:
        assert set(look(shop, name)) == {2}, name


@pytest.mark.parametrize("name", ["statement", "first_import", "sys_modules", "added_by_name"])
def test_a_preview_that_is_inside_while_it_is_committed_finishes_on_its_code(shop, name):
    write_shop(shop, 2)
    expected = look(shop, name, headers())
    finish = inside(shop, name)
    report = shop.site.rpc.commit("next")
    assert (report.status, len(report.drain.stragglers)) == ("committed", 1)
    assert set(look(shop, "statement")) == {2}
    assert finish() == expected


def test_a_preview_that_is_inside_outlives_the_generation_that_it_was_committed_as(shop):
    write_shop(shop, 2)
    finish = inside(shop, "first_import")
    shop.site.rpc.commit("next")
    shop.reload(3)
    assert set(finish()) == {2}


def inside(shop, name):
    """A preview that is in a view function; its answer comes once it is let go."""
    pool = ThreadPoolExecutor(1)
    answer = pool.submit(lambda: shop.site.client().get(f"/wait/{name}", headers=headers()).get_json())
    pool.shutdown(wait=False)
    assert shop.gates.entered.acquire(timeout=10)

    def finish():
        shop.gates.leave.set()
        return answer.result(30)

    return finish


# Discarding ------------------------------------------------------------------------------------------------------


def test_what_is_discarded_is_served_to_nobody_and_cannot_be_committed(service):
    stage(service)
    with service.control("/discard", method="POST", json={"id": "next"}) as response:
        assert (response.status_code, response.get_json()) == (200, {"id": "next", "discarded": True})
    assert rate(service, headers()) == 1
    assert not service.rpc.discard("next")
    with service.control("/commit", method="POST", json={"id": "next"}) as response:
        assert response.status_code == 400
        assert "stage it again" in response.get_json()["detail"]
    assert stage(service, id="again").staged.id == "again"
    service.rpc.commit("again")


@pytest.mark.parametrize("name", ["statement", "first_import", "added_by_name", "late_is_known"])
def test_a_preview_that_is_inside_while_it_is_discarded_finishes_on_its_code(shop, name):
    write_shop(shop, 2)
    expected = look(shop, name, headers()) if name == "added_by_name" else [False, False]
    finish = inside(shop, name)
    assert shop.site.rpc.discard("next")
    assert look(shop, "statement", headers()) == [1, 1]
    answer = finish()
    assert answer == expected if name in ("added_by_name", "late_is_known") else set(answer) == {2}
    shop.gates.leave.clear()
    until(lambda: not interpreter.installs, "the world of what was discarded is still there")


def test_on_retire_callbacks_of_what_is_discarded_run_once_the_last_preview_has_left(service):
    gates = interpreter.live["gates"] = ModuleType("gates")
    gates.entered, gates.leave, gates.ended = threading.Event(), threading.Event(), threading.Event()
    code = f"""
    import gates
    from {service.name} import rpc
    rpc.on_retire(gates.ended.set)
    def rate() -> int:
        gates.entered.set()
        assert gates.leave.wait(10)
        return 2
    """
    service.write("handlers.py", code)
    stage(service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rate, service, headers())
        assert gates.entered.wait(10)
        service.rpc.discard("next")
        assert not gates.ended.is_set()
        gates.leave.set()
        assert answer.result(10) == 2
    assert gates.ended.wait(10)


# Time and memory -------------------------------------------------------------------------------------------------


def test_its_time_runs_out(site):
    site.write("handlers.py", RATE.format(1))
    site.serve(BODY, stage_seconds=0.2)
    site.write("handlers.py", RATE.format(2))
    stage(site)
    until(lambda: site.rpc.status()["staged"] is None, "it is still staged")
    assert rate(site, headers()) == 1
    with pytest.raises(ReloadInvalid, match="HOTRELOAD_STAGE_SECONDS"):
        site.rpc.commit("next")


@pytest.mark.parametrize("seconds", [-1, 86401, "soon"])
def test_nonsense_is_no_time_to_keep_it(site, seconds):
    with pytest.raises((TypeError, ValueError), match="HOTRELOAD_STAGE_SECONDS"):
        site.serve(stage_seconds=seconds)


def test_a_service_that_stages_nothing_has_no_thread_for_it_nor_anything_at_its_door(service):
    door = vars(service.app.extensions["hotreload"]._service.middleware)
    lock = service.rpc._service.reloader.lock
    assert door["enter"] == lock.acquire_read
    threads = set(threading.enumerate())
    stage(service)
    assert door["enter"] != lock.acquire_read
    [timer] = set(threading.enumerate()) - threads
    service.rpc.discard("next")
    timer.join(10)
    assert not timer.is_alive()
    assert (door["enter"], door["pass_by"]) == (lock.acquire_read, lock.outside)


@pytest.mark.parametrize("how", ["discarded", "replaced", "overtaken", "timed out"])
def test_what_was_staged_and_dropped_leaves_nothing(site, how):
    site.write("handlers.py", RATE.format(1))
    site.serve(BODY, stage_seconds=0.5 if how == "timed out" else 600)
    gates = interpreter.live["gates"] = ModuleType("gates")
    gates.seen = []
    code = "import gates, sys, weakref\nclass Large: pass\nlarge = Large()\n"
    code += "gates.seen = [weakref.ref(large), weakref.ref(sys.modules[__name__])]\n" + RATE.format(2)
    site.write("handlers.py", code)
    stage(site)
    assert rate(site, headers()) == 2
    seen = gates.seen
    assert all(reference() is not None for reference in seen)
    site.write("handlers.py", RATE.format(3))
    if how == "discarded":
        site.rpc.discard("next")
    elif how == "replaced":
        stage(site, id="other")
        site.rpc.discard("other")
    elif how == "overtaken":
        site.rpc.reload([ENTRY])
    until(lambda: gc.collect() >= 0 and all(each() is None for each in seen), f"it is still there: {seen}")


@pytest.mark.parametrize("how", ["discard", "commit"])
def test_whole_applications_that_were_staged_leave_nothing(shop, how):
    text = shop.files["shop_wsgi.py"] + "\n        import gates, weakref\n        gates.app = weakref.ref(app)\n"
    shop.files["shop_wsgi.py"] = text
    write_shop(shop, 2)
    assert set(look(shop, "statement", headers())) == {2}
    application = shop.gates.app
    if how == "discard":
        shop.site.rpc.discard("next")
    else:
        shop.site.rpc.commit("next")
        for edition in (3, 4, 5, 6):
            shop.reload(edition)
    shop.write(1)
    until(lambda: gc.collect() >= 0 and application() is None, "the staged application is still there")


def test_an_application_that_is_gone_leaves_nothing_of_what_it_had_staged(site):
    site.write("handlers.py", RATE.format(1))
    site.serve(BODY)
    site.write("handlers.py", RATE.format(2))
    threads = set(threading.enumerate())
    stage(site)
    [timer] = set(threading.enumerate()) - threads
    middleware = weakref.ref(site.rpc._service.middleware)
    del interpreter.live[site.name]
    site.module = site.app = site.rpc = None
    until(lambda: gc.collect() >= 0 and not interpreter.installs, "the world of what was staged is still there")
    timer.join(10)
    assert not timer.is_alive()
    assert middleware() is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # that is the subject
def test_a_forked_child_knows_of_nothing_that_is_staged(service):
    stage(service)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, b"%d %d" % (rate(service, headers()), service.rpc.status()["staged"] is None))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"1 1"
    assert rate(service, headers()) == 2


# Asking wrongly --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/commit", "/discard"])
def test_what_is_asked_wrongly_is_refused_with_the_remedy(service, route):
    for given, remedy in [({}, "needs 'id'"), ({"id": 5}, "needs 'id'"), ({"id": "next", "to": 1}, "'to' is not")]:
        with service.control(route, method="POST", json=given) as response:
            assert response.status_code == 400
            assert remedy in response.get_json()["detail"]
    with service.control(route, method="POST", json={"id": "next"}, token=None) as response:
        assert response.status_code == 401
    with service.control(route) as response:
        assert (response.status_code, response.headers["Allow"]) == (405, "POST")

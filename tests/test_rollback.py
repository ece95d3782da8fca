"""Rolling back in one process: what ran before runs once more, as a transaction with a number of its own."""

import gc
import os
import threading
import weakref

import pytest
from numbered import BODY, PARTS, page, release, served, write

from flask_hotreload import ReloadInvalid, collecting, signals
from flask_hotreload import keeping as keeping_of_generations
from flask_hotreload.keeping import TOO_MANY, WAITING


@pytest.fixture
def service(site):
    site.write("parts.py", PARTS.format(number=0))
    return site.serve(BODY.replace("{number}", "0"))


# What is served ----------------------------------------------------------------------------------------------------


def test_a_rollback_executes_nothing_and_serves_the_same_modules_with_their_state(service):
    release(service, 1)
    one = service.load(service.name), service.load("parts")
    service.call("add", 5)
    release(service, 2)
    assert service.call("add", 7) == [7]
    executed = service.write("parts.py", "raise SystemExit")
    report = service.rpc.rollback()
    os.remove(executed)
    assert (service.load(service.name), service.load("parts")) == one
    assert service.call("add", 6) == [5, 6]
    assert served(service) == 1
    assert (report.status, report.modules, report.warnings) == ("committed", (), ())
    assert (report.generation, report.previous, report.restores) == (3, 2, 1)


def test_a_file_that_is_no_text_and_that_nobody_imports_is_in_nobodys_way(service):
    file = os.path.join(os.path.dirname(service.load("parts").__file__), "no_text.py")
    release(service, 1)
    for number, data in enumerate((b"# caf\xe9", b"# th\xe9"), 2):
        with open(file, "wb") as written:
            written.write(data)
        release(service, number)
    assert service.rpc.rollback().status == "committed"
    assert service.rpc.rollback().status == "committed"
    assert served(service) == 1


def test_urls_that_the_restored_generation_does_not_have_are_gone(service):
    release(service, 1)
    assert page(service, "/only/1")[0] == 200
    service.rpc.rollback()
    assert page(service, "/only/1")[0] == 404
    assert page(service, "/only/0")[0] == 200


def test_the_report_tells_what_a_rollback_changes(service):
    release(service, 1, more='@rpc.dispatcher("/api")\ndef more() -> int: return 1')
    report = service.rpc.rollback()
    changes = {change.name: change.change for change in report.changes}
    assert changes == {"which": "replaced", "add": "replaced", "part": "replaced", "more": "removed"}
    assert report.trigger == "rollback"


def test_a_rollback_to_a_number_serves_that_generation(service):
    release(service, 1, 2, 3)
    report = service.rpc.rollback(1)
    assert (report.generation, report.restores) == (4, 1)
    assert served(service) == 1
    assert service.rpc.rollback(to=3).restores == 3
    assert served(service) == 3


def test_rollbacks_go_further_back_and_never_to_what_was_rolled_back_from(service):
    release(service, 1, 2)
    assert service.rpc.rollback().restores == 1
    release(service, 3)  # generation 4, made from the restored one
    report = service.rpc.rollback()
    assert (report.generation, report.restores) == (5, 3)
    assert served(service) == 1
    assert service.rpc.rollback().restores == 0
    assert served(service) == 0
    with pytest.raises(ReloadInvalid, match="nothing to roll back to"):
        service.rpc.rollback()
    assert service.rpc.generation == 6


def test_after_a_rollback_to_a_number_another_one_goes_to_what_was_before_that(service):
    release(service, 1, 2, 3)
    service.rpc.rollback(2)
    assert service.rpc.rollback().restores == 1
    assert served(service) == 1


def test_a_restored_generation_can_itself_be_restored_by_its_new_number(service):
    release(service, 1)
    service.rpc.rollback()
    release(service, 2)
    assert service.rpc.rollback(2).restores == 2
    assert served(service) == 0


def test_what_was_rolled_back_from_can_be_served_again_by_its_number(service):
    release(service, 1)
    service.rpc.rollback()
    assert served(service) == 0
    assert service.rpc.rollback(1).restores == 1
    assert served(service) == 1


def test_nothing_can_be_rolled_back_to_before_the_first_reload(service):
    with pytest.raises(ReloadInvalid, match="no generation before 0"):
        service.rpc.rollback()
    assert service.rpc.generation == 0


def test_the_generation_that_is_served_is_none_to_roll_back_to(service):
    release(service, 1)
    with pytest.raises(ReloadInvalid, match="generation 1 is the one that is served"):
        service.rpc.rollback(1)
    assert served(service) == 1


def test_the_files_on_disk_stay_pending_after_a_rollback_and_a_reload_takes_them(service):
    release(service, 1)
    assert service.rpc.status()["pending"] == []
    service.rpc.rollback()
    assert {each["change"] for each in service.rpc.status()["pending"]} == {"modified"}
    report = service.rpc.reload()
    assert (report.status, report.generation) == ("committed", 3)
    assert served(service) == 1


def test_the_whole_source_is_unchanged_when_the_disk_holds_what_a_rollback_restored(service):
    release(service, 1)
    service.rpc.rollback()
    write(service, 0)
    assert service.rpc.reload().status == "unchanged"


def test_what_a_restored_generation_is_the_first_to_import_is_its_own(service):
    late = '@rpc.dispatcher("/api")\ndef late() -> int:\n    import afterwards\n    return afterwards.number'
    service.write("afterwards.py", "number = 0")
    write(service, 0, late)
    service.rpc.reload()
    service.write("afterwards.py", "number = 1")
    release(service, 1, more=late)
    assert service.call("late") == 1
    service.rpc.rollback()
    assert service.call("late") == 0


def test_what_the_first_generation_is_the_first_to_import_after_a_rollback_is_its_own(site):
    late = '@rpc.dispatcher("/api")\ndef late() -> int:\n    import afterwards\n    return afterwards.number'
    site.write("afterwards.py", "number = 0")
    site.serve(late)
    site.write("afterwards.py", "number = 1")
    site.rpc.reload()
    site.rpc.rollback()
    assert site.call("late") == 0


# Labels, status, history -------------------------------------------------------------------------------------------


def test_a_rollback_has_the_label_of_what_it_restores(service):
    write(service, 1)
    service.rpc.reload(label="v1")
    write(service, 2)
    service.rpc.reload(label="v2")
    report = service.rpc.rollback()
    assert report.label == "v1"
    assert service.rpc.status()["label"] == "v1"
    assert service.rpc.rollback().label is None
    assert service.rpc.status()["label"] is None


def test_a_rollback_that_executes_the_code_again_has_the_label_too(service):
    write(service, 1, "rpc.on_retire(lambda: None)")
    service.rpc.reload(label="v1")
    release(service, 2)
    assert service.rpc.rollback().label == "v1"
    assert service.rpc.status()["label"] == "v1"


def test_the_status_tells_the_generation_that_was_live_before(service):
    assert service.rpc.status()["previous"] is None
    release(service, 1, 2)
    service.rpc.rollback()
    status = service.rpc.status()
    assert (status["generation"], status["previous"]) == (3, 2)
    assert status["last"]["restores"] == 1
    assert [report.generation for report in service.rpc.history()] == [3, 2, 1]


def test_a_rollback_that_fails_is_in_the_history_and_changes_nothing(service):
    release(service, 1)
    with pytest.raises(ReloadInvalid) as caught:
        service.rpc.rollback(17)
    report = caught.value.report
    assert (report.status, report.trigger, report.generation) == ("aborted", "rollback", 1)
    assert service.rpc.history()[0] == report
    assert served(service) == 1


def test_the_signals_of_a_rollback_carry_its_report(service):
    release(service, 1)
    seen = []

    def committed(sender, report, generation, **_):
        seen.append((sender, report.restores, generation))

    signals.reload_committed.connect(committed)
    try:
        service.rpc.rollback()
    finally:
        signals.reload_committed.disconnect(committed)
    assert seen == [(service.app, 0, 2)]  # the first generation's application is served again, and sends


# How many are kept -------------------------------------------------------------------------------------------------


def keeping(site, count):
    site.write("parts.py", PARTS.format(number=0))
    site.serve(BODY.replace("{number}", "0"), keep_generations=count)
    return site


def test_without_kept_generations_there_is_nothing_to_roll_back_to_and_nothing_is_held(site):
    keeping(site, 0)
    release(site, 1)
    gone = weakref.ref(site.load("parts").Part)
    release(site, 2)
    with pytest.raises(ReloadInvalid, match="kept are: none"):
        site.rpc.rollback()
    gc.collect()
    assert gone() is None
    assert served(site) == 2


def test_one_kept_generation_is_enough_for_one_rollback(site):
    keeping(site, 1)
    release(site, 1, 2)
    with pytest.raises(ReloadInvalid, match="generation 0 is not kept; kept are: 1"):
        site.rpc.rollback(0)
    assert site.rpc.rollback().restores == 1
    with pytest.raises(ReloadInvalid, match="generation 0 is not kept"):
        site.rpc.rollback()
    assert served(site) == 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_of_old_generations_only_the_kept_ones_are_in_memory(site, count):
    keeping(site, count)
    seen = []
    for number in range(1, 9):
        release(site, number)
        module = site.load(site.name)
        seen.append([weakref.ref(thing) for thing in (site.load("parts").Part, module.app, module.app.jinja_env)])
        del module
    gc.collect()
    alive = [[each() is not None for each in references] for references in seen]
    assert alive == [[False] * 3] * (7 - count) + [[True] * 3] * (count + 1)


def test_old_generations_go_by_themselves_where_nothing_else_has_the_garbage_collected(site, monkeypatch):
    monkeypatch.setattr(collecting, "EARLIEST", 0.0)
    monkeypatch.setattr(collecting, "LATEST", 0.01)
    keeping(site, 0)
    release(site, 1)
    gone = threading.Event()
    weakref.finalize(site.load("parts").Part, gone.set)
    gc.disable()
    try:
        release(site, *range(2, 2 + WAITING))
        assert not gone.is_set()
        release(site, 100)
        assert gone.wait(30)
    finally:
        gc.enable()


def test_reloads_of_dispatchers_only_have_no_garbage_collected(site, monkeypatch):
    asked = []
    monkeypatch.setattr(keeping_of_generations, "collect_later", lambda *, urgent: asked.append(urgent))
    keeping(site, 0)
    release(site, 1)
    for _ in range(2 * TOO_MANY):
        site.rpc.reload([{"dispatcher": "which", "scriptPath": f"{site.name}.py", "path": "/api"}])
    assert asked == []


def test_reloads_that_follow_each_other_fast_leave_a_bounded_number_of_generations(site, monkeypatch):
    monkeypatch.setattr(collecting, "EARLIEST", 3600.0)
    monkeypatch.setattr(collecting, "LATEST", 3600.0)
    keeping(site, 0)
    gone = [threading.Event() for _ in range(TOO_MANY + 1)]
    gc.disable()
    try:
        for number, event in enumerate(gone, 1):
            release(site, number)
            weakref.finalize(site.load("parts").Part, event.set)
        assert not any(event.is_set() for event in gone)
        release(site, 100, 101)
        assert all(event.wait(30) for event in gone[:-1])
    finally:
        gc.enable()


def test_rollbacks_and_reloads_in_turn_hold_a_bounded_number_of_generations(site):
    keeping(site, 1)
    classes = []
    for number in range(1, 9):
        release(site, number)
        classes.append(weakref.ref(site.load("parts").Part))
        site.rpc.rollback()
    gc.collect()
    assert served(site) == 0  # every one of them was rolled back to the first
    assert sum(each() is not None for each in classes) <= 1


def test_a_generation_is_kept_as_long_as_rollbacks_one_by_one_lead_to_it(site):
    keeping(site, 2)
    release(site, 1, 2)
    site.rpc.rollback()  # 3 restores 1; before it was 0
    site.rpc.rollback()
    assert served(site) == 0


# Over HTTP ---------------------------------------------------------------------------------------------------------


def ask(service, body=None, **options):
    if isinstance(body, bytes):
        options["data"] = body
    else:
        options["json"] = body
    return service.client().post(
        "/_reload/rollback", headers={"Authorization": "Bearer 0123456789abcdef-test"}, **options
    )


def test_a_rollback_over_http_answers_the_report(service):
    release(service, 1, 2)
    with service.control("/rollback", method="POST") as response:
        assert response.status_code == 200
        report = response.get_json()
    assert (report["status"], report["generation"], report["restores"]) == ("committed", 3, 1)
    assert report["trigger"] == "rollback"
    assert "tok:" in report["actor"]
    with ask(service, {"to": 2}) as response:
        assert response.get_json()["restores"] == 2
    with ask(service, {"to": None}) as response:
        assert response.get_json()["restores"] == 1
    assert served(service) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"to": "3"}, "must be the number of a generation"),
        ({"to": True}, "must be the number of a generation"),
        ({"to": -1}, "must be the number of a generation"),
        ({"to": 1.0}, "must be the number of a generation"),
        ({"number": 1}, "'number' is not a key of a rollback"),
        (b"[1]", "must be a JSON object"),
        (b"{", "not JSON"),
        ({"to": 99}, "generation 99 is not kept; kept are: 0"),
        ({"to": 10**30}, "not kept; kept are: 0"),
    ],
)
def test_a_bad_rollback_is_refused_with_what_is_wrong(service, body, text):
    release(service, 1)
    with ask(service, body) as response:
        assert response.status_code == 400
        assert response.mimetype == "application/problem+json"
        assert text in response.get_json()["detail"]
    assert served(service) == 1


@pytest.mark.parametrize("token", [None, "0123456789abcdef-other"])
def test_a_rollback_needs_the_token(service, token):
    release(service, 1)
    with service.control("/rollback", method="POST", token=token) as response:
        assert response.status_code == 401
    assert served(service) == 1


def test_only_post_rolls_back(service):
    release(service, 1)
    with service.control("/rollback", method="GET") as response:
        assert response.status_code == 405
    assert served(service) == 1

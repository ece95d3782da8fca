"""The control routes: who may, what is answered, and what is written down."""

import io
import json
import logging
import os
from http import HTTPStatus

import pytest
from conftest import TOKEN

from flask_hotreload import StoreUnavailable, audit

BODY = """
@rpc.dispatcher("/api")
def rate(amount: int) -> int:
    return amount

@app.get("/home")
def home():
    return "home"
"""
PROBLEM = "application/problem+json"
ENTRY = {"dispatcher": "rate", "scriptPath": "handlers.py", "path": "/api"}


@pytest.fixture
def service(site):
    site.serve(BODY)
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    return site


# Who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        "Bearer ä",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_token_nothing_is_answered(service, method, header):
    headers = {} if header is None else {"Authorization": header}
    response = service.client().open("/_reload", method=method, json={"data": ENTRY}, headers=headers)
    assert (response.status_code, response.mimetype) == (401, PROBLEM)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert service.rpc.generation == 0


@pytest.mark.parametrize("route", ["", "/generations", "/generations/x", "/rollback", "/nowhere"])
def test_every_route_but_health_needs_the_token(service, route):
    assert service.control(route, token=None).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_written_in_any_case(service, scheme):
    assert service.client().get("/_reload", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200


def test_any_token_of_a_list_will_do(site):
    tokens = ["the-first-token-of-them", "the-second-token-of-them"]
    site.serve(BODY, token=tokens)
    assert [site.control(token=token).status_code for token in (*tokens, TOKEN)] == [200, 200, 401]


def test_the_token_is_looked_at_before_the_body_is_touched(service):
    class Untouched:
        def read(self, *size):
            raise AssertionError("the body was read")

        readline = readlines = __iter__ = read

    for header, expected in ((None, 401), (f"Bearer {TOKEN}x", 401)):
        environ = {"wsgi.input": Untouched(), "CONTENT_LENGTH": "1000000000", "CONTENT_TYPE": "application/json"}
        headers = {} if header is None else {"Authorization": header}
        response = service.client().post("/_reload", headers=headers, environ_overrides=environ)
        assert response.status_code == expected


def test_without_a_configured_token_nobody_may_and_is_told_what_to_set(site, capsys):
    site.serve(BODY, token=None)
    for method in ("GET", "POST"):
        response = site.control(method=method)
        assert (response.status_code, response.mimetype) == (403, PROBLEM)
        assert "HOTRELOAD_TOKEN" in response.get_json()["detail"]
    assert site.control("/health", token=None).status_code == 200
    assert capsys.readouterr().err == ""


def test_in_debug_mode_a_token_is_made_and_told(site, capsys, monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    site.serve(BODY, token=None)
    told = capsys.readouterr().err
    token = told.partition("Bearer ")[2].partition("'")[0]
    assert len(token) > 32
    assert site.control(token=token).status_code == 200
    assert site.control(token=token + "x").status_code == 401


# Where they are --------------------------------------------------------------------------------------------------


def test_the_prefix_can_be_another(site):
    site.serve(BODY, url_prefix="/ops/reload")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = site.client()
    assert client.get("/ops/reload", headers=headers).get_json()["generation"] == 0
    assert client.get("/ops/reload/", headers=headers).status_code == 200
    assert client.get("/ops/reload/health").status_code == 200
    assert client.get("/_reload", headers=headers).status_code == 404
    assert client.get("/ops/reloaded").status_code == 404


def test_without_http_there_are_no_control_routes(site):
    site.serve(BODY, http=False)
    for route in ("", "/health", "/generations"):
        assert site.control(route).status_code == 404
    assert site.control(method="POST", json={}).status_code == 404


@pytest.mark.parametrize(
    ("method", "route", "status", "allow"),
    [
        ("PUT", "", 405, {"GET", "HEAD", "POST"}),
        ("DELETE", "", 405, {"GET", "HEAD", "POST"}),
        ("POST", "/generations", 405, {"GET", "HEAD"}),
        ("POST", "/health", 405, {"GET", "HEAD"}),
        ("GET", "/nowhere", 404, None),
        ("GET", "/generations/nobody", 404, None),
        ("HEAD", "", 200, None),
        ("HEAD", "/health", 200, None),
    ],
)
def test_other_routes_and_methods_are_refused_as_http_says(service, method, route, status, allow):
    response = service.control(route, method=method)
    assert response.status_code == status
    if allow is not None:
        assert set(response.allow) == allow
    if status >= 400:
        assert response.mimetype == PROBLEM


def test_no_answer_may_be_cached(service):
    for route in ("", "/generations", "/health"):
        assert service.control(route).headers["Cache-Control"] == "no-store"


def test_the_hooks_of_the_application_do_not_run(site):
    site.serve(BODY + "\n@app.before_request\ndef before(): abort(500)")
    assert site.client().get("/home").status_code == 500
    assert site.control().status_code == 200


# Reloading -------------------------------------------------------------------------------------------------------


def test_a_committed_reload_is_answered_by_its_report(service):
    response = service.reload_over_http(data=ENTRY, label="v2", id="deploy-1")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    report = response.get_json()
    assert (report["id"], report["status"], report["label"]) == ("deploy-1", "committed", "v2")
    assert report["trigger"] == "http"
    assert report == service.rpc.history()[0].to_dict()
    assert report["actor"] == f"127.0.0.1 tok:{audit.token_fingerprint(TOKEN)}"
    assert len(audit.token_fingerprint(TOKEN)) == 8
    assert service.call("rate", 5) == 10


def test_whoever_has_the_token_can_have_any_importable_function_served(service):
    # No rule that is wanted, but a fact that the page on security has to tell.
    entry = {"dispatcher": "os:getpid", "name": "pid", "path": "/api"}
    assert service.reload_over_http(data=entry).status_code == 200
    assert service.call("pid") == os.getpid()


def test_any_content_type_is_accepted(service):
    body = json.dumps({"data": ENTRY})
    for content_type in ("application/x-www-form-urlencoded", "text/plain", None):
        response = service.control(method="POST", data=body, content_type=content_type)
        assert response.status_code == 200


def test_a_dry_run_is_answered_by_what_would_change(service):
    report = service.reload_over_http(data=ENTRY, dryRun=True).get_json()
    assert (report["status"], report["generation"]) == ("checked", 0)
    assert service.rpc.generation == 0


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b"5", b'"x"', b"null", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_bad_request(service, body):
    response = service.control(method="POST", data=body)
    assert (response.status_code, response.mimetype) == (400, PROBLEM)
    assert "JSON" in response.get_json()["detail"]


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body_is_an_empty_document(service, body):
    response = service.control(method="POST", data=body)
    assert response.status_code == 200
    assert service.name in response.get_json()["modules"]  # the whole source


@pytest.mark.parametrize("chunked", [False, True])
def test_a_document_above_the_limit_is_too_large(site, chunked):
    site.serve(BODY, max_body=100)
    body = json.dumps({"label": "x" * 100}).encode()
    options = {"data": body}
    if chunked:
        options = {"input_stream": io.BytesIO(body), "environ_overrides": {"wsgi.input_terminated": True}}
    response = site.control(method="POST", **options)
    assert (response.status_code, response.mimetype) == (413, PROBLEM)
    assert "100 bytes" in response.get_json()["detail"]
    assert site.rpc.history() == []


def _fault(service, kind):
    """A document that fails in this way."""
    document = {"data": dict(ENTRY)}
    if kind == "document":
        document["nonsense"] = 1
    elif kind == "outside":
        document["data"]["scriptPath"] = "/etc/hostname"
    elif kind == "expect":
        document["expect"] = 7
    elif kind == "syntax":
        service.write("handlers.py", "def rate(:")
    elif kind == "missing":
        document["data"]["dispatcher"] = "nobody"
    elif kind == "callback":
        service.write("handlers.py", "def rate() -> int: return 1\ndef fail(*given): raise ValueError")
        document["data"]["overload"] = "fail"
    elif kind == "check":
        document["checks"] = [{"url": "/home", "status": 404}]
    return document


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("document", 400, "ReloadInvalid"),
        ("outside", 400, "ReloadInvalid"),
        ("expect", 409, "ReloadBusy"),
        ("syntax", 422, "LoadError"),
        ("missing", 422, "LoadError"),
        ("callback", 422, "ApplyError"),
        ("check", 422, "CheckFailed"),
    ],
)
def test_each_kind_of_failure_has_its_status_and_tells_the_report(service, kind, status, error):
    response = service.reload_over_http(**_fault(service, kind))
    assert (response.status_code, response.mimetype) == (status, PROBLEM)
    problem = response.get_json()
    assert (problem["status"], problem["report"]["status"], problem["report"]["error"]["type"]) == (
        status,
        "aborted",
        error,
    )
    assert problem["detail"] == problem["report"]["error"]["message"]
    assert (problem["title"], problem["type"]) == (HTTPStatus(status).phrase, "about:blank")
    assert service.control("/generations").get_json()[0] == problem["report"]
    assert service.call("rate", 5) == 5


def test_a_drain_that_is_to_abort_is_a_gateway_time_out(site):
    site.serve(
        BODY
        + """
@rpc.dispatcher("/api")
def ask() -> list:
    import contextvars, threading
    from conftest import TOKEN
    answers = []
    def reload():
        document = {"data": {"dispatcher": "rate", "path": "/api"}, "timeout": 0.01, "onTimeout": "abort"}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answers.append(app.test_client().post("/_reload", json=document, headers=headers))
    thread = threading.Thread(target=reload)
    thread.start()
    thread.join()
    return [answers[0].status_code, answers[0].get_json()["report"]["error"]["type"]]
"""
    )
    assert site.call("ask") == [504, "DrainTimeout"]
    assert site.rpc.generation == 0


def test_several_processes_without_a_common_store_are_refused(site):
    site.serve(BODY, coordinator="local")
    site.write("handlers.py", "def rate(amount: int) -> int: return 2 * amount")
    response = site.control(method="POST", json={"data": ENTRY}, environ_overrides={"wsgi.multiprocess": True})
    assert response.status_code == 503
    problem = response.get_json()
    assert "HOTRELOAD_COORDINATOR" in problem["detail"]
    assert problem["report"]["error"]["type"] == StoreUnavailable.__name__
    assert site.call("rate", 5) == 5


# Looking ---------------------------------------------------------------------------------------------------------


def test_the_status_over_http_is_that_of_python(service):
    status = service.control().get_json()
    expected = service.rpc.status()
    for worker in (*status["workers"], *expected["workers"]):
        worker.pop("seen_ms")
    assert status == expected


def test_generations_are_the_reports_newest_first(service):
    service.reload_over_http(data=ENTRY, id="one")
    service.reload_over_http(nonsense=1, id="two")
    assert [report["id"] for report in service.control("/generations").get_json()] == ["two", "one"]
    assert service.control("/generations/one").get_json()["status"] == "committed"


def test_health_needs_no_token_and_is_not_held(service):
    healths = []

    def callback(server, module, dispatcher):
        healths.append(service.control("/health", token=None).status_code)
        healths.append(service.control().get_json()["generation"])

    service.reload({**ENTRY, "overload": callback})
    assert healths == [200, 0]


# The audit log ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lines(caplog):
    """The audit log's entries so far."""
    caplog.set_level(logging.INFO, "flask_hotreload.audit")
    return lambda: [
        json.loads(record.getMessage()) for record in caplog.records if record.name == "flask_hotreload.audit"
    ]


def test_every_attempt_is_one_line_with_actor_and_outcome(service, lines):
    service.reload_over_http(data=ENTRY, id="deploy-1")
    service.control(token=None)
    service.reload_over_http(nonsense=1)
    service.control("/nowhere")
    done, refused, invalid, unknown = lines()
    assert set(done) == {"at", "actor", "method", "path", "status", "outcome"}
    assert done["actor"] == f"127.0.0.1 tok:{audit.token_fingerprint(TOKEN)}"
    assert (done["method"], done["path"], done["status"]) == ("POST", "/_reload", 200)
    assert done["outcome"].startswith("reload deploy-1 committed")
    assert (refused["actor"], refused["status"]) == ("127.0.0.1", 401)
    assert invalid["outcome"].startswith("ReloadInvalid: 'nonsense' is not a key")
    assert unknown["status"] == 404


def test_health_is_no_attempt(service, lines):
    service.control("/health", token=None)
    assert lines() == []


def test_no_token_gets_into_the_log(service, caplog, lines):
    service.control(token="a-wrong-guess-at-the-token")
    service.control()
    assert len(lines()) == 2
    assert "a-wrong-guess" not in caplog.text
    assert TOKEN not in caplog.text


def test_what_a_client_sends_cannot_break_out_of_its_line(service, caplog, lines):
    service.reload_over_http(**{'x\n{"actor": "root"}\u2028\x1b[31m': 1})
    service.client().get("/_reload/a%0Ab%E2%80%A8c", headers={"Authorization": f"Bearer {TOKEN}"})
    assert len(lines()) == 2
    for record in caplog.records:
        if record.name == "flask_hotreload.audit":
            assert record.getMessage().isascii()
            assert record.getMessage().isprintable()

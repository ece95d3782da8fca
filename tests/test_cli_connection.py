"""What may happen between the command line and the service: cuts, proxies, certificates, redirects."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cluster import TOKEN
from command_line import RELOAD, CommandLine, Stop, cutting, finish, generation, serving, url_of, write

from flask_hotreload.cli.events import COMMENT, Event, events

STATUS = {"generation": 7, "label": None, "in_flight": 0, "held": 0, "workers": [], "pending": [], "last": None}
ANSWER = (200, {"Content-Type": "application/json"}, json.dumps(STATUS).encode())


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cli") / "service", workers=2) as running:
        running.await_members()
        yield running


@pytest.fixture
def line(running):
    write(running.folder, 0)
    return CommandLine(url_of(running), running.folder)


# Connections that break ------------------------------------------------------------------------------------------


def before_the_answer(answered):
    return 0


def after_the_first_event(answered):
    return answered.index(b"\n\n", answered.index(b"event: begin")) if b"event: begin" in answered else None


def before_the_report(answered):
    return answered.index(b"event: report") if b"event: report" in answered else None


def within_the_report(answered):
    return answered.index(b"event: report") + 40 if b"event: report" in answered else None


@pytest.mark.parametrize("where", [before_the_answer, after_the_first_event, before_the_report, within_the_report])
@pytest.mark.parametrize("command", [RELOAD, ("rollback",)])
def test_what_breaks_is_asked_again_with_the_same_id_and_done_once(running, line, where, command):
    write(running.folder, 1)
    running.reload({"data": {"dispatcher": "edition", "scriptPath": "edition.py", "path": "/api"}})
    before, connections = generation(running), []

    def cut(number, answered):
        connections.append(number)
        return where(answered) if number == 1 else None

    with cutting(running.address, cut) as url:
        done = line.run(*command, "--id", f"{where.__name__}-{command[0]}", "--url", url)
    assert (done.code, generation(running)) == (0, before + 1), done
    assert max(connections) == 2
    assert "; asking again with the same id" in done.err
    assert done.out.startswith(f"committed: generation {before} → {before + 1}")


def test_a_retry_waits_for_the_reload_that_is_still_under_way(running, line, tmp_path):
    stop = Stop(tmp_path, running.workers())
    write(running.folder, 2, before=stop.source)
    before = generation(running)

    def cut(number, answered):
        return after_the_first_event(answered) if number == 1 else None

    with cutting(running.address, cut) as url, line.start(*RELOAD, "--url", url) as process:
        while b"asking again" not in process.stderr.readline():
            pass
        stop.go_on()
        done = finish(process)
    assert (done.code, generation(running)) == (0, before + 1), done


def test_a_connection_that_breaks_each_time_is_6_and_tells_how_to_ask(running, line):
    with cutting(running.address, lambda number, answered: 0) as url:
        done = line.run(*RELOAD, "--url", url, "--id", "cut", "--patience", "3")
    assert done.code == 6
    assert "Whether it was reloaded is unknown. What has become of it: flask-hotreload history cut" in done.err
    assert line.run("history", "cut").out.startswith("committed")


def test_a_question_that_breaks_is_6(running, line):
    with cutting(running.address, lambda number, answered: 30) as url:
        assert line.run("status", "--url", url).code == 6


def test_events_are_put_together_from_any_pieces():
    text = (
        b'event: phase\ndata: {"phase": "drain"}\n\n:\n\nevent: report\r\ndata: {"status": 200}\r\n\r\nevent: cut\nda'
    )
    for size in (1, 2, 7, 1000):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert list(events(pieces)) == [
            Event("phase", {"phase": "drain"}), COMMENT, Event("report", {"status": 200})
        ]  # fmt: skip


# Other servers in between ----------------------------------------------------------------------------------------


class Stub(BaseHTTPRequestHandler):
    """Answers as a service does, as a proxy does, or by a redirect; remembers what it was asked."""

    def do_GET(self):
        seen = self.server.seen
        seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments):
        pass


@contextmanager
def stub(answer=ANSWER, context=None):
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        server.seen, server.answer = [], answer
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_the_environment_names_proxies_and_what_goes_without_them(line, tmp_path):
    with stub() as proxy:
        env = {"http_proxy": f"http://me:secret@127.0.0.1:{proxy.server_port}"}
        done = line.run("status", "--url", "http://service.example:8000", env=env)
        assert done.code == 0
        [(asked, headers)] = proxy.seen
        assert asked == "http://service.example:8000/_reload"
        assert headers["proxy-authorization"].startswith("Basic ")
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert line.run("status", env={**env, "no_proxy": "127.0.0.1"}).code == 0
        assert len(proxy.seen) == 1
    done = line.run("status", "--url", "http://service.example:8000", env=env)
    assert done.code == 6
    assert "secret" not in done.err


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """One that signs itself, for 127.0.0.1; with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{file}.key", "-out", f"{file}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.with_name("both.pem.key").read_text() + file.with_name("both.pem.crt").read_text())
    return file


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_tls_trusts_whom_the_environment_names_and_nobody_else(line, certificate, variable):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with stub(context=context) as server:
        url = f"https://127.0.0.1:{server.server_port}"
        assert line.run("status", "--url", url, env={variable: f"{certificate}.crt"}).code == 0
        done = line.run("status", "--url", url)
        assert done.code == 6
        assert "SSL_CERT_FILE may name the authorities to trust" in done.err
        assert len(server.seen) == 1  # nobody who is not trusted gets the token


def test_a_redirect_is_not_followed_with_the_token(line):
    with stub((301, {"Location": "https://service.example/_reload"}, b"")) as server:
        done = line.run(*RELOAD, "--url", f"http://127.0.0.1:{server.server_port}")
    assert done.code == 2
    assert "redirects to https://service.example/_reload: give --url as it is there" in done.err
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_answers_in_the_place_of_the_service_is_asked_again(line, status):
    with stub((status, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")) as server:
        done = line.run(*RELOAD, "--url", f"http://127.0.0.1:{server.server_port}", "--patience", "1")
    assert done.code == 6
    assert f"a proxy answers {status} in the place of the service" in done.err
    assert len(server.seen) > 1


def test_an_answer_without_events_will_do(line):
    report = {
        "id": "x", "status": "unchanged", "generation": 3, "previous": 3, "timings": {"total_ms": 1.0, "pause_ms": 0},
        "drain": {"held": 0}, "workers": [], "warnings": [], "changes": [], "error": None,
    }  # fmt: skip
    with stub((200, {"Content-Type": "application/json"}, json.dumps(report).encode())) as server:
        done = line.run("reload", "--url", f"http://127.0.0.1:{server.server_port}")
    assert (done.code, done.out) == (0, "unchanged: the source is as it runs, in generation 3\n")

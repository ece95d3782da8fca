"""The middleware gives each request one slot and one generation, and takes them back exactly once."""

from __future__ import annotations

import contextvars
import gc
import io
import socket
import struct
import weakref
from pathlib import Path
from wsgiref.util import FileWrapper

import pytest
import requests
from actors import PATIENCE, actors, until
from flask import Flask, Response
from gunicorn.http.wsgi import FileWrapper as GunicornFileWrapper
from servers import serve
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app
from werkzeug.wsgi import FileWrapper as WerkzeugFileWrapper

from flask_hotreload.middleware import HotReloadMiddleware, _is_complete
from flask_hotreload.rwlock import Gate, ReadersWriterLock, current_slot

APPS = Path(__file__).parent / "apps"
TEXT = [("Content-Type", "text/plain")]


class Generation:
    """Weakly referable, as real ones."""

    def __init__(self, wsgi_app, name="first"):
        self.wsgi_app = wsgi_app
        self.name = name


class Service:
    """What the middleware asks of a service, and the middleware in front of it."""

    def __init__(self, wsgi_app, **options):
        self.lock = ReadersWriterLock()
        self.current = Generation(wsgi_app)
        self.middleware = HotReloadMiddleware(self, **options)

    def call(self, path="/", start_response=lambda *_: None, **extra):
        environ = EnvironBuilder(path=path).get_environ()
        return self.middleware({**environ, **extra}, start_response)

    def held(self, path="/"):
        """Whether a request of ``path`` is held by a closed gate."""
        gate = Gate()
        with actors(2) as (writer, client):
            writer.do(self.lock.close, gate)
            future = client.start(lambda: list(self.call(path)))
            until(lambda: self.lock.held or future.done())
            held = not future.done()
            writer.do(self.lock.open, gate)
            future.result(PATIENCE)
            assert gate.held == held
        return held

    @property
    def inside(self):
        return self.lock.in_flight


def answers(*chunks, headers=TEXT):
    def wsgi_app(environ, start_response):
        start_response("200 OK", list(headers))
        return list(chunks)

    return wsgi_app


# Until close() ---------------------------------------------------------------------------------------------------


def test_the_slot_is_kept_until_close():
    service = Service(answers(b"one", b"two"))
    body = service.call()
    assert service.inside == 1
    assert list(body) == [b"one", b"two"]
    assert service.inside == 1
    body.close()
    assert service.inside == 0
    body.close()
    assert service.inside == 0


def test_a_streamed_body_counts_until_it_is_closed():
    def wsgi_app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"one"
        yield b"two"

    service = Service(wsgi_app)
    body = service.call()
    chunks = iter(body)
    assert next(chunks) == b"one"
    assert service.inside == 1
    body.close()  # the client hung up
    assert service.inside == 0


def test_one_request_sees_one_generation_until_close():
    def wsgi_app(environ, start_response):
        start_response("200 OK", TEXT)
        while True:
            yield current_slot.get().pin.name.encode()

    service = Service(wsgi_app)
    body = service.call()
    chunks = iter(body)
    assert next(chunks) == b"first"
    old = weakref.ref(service.current)
    service.current = Generation(wsgi_app, "second")
    assert next(chunks) == b"first"
    other = service.call()
    assert next(iter(other)) == b"second"
    other.close()
    assert old() is not None
    body.close()
    assert old() is None, "a closed response keeps its generation alive"


def test_a_context_that_outlives_the_request_does_not_keep_its_generation():
    contexts = []

    def wsgi_app(environ, start_response):
        contexts.append(contextvars.copy_context())
        start_response("200 OK", TEXT)
        return []

    service = Service(wsgi_app)
    service.call().close()
    old = weakref.ref(service.current)
    service.current = Generation(wsgi_app)
    assert old() is None


@pytest.mark.parametrize("started", [False, True])
def test_an_exception_gives_the_slot_back(started):
    def wsgi_app(environ, start_response):
        if started:
            start_response("200 OK", TEXT)
        raise ZeroDivisionError

    service = Service(wsgi_app)
    with pytest.raises(ZeroDivisionError) as caught:
        service.call()
    assert service.inside == 0, "at once, not when the traceback goes away"
    assert caught.tb is not None


def test_an_exception_in_the_body_leaves_the_slot_to_close():
    def wsgi_app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b""
        raise ZeroDivisionError

    service = Service(wsgi_app)
    body = service.call()
    with pytest.raises(ZeroDivisionError):
        list(body)
    assert service.inside == 1
    body.close()
    assert service.inside == 0


class FailingBody(list):
    def close(self):
        raise ZeroDivisionError


def failing_response():
    response = Response("complete")
    response.call_on_close(FailingBody().close)
    return response


@pytest.mark.parametrize(
    "wsgi_app",
    [
        pytest.param(lambda environ, start: start("200 OK", TEXT) or FailingBody(), id="its own body"),
        pytest.param(failing_response(), id="Werkzeug's response"),
    ],
)
def test_a_close_that_raises_gives_the_slot_back(wsgi_app):
    service = Service(wsgi_app)
    body = service.call()
    with pytest.raises(ZeroDivisionError):
        body.close()
    assert service.inside == 0


def test_the_applications_own_close_is_called_once():
    app = Flask(__name__)
    closed = []

    @app.get("/")
    def view():
        response = Response("hello")
        response.call_on_close(lambda: closed.append(service.inside))
        return response

    service = Service(app.wsgi_app)
    body = service.call()
    list(body)
    body.close()
    assert closed == [1], "what runs in close() is part of the request"
    assert service.inside == 0


UNREAD = pytest.mark.parametrize("wsgi_app", [answers(b"never read"), Response("never read")])


@UNREAD
def test_a_response_that_is_dropped_unclosed_gives_the_slot_back(wsgi_app):
    service = Service(wsgi_app)
    service.call()  # nobody keeps it
    assert service.inside == 0


@UNREAD
def test_a_response_that_only_the_collector_finds_gives_the_slot_back(wsgi_app):
    service = Service(wsgi_app)
    cycle = [service.call()]
    cycle.append(cycle)
    del cycle
    with actors(1) as (other,):
        other.do(gc.collect)  # on another thread
    assert service.inside == 0


def test_a_response_may_be_closed_by_another_thread():
    service = Service(answers(b"one"))
    body = service.call()
    with actors(1) as (other,):
        assert other.do(list, body) == [b"one"]
        other.do(body.close)
    assert service.inside == 0


def test_a_head_request_gives_the_slot_back():
    app = Flask(__name__)
    app.get("/")(lambda: "hello")
    service = Service(app.wsgi_app)
    with Client(service.middleware).head("/") as response:
        assert response.headers["Content-Length"] == "5"
        assert response.data == b""
    assert service.inside == 0


def test_an_application_may_start_its_response_while_it_is_iterated():
    def wsgi_app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"made"

    service = Service(wsgi_app)
    chunks, status, headers = run_wsgi_app(service.middleware, EnvironBuilder().get_environ(), buffered=True)
    assert (b"".join(chunks), status, headers["Content-Type"]) == (b"made", "200 OK", "text/plain")
    assert service.inside == 0


def test_start_response_is_passed_on_as_it_is():
    calls = []

    def wsgi_app(environ, start_response):
        assert start_response("200 OK", TEXT) == "write"
        start_response("500 Oh", [], ("type", "value", "traceback"))
        return []

    service = Service(wsgi_app)
    service.call(start_response=lambda *arguments: calls.append(arguments) or "write").close()
    assert calls == [("200 OK", TEXT), ("500 Oh", [], ("type", "value", "traceback"))]


# Files -----------------------------------------------------------------------------------------------------------


class Plain:
    """A file wrapper that has ``close`` in its class, and takes attributes."""

    def __init__(self, file, size=8192):
        self.file = file

    def __iter__(self):
        return iter(self.file.read, b"")

    def close(self):
        self.file.close()


class Frozen(Plain):
    """One that takes none."""

    __slots__ = ("file",)

    def __init__(self, file, size=8192):
        object.__setattr__(self, "file", file)

    def __setattr__(self, name, value):
        raise AttributeError(name)


class File(io.BytesIO):
    closings = 0

    def close(self):
        self.closings += 1
        super().close()


def sends(file):
    def wsgi_app(environ, start_response):
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](file)

    return wsgi_app


@pytest.mark.parametrize("wrapper", [GunicornFileWrapper, FileWrapper, WerkzeugFileWrapper, Plain])
def test_the_servers_own_file_wrapper_stays_what_it_is(wrapper):
    file = File(b"content")
    service = Service(sends(file))
    body = service.call(**{"wsgi.file_wrapper": wrapper})
    assert type(body) is wrapper
    assert b"".join(body) == b"content"
    assert service.inside == 1
    body.close()
    assert (service.inside, file.closings) == (0, 1)


@pytest.mark.parametrize("wrapper", [GunicornFileWrapper, FileWrapper, Plain])
def test_a_file_wrapper_that_is_dropped_gives_the_slot_back(wrapper):
    service = Service(sends(File(b"content")))
    service.call(**{"wsgi.file_wrapper": wrapper})
    assert service.inside == 0


def test_a_file_wrapper_that_takes_no_attributes_is_sent_as_any_body():
    file = File(b"content")
    service = Service(sends(file))
    body = service.call(**{"wsgi.file_wrapper": Frozen})
    assert b"".join(body) == b"content"
    body.close()
    assert (service.inside, file.closings) == (0, 1)


# Event streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
@pytest.mark.parametrize("value", ["text/event-stream", "text/event-stream; charset=utf-8"])
def test_an_event_stream_stops_counting_when_it_starts_and_keeps_its_generation(name, value):
    def wsgi_app(environ, start_response):
        assert service.inside == 1
        start_response("200 OK", [("Cache-Control", "no-store"), (name, value)])
        assert service.inside == 0
        while True:
            yield current_slot.get().pin.name.encode()

    service = Service(wsgi_app)
    body = service.call()
    chunks = iter(body)
    next(chunks)
    old = weakref.ref(service.current)
    service.current = Generation(wsgi_app, "second")
    assert next(chunks) == b"first"
    body.close()
    assert old() is None


# Paths outside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "held"),
    [("/live", False), ("/live/", False), ("/live/x", False), ("/liver", True), ("/x/live", True), ("/", True)],
)
def test_exempt_paths_are_whole_segments(path, held):
    service = Service(answers(), exempt=["/live/"])
    assert service.held(path) is held


def test_an_exempt_request_does_not_count_and_keeps_its_generation():
    service = Service(answers(b"chunk"), exempt=["/live"])
    body = service.call("/live")
    assert service.inside == 0
    old = weakref.ref(service.current)
    service.current = Generation(answers())
    assert old() is not None
    body.close()
    assert old() is None


@pytest.mark.parametrize(("path", "controlled"), [("/_reload", True), ("/_reload/x", True), ("/_reloaded", False)])
def test_the_control_application_is_outside_the_lock(path, controlled):
    control = answers(b"control")
    service = Service(answers(b"service"), control=control, prefix="/_reload")
    assert list(service.call(path)) == [b"control" if controlled else b"service"]
    assert service.held(path) is not controlled


def test_without_a_control_application_its_prefix_is_the_services():
    service = Service(answers(b"service"), prefix="/_reload")
    assert list(service.call("/_reload")) == [b"service"]


def test_a_request_without_a_path_is_served():
    service = Service(answers(b"service"), control=answers(b"control"), prefix="/_reload", exempt=["/live"])
    body = service.middleware({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert list(body) == [b"service"]
    assert [(reader.method, reader.path) for reader in service.lock.readers()] == [("GET", "?")]
    body.close()


# Nested calls ----------------------------------------------------------------------------------------------------


class Nesting:
    """An application that calls itself at a chosen moment, while a writer waits."""

    def __init__(self, moment, headers=TEXT):
        self.moment = moment
        self.headers = headers
        self.service = Service(self)
        self.answered = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/inner":
            start_response("200 OK", TEXT)
            return [current_slot.get().pin.name.encode()]
        return self.outer(start_response)

    def outer(self, start_response):
        self.at("call")
        start_response("200 OK", self.headers)
        return self

    def __iter__(self):
        yield b""
        self.at("iteration")

    def close(self):
        self.at("close")

    def at(self, moment):
        if moment == self.moment:
            with Client(self.service.middleware).get("/inner") as response:
                self.answered.append(response.get_data())


@pytest.mark.parametrize("moment", ["call", "iteration", "close"])
@pytest.mark.parametrize("headers", [TEXT, [*TEXT, ("Content-Length", "0")]])
def test_calls_of_the_application_by_itself_pass_with_its_generation(moment, headers):
    app = Nesting(moment, headers)
    service = app.service
    gate = Gate()
    with actors(3) as (writer, caller, closer):

        def before_the_nested_call(original=app.at):
            def at(now):
                if now == moment:
                    writer.do(service.lock.close, gate)
                    service.current = Generation(app, "second")
                original(now)

            return at

        app.at = before_the_nested_call()
        body = caller.do(service.call)
        # Not on the thread that entered: it is the context that counts.
        closer.do(list, body)
        closer.do(body.close)
        assert app.answered == [b"first"]
        assert writer.do(service.lock.drain, gate) == ()
        writer.do(service.lock.open, gate)


def test_the_servers_own_code_between_chunks_is_not_inside():
    def wsgi_app(environ, start_response):
        start_response("200 OK", TEXT)
        assert current_slot.get() is not None
        yield b"one"
        assert current_slot.get() is not None
        yield b"two"

    service = Service(wsgi_app)
    body = service.call()
    assert current_slot.get() is None
    for _ in body:
        assert current_slot.get() is None
    body.close()
    assert current_slot.get() is None


def test_a_response_that_a_test_forgot_to_close_delays_nothing():
    service = Service(answers(b"hello"))
    forgotten = service.call()
    with service.lock.write() as inside:  # without a time-out
        assert inside == ()
    assert list(forgotten) == [b"hello"]


@pytest.mark.parametrize(
    ("response", "complete"),
    [
        (lambda: "text", True),
        (lambda: Response(b"bytes"), True),
        (lambda: Response(["a", "list"]), True),
        (lambda: ({"json": 1}, 201), True),
        (lambda: Response(iter([b"made", b"later"])), False),
        (lambda: Response((b"made later" for _ in range(1)), headers={"Content-Length": "10"}), False),
    ],
)
def test_only_bodies_that_are_made_already_are_handed_over_as_they_are(response, complete):
    """If this fails after an update, Werkzeug's iterator has changed: nothing is wrong but the speed."""
    app = Flask(__name__)
    app.get("/")(response)
    body = app.wsgi_app(EnvironBuilder().get_environ(), lambda *_: None)
    assert _is_complete(body) is complete


# Real servers ----------------------------------------------------------------------------------------------------


def status(server):
    return requests.get(server.url + "/_status", timeout=10).json()


@pytest.fixture(params=["sync", "gthread", "gevent"], scope="module")
def gunicorn(request):
    with serve(
        "gunicorn", app="middleware_app:app", cwd=APPS, worker_class=request.param, ready="/_status"
    ) as server:
        yield server


def test_gunicorn_sends_files_by_itself(gunicorn):
    before = len(status(gunicorn)["sent"])
    answer = requests.get(gunicorn.url + "/file", timeout=10)
    assert len(answer.content) == 1_000_000
    until(lambda: status(gunicorn)["sent"][before:] == [True])
    until(lambda: status(gunicorn)["inside"] == 0)  # it closes after the client has read all


def test_gunicorn_answers_head_requests(gunicorn):
    for path in ("/", "/file"):
        answer = requests.head(gunicorn.url + path, timeout=10)
        assert (answer.status_code, answer.content) == (200, b"")
    until(lambda: status(gunicorn)["inside"] == 0)


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/event-stream"])
def test_a_client_that_hangs_up_does_not_keep_its_slot(gunicorn, kind):
    with gunicorn.connect() as client:
        client.sendall(f"GET /endless?type={kind} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        # Close with a reset, as a client that dies does.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: status(gunicorn)["inside"] == 0)


@pytest.mark.parametrize("kind", ["flask", "waitress"])
def test_other_servers_give_every_slot_back(kind):
    with serve(kind, app="middleware_app:app", cwd=APPS, ready="/_status") as server:
        assert requests.get(server.url + "/", timeout=10).text == "hello"
        assert len(requests.get(server.url + "/file", timeout=10).content) == 1_000_000
        assert requests.head(server.url + "/", timeout=10).status_code == 200
        with server.connect() as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: status(server)["inside"] == 0)

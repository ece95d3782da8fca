"""What ``propagate`` carries to where a request's context does not reach."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from actors import PATIENCE, actors, until
from test_middleware import TEXT, Generation, Service
from werkzeug.test import Client

from flask_hotreload.propagate import propagate
from flask_hotreload.rwlock import Gate, current_slot


def generation():
    slot = current_slot.get()
    return None if slot is None else slot.pin.name


class Starts:
    """An application whose requests hand ``function``, propagated, to ``hand_over``."""

    def __init__(self, function, hand_over):
        self.function = function
        self.hand_over = hand_over
        self.service = Service(self)

    def __call__(self, environ, start_response):
        start_response("200 OK", TEXT)
        if environ["PATH_INFO"] == "/":
            self.hand_over(propagate(self.function))
        return [generation().encode()]


def call(service, path):
    with Client(service.middleware).get(path) as response:
        return response.get_data()


def test_a_thread_of_a_request_has_its_slot_and_generation():
    results = []

    def in_thread():
        results.append(generation())
        results.append(call(app.service, "/inner"))

    gate = Gate()
    with actors(1) as (writer,):

        def hand_over(function):
            writer.do(app.service.lock.close, gate)
            app.service.current = Generation(app, "second")
            thread = threading.Thread(target=function)
            thread.start()
            thread.join(PATIENCE)  # the request waits for what it started: it must not be held
            assert not thread.is_alive()

        app = Starts(in_thread, hand_over)
        app.service.call().close()
        assert results == ["first", b"first"]
        assert writer.do(app.service.lock.drain, gate) == ()
        writer.do(app.service.lock.open, gate)


def test_an_executor_gets_arguments_results_and_exceptions():
    def divide(a, *, b):
        return generation(), a // b

    futures = []
    with ThreadPoolExecutor(1) as executor:

        def hand_over(function):
            futures.extend([executor.submit(function, 6, b=3), executor.submit(function, 6, b=0)])
            assert futures[0].result(PATIENCE) == ("first", 2)

        app = Starts(divide, hand_over)
        app.service.call().close()
        with pytest.raises(ZeroDivisionError):
            futures[1].result(PATIENCE)
        until(lambda: app.service.inside == 0)
        assert executor.submit(generation).result(PATIENCE) is None


def test_the_writer_waits_for_what_a_request_started_and_left_behind():
    started, finish = threading.Event(), threading.Event()

    def work():
        started.set()
        assert finish.wait(PATIENCE)

    threads = []

    def hand_over(function):
        threads.append(threading.Thread(target=function))
        threads[0].start()
        assert started.wait(PATIENCE)

    app = Starts(work, hand_over)
    app.service.call("/").close()
    (reader,) = app.service.lock.readers()
    assert (reader.method, reader.path) == ("GET", "/")
    with app.service.lock.write(timeout=0) as inside:
        assert len(inside) == 1
    finish.set()
    threads[0].join(PATIENCE)
    assert app.service.inside == 0


def test_what_begins_after_the_request_is_held_like_a_request_of_its_generation():
    functions = []
    app = Starts(generation, functions.append)
    app.service.call().close()
    app.service.current = Generation(app, "second")
    gate = Gate()
    with actors(2) as (writer, late):
        writer.do(app.service.lock.close, gate)
        future = late.start(functions[0])
        until(lambda: app.service.lock.held == 1)
        writer.do(app.service.lock.open, gate)
        assert future.result(PATIENCE) == "first"
    assert app.service.inside == 0


def test_a_generation_lives_as_long_as_what_carries_it():
    functions = []
    app = Starts(generation, functions.append)
    app.service.call().close()
    old = weakref.ref(app.service.current)
    app.service.current = Generation(app, "second")
    assert old() is not None
    functions.clear()
    assert old() is None


def test_outside_of_a_request_there_is_nothing_to_carry():
    assert propagate(generation) is generation


def test_a_greenlet_has_the_slot_and_generation_of_the_request_that_spawned_it():
    pytest.importorskip("gevent")
    script = """
from gevent import monkey
monkey.patch_all()
import gevent
from types import SimpleNamespace
from flask_hotreload.middleware import HotReloadMiddleware
from flask_hotreload.propagate import propagate
from flask_hotreload.rwlock import Gate, ReadersWriterLock, current_slot

def inner(environ, start_response):
    return [current_slot.get().pin.name]

def outer(environ, start_response):
    gate = Gate()
    gevent.spawn(service.lock.close, gate).get(timeout=10)
    service.current = SimpleNamespace(wsgi_app=inner, name="second")
    answer = gevent.spawn(propagate(lambda: current_slot.get().pin.name)).get(timeout=10)
    assert gevent.spawn(lambda: current_slot.get()).get(timeout=10) is None
    gevent.spawn(service.lock.open, gate).get(timeout=10)
    return [answer]

service = SimpleNamespace(lock=ReadersWriterLock(), current=SimpleNamespace(wsgi_app=outer, name="first"))
middleware = HotReloadMiddleware(service)
body = middleware({"PATH_INFO": "/"}, None)
assert list(body) == ["first"], list(body)
body.close()
assert service.lock.in_flight == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=30)

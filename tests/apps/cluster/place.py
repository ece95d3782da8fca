"""A service that tells where its process stands under gunicorn. It is made by what the environment names."""

import json
import os
import threading
from multiprocessing import get_context

from flask_hotreload import boot

calls = []
made = []


def make():
    """What an application does when it is made."""
    seen = boot.boot_place()
    registered = boot.before_serving(begin, afterwards=end)
    made.append({"seen": told(seen), "registered": registered, "pid": os.getpid()})


def told(place):
    return None if place is None else [place.master_pid, place.release, place.in_master]


def begin(place):
    place.notify()
    calls.append(told(place))


def end():
    write({"ended": os.getpid()})


def write(line):
    with open(os.environ["PLACE_LOG"], "a") as file:
        file.write(json.dumps(line) + "\n")


def child(connection):
    connection.send([told(boot.boot_place()), boot.before_serving(begin), calls])


def children():
    """What each kind of child says of itself."""
    answers = {}
    for method in ("fork", "spawn"):
        context = get_context(method)
        here, there = context.Pipe()
        process = context.Process(target=child, args=(there,))
        process.start()
        answers[method] = here.recv()
        process.join()
    return answers


def leave_by_exception():
    """Fork a child that leaves through all frames of the worker, and wait until it has."""
    pid = os.fork()
    if pid == 0:
        raise SystemExit(7)
    os.waitpid(pid, 0)


def app(environ, start_response):
    answer = {"pid": os.getpid(), "parent": os.getppid(), "made": made, "calls": calls}
    if environ["PATH_INFO"] == "/children":
        answer["children"] = children()
    if environ["PATH_INFO"] == "/late":
        make()
    if environ["PATH_INFO"] == "/fork":
        leave_by_exception()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


if os.environ.get("PLACE_THREAD"):
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
else:
    make()

"""Hooks for gunicorn. Recommended: with them a worker starts from what is served, whatever lies on the disk by then.

As the whole configuration::

    gunicorn -c python:flask_hotreload.gunicorn -w 4 app:app

or called from one's own ``gunicorn.conf.py``::

    from flask_hotreload import gunicorn as hotreload

    def on_reload(server):
        hotreload.on_reload(server)
        ...

    post_fork, child_exit = hotreload.post_fork, hotreload.child_exit

All or none. What they add:

* gunicorn's master has loaded this package, so that a new worker acts before it imports the application: once
  something has been reloaded, it imports what its siblings run (:mod:`flask_hotreload.boot_sources`). Without that it
  acts when the application imports this package. Then a file of the application's that is broken by then, and
  imported before that, ends the whole service: gunicorn halts if a worker cannot start.
* A worker that is spawned later, after a crash, say, knows to which HUP it belongs even if all workers of that HUP
  died before the first one of them served.
* With ``PROMETHEUS_MULTIPROC_DIR``, the gauges of workers that have ended are told no longer.
* They work where gunicorn's stack, which is otherwise read, shows nothing.

gunicorn takes every name in this module that is one of its settings: there are no others than the hooks.
"""

from __future__ import annotations

import os
from typing import Protocol

from flask_hotreload import boot
from flask_hotreload.dead_worker import forget_metrics


class Arbiter(Protocol):
    """What is used of gunicorn's master object."""

    worker_age: int


class Ended(Protocol):
    """What is used of a worker that has ended."""

    pid: int


def on_reload(server: Arbiter) -> None:
    """In the master, on HUP, before it spawns the workers of the new release."""
    boot.tell_release(server.worker_age)


def post_fork(server: Arbiter, worker: boot.Worker) -> None:
    """In a new worker, before it imports the application."""
    boot.tell_worker(worker)


def child_exit(server: Arbiter, worker: Ended) -> None:
    """In the master, when a worker has ended: what prometheus-client says of a living one is said of it no longer."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        forget_metrics(worker.pid)

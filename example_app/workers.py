"""The workers of the service, each over a connection of its own.

Who connects is given to any worker, by the kernel. To ask one of them, or each, one has to hold a connection to it:
it stays with the worker that has accepted it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from http.client import HTTPConnection, HTTPException
from threading import Event
from time import monotonic
from typing import Any

from example_app.load import Call, Sample, send, worker_of
from example_app.server import GunicornServer, ServerError


class Workers:
    """A context manager, in which ``number`` workers of ``servers`` are there and take part in reloads.

    ``servers``
        One, or several that reload together and have one token. Those that do not run are passed over.
    ``timeout``
        Seconds within which they must be there, and answer. :class:`ServerError`: they were not, or did not.
    """

    def __init__(self, servers: Sequence[GunicornServer], number: int, *, timeout: float = 60.0) -> None:
        self.number = number
        self._servers = servers
        self._timeout = timeout
        self._connections: dict[int, HTTPConnection] = {}

    def __enter__(self) -> Workers:
        self.meet()
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in self._connections.values():
            connection.close()

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of those that were there when they last met."""
        return frozenset(self._connections)

    @property
    def _running(self) -> list[GunicornServer]:
        return [server for server in self._servers if server.running]

    def meet(self, *, without: Collection[int] = ()) -> None:
        """Wait until ``number`` are there, none of ``without`` among them, and connect to those that are new."""
        pids = self._await_members(without)
        for gone in self.pids - pids:
            self._connections.pop(gone).close()
        self._connections |= self.connect(pids - self.pids)

    def send(self, pid: int, call: Call) -> Sample:
        """Have one worker answer a call."""
        return send(self._connections[pid], call)

    def get(self, pid: int, path: str) -> Any:
        """One worker's answer to ``GET path``; the token is sent along."""
        return self._request(self._connections[pid], "GET", path)

    def post(self, pid: int, path: str) -> Any:
        """One worker's answer to ``POST path`` without a body."""
        return self._request(self._connections[pid], "POST", path)

    def connect(self, pids: Collection[int]) -> dict[int, HTTPConnection]:
        """A further connection to each of these workers; it is the caller's to close.

        Many are opened at once, since the kernel may give one after the other to the same worker.
        """
        found: dict[int, HTTPConnection] = {}
        deadline = monotonic() + self._timeout
        while missing := set(pids) - set(found):
            if monotonic() > deadline:
                raise ServerError(f"workers {sorted(missing)} accept no connection")
            addresses = [server.address for server in self._running] * 2 * self.number
            fresh = [HTTPConnection(*address, timeout=self._timeout) for address in addresses]
            try:
                for connection in fresh:
                    connection.connect()
                for connection in fresh:
                    connection.request("GET", "/health")
                for connection in fresh:
                    response = connection.getresponse()
                    response.read()
                    worker = worker_of(response)
                    if worker in missing and worker not in found:
                        found[worker] = connection
            except (OSError, HTTPException) as failure:
                raise ServerError(f"a worker does not answer: {failure!r}") from failure
            finally:
                for connection in fresh:
                    if connection not in found.values():
                        connection.close()
        return found

    def _await_members(self, without: Collection[int]) -> frozenset[int]:
        """Wait for them as the status tells of them, from whichever worker it comes."""
        deadline, pause = monotonic() + self._timeout, Event()
        while True:
            connection = HTTPConnection(*self._running[0].address, timeout=self._timeout)
            try:
                told = self._request(connection, "GET", "/_reload")["workers"]
            finally:
                connection.close()
            pids = {worker["pid"] for worker in told if worker["state"] == "serving"} - set(without)
            if len(pids) == self.number:
                return frozenset(pids)
            if monotonic() > deadline:
                raise ServerError(f"there should be {self.number} workers, and there are: {told}")
            pause.wait(0.05)

    def _request(self, connection: HTTPConnection, method: str, path: str) -> Any:
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {self._servers[0].token}"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as failure:
            raise ServerError(f"{method} {path} was not answered: {failure!r}") from failure
        if response.status != 200:
            raise ServerError(f"{method} {path} was answered {response.status}: {answer[:500]!r}")
        return json.loads(answer)

"""The checker must fail what it is there to fail: here it asks a server that does each wrong thing once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from checker import Checker

GOOD = {"generation": 1, "edition": 1, "pid": 10}
DROP, REFUSE = "drop the connection", "answer 503"


@contextmanager
def serving(script: list[object]) -> Iterator[tuple[str, int]]:
    """A server that answers one request after another as ``script`` says, and with its last line from then on."""
    lock = Lock()
    lines = iter(script)
    last = script[-1]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                line = next(lines, last)
            if line == DROP:
                self.close_connection = True
                return
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": line}).encode()
            self.send_response(503 if line == REFUSE else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(script: list[object]) -> Checker:
    """A checker that has asked all of the script, with one client, one request after the other."""
    with serving(script) as address, Checker(address, clients=1, rate=100) as checker:
        for _ in script:
            checker.another_round()
    return checker


def test_good_answers_are_clean() -> None:
    verdict = asked([GOOD, {**GOOD, "pid": 11}, {**GOOD, "generation": 2, "edition": 5}]).verdict()
    verdict.assert_clean()
    assert verdict.generations == [1, 2]
    assert verdict.processes.keys() == {10, 11}


def test_an_old_answer_after_a_new_one_is_found() -> None:
    verdict = asked([{**GOOD, "generation": 2, "edition": 2}, GOOD]).verdict()
    assert verdict.old_after_new >= 1
    with pytest.raises(AssertionError, match="answered by an old generation"):
        verdict.assert_clean()


def test_a_rejected_request_is_a_failure_whoever_is_killed() -> None:
    checker = asked([GOOD, REFUSE, GOOD])
    for verdict in (checker.verdict(), checker.verdict(lost_with=10)):
        with pytest.raises(AssertionError, match="HTTP status 503"):
            verdict.assert_clean()


def test_two_codes_of_one_generation_are_a_failure() -> None:
    with pytest.raises(AssertionError, match="generation 1 is edition 1 and, in process 11, 2"):
        asked([GOOD, {**GOOD, "edition": 2, "pid": 11}, GOOD]).verdict().assert_clean()


def test_a_broken_connection_is_forgiven_only_if_the_killed_process_held_it() -> None:
    checker = asked([{**GOOD, "pid": 10}, DROP, {**GOOD, "pid": 11}])
    checker.verdict(lost_with=10).assert_clean()
    for verdict in (checker.verdict(), checker.verdict(lost_with=11)):
        assert len(verdict.failed) == 1


def test_a_connection_that_breaks_before_anybody_answered_on_it_is_a_failure() -> None:
    checker = asked([{**GOOD, "pid": 10}, DROP, DROP, {**GOOD, "pid": 10}])
    assert len(checker.verdict(lost_with=10).failed) == 1

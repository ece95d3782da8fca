"""The comparison with other libraries: it says which it could not measure, and refuses one that answers wrongly."""

import pytest
from flask import Flask

from bench import peers
from bench.effort import VARIABLE


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")


def test_a_library_that_is_not_installed_is_said_to_be_so(monkeypatch):
    missing = peers.Peer("no-such-library", True, lambda: Flask("nothing"))
    monkeypatch.setattr(peers, "PEERS", (missing,))
    named = {figure.name: figure.value for figure in peers.measure()}
    assert named["no-such-library"].startswith("not measured: ")
    assert "calls/s" in named["single calls, this library"]


def test_a_library_that_answers_wrongly_is_not_measured(monkeypatch):
    def application():
        app = Flask("wrong")
        app.post("/api")(lambda: {"jsonrpc": "2.0", "id": 1, "result": "nothing was called"})
        return app

    monkeypatch.setattr(peers, "PEERS", (peers.Peer("Flask", True, application),))
    with pytest.raises(RuntimeError, match="Flask answers"):
        peers.measure()

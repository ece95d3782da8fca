"""Full garbage collections that a reload calls for come later, one at a time, and not into a reload."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator

import pytest

from flask_hotreload import collecting
from flask_hotreload.collecting import collect_later
from flask_hotreload.pace import ShortTurns

PATIENCE = 30.0


class Draws:
    """Stands for the random moments: each comes when the test says so. ``drawn``: how many were asked for."""

    def __init__(self) -> None:
        self.drawn = threading.Semaphore(0)
        self._over = threading.Semaphore(0)

    def uniform(self, earliest: float, latest: float) -> float:
        assert 0 < earliest < latest
        self.drawn.release()
        assert self._over.acquire(timeout=PATIENCE)
        return 0.0

    def come(self) -> None:
        assert self.drawn.acquire(timeout=PATIENCE)
        self._over.release()


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    draws = Draws()
    monkeypatch.setattr(collecting, "random", draws)
    monkeypatch.setattr(collecting._Collection, "next", None)
    return draws


@pytest.fixture
def collected() -> Iterator[list[str]]:
    """By which threads full collections were begun."""
    threads: list[str] = []

    def see(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            threads.append(threading.current_thread().name)

    gc.callbacks.append(see)
    yield threads
    gc.callbacks.remove(see)


def collecting_thread() -> threading.Thread:
    [thread] = [thread for thread in threading.enumerate() if thread.name == "hotreload-collect"]
    return thread


def await_end(thread: threading.Thread) -> None:
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_collection_comes_at_a_moment_that_is_drawn(draws, collected):
    collect_later()
    thread = collecting_thread()
    assert "hotreload-collect" not in collected
    draws.come()
    await_end(thread)
    assert collected.count("hotreload-collect") == 1


def test_who_asks_before_it_has_come_gets_the_same_one(draws, collected):
    collect_later()
    collect_later()
    thread = collecting_thread()
    draws.come()
    await_end(thread)
    assert collected.count("hotreload-collect") == 1
    collect_later()
    thread = collecting_thread()
    draws.come()
    await_end(thread)
    assert collected.count("hotreload-collect") == 2


def test_into_a_reload_it_does_not_come_but_draws_again(draws, collected):
    turns = ShortTurns()
    try:
        collect_later()
        thread = collecting_thread()
        draws.come()
        draws.come()
        assert draws.drawn.acquire(timeout=PATIENCE)  # the third: so the two before have come to nothing
        assert "hotreload-collect" not in collected
    finally:
        turns.end()
    draws.drawn.release()
    draws.come()
    await_end(thread)
    assert collected.count("hotreload-collect") == 1


def test_an_urgent_one_comes_at_once_even_into_a_reload(collected, monkeypatch):
    monkeypatch.setattr(collecting._Collection, "next", None)
    monkeypatch.setattr(collecting, "EARLIEST", 2 * PATIENCE)
    monkeypatch.setattr(collecting, "LATEST", 2 * PATIENCE)
    turns = ShortTurns()
    try:
        collect_later()
        thread = collecting_thread()
        assert "hotreload-collect" not in collected
        collect_later(urgent=True)
        await_end(thread)
        assert collected.count("hotreload-collect") == 1
    finally:
        turns.end()


def test_without_a_thread_for_it_the_log_says_so_and_a_later_reload_asks_again(draws, collected, monkeypatch, caplog):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with caplog.at_level(logging.WARNING, "flask_hotreload"):
            collect_later()
    assert "can't start new thread" in caplog.text
    collect_later()
    thread = collecting_thread()
    draws.come()
    await_end(thread)
    assert collected.count("hotreload-collect") == 1

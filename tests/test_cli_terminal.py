"""The command line before a terminal: a reload is followed in place, the status is drawn anew."""

from __future__ import annotations

import signal

import pytest
from command_line import RELOAD, CommandLine, OnTerminal, Stop, serving, url_of, write


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cli") / "service", workers=2) as running:
        running.await_members()
        yield running


@pytest.fixture
def line(running):
    return CommandLine(url_of(running), running.folder)


def test_a_reload_is_shown_while_it_is_under_way_worker_by_worker(running, line, tmp_path):
    stop = Stop(tmp_path, running.workers())
    write(running.folder, 1, before=stop.source)
    shown = OnTerminal(line, *RELOAD, "--id", "seen")
    shown.until("reload seen: 2 workers", "prepare  check  drain  apply  decide  release", "…")
    with stop.first_reached():
        assert "prepared" not in shown.shown
    shown.until("prepared")
    assert "applied" not in shown.shown
    stop.go_on()
    assert shown.finish() == 0
    assert "committed: generation 0 → 1" in shown.shown
    end = shown.shown.rpartition("committed:")[2]
    assert [end.count(f":{pid} ") for pid in running.workers()] == [1, 1]
    assert "\x1b[1A" in shown.raw  # lines are written anew, in place
    assert shown.raw.count("\x1b[?25l") == shown.raw.count("\x1b[?25h")  # the cursor is there again


def test_an_error_is_shown_in_red_with_the_line_at_fault_as_it_stands(running, line):
    write(running.folder, 0, after="def broken[/red](\n")
    shown = OnTerminal(line, *RELOAD)
    assert shown.finish() == 1
    assert "\x1b[31medition.py:3: SyntaxError: " in shown.raw
    assert "    def broken[/red](\r\n" in shown.shown


def test_what_a_terminal_would_obey_is_not_passed_on(running, line):
    write(running.folder, 0, after="raise ValueError('\\x1b]0;owned\\x07')\n")
    shown = OnTerminal(line, "check", "--label", "\x1b[2Jlabel")
    assert shown.finish() == 1
    assert "\x1b]" not in shown.raw
    assert "\x1b[2J" not in shown.raw
    assert "\x07" not in shown.raw


def test_a_dumb_terminal_gets_lines(running, line):
    write(running.folder, 2)
    shown = OnTerminal(line, *RELOAD, TERM="dumb")
    assert shown.finish() == 0
    assert "prepare …\r\n" in shown.raw
    assert "\x1b[1A" not in shown.raw


def test_a_watched_status_is_drawn_anew_until_ctrl_c(running, line):
    shown = OnTerminal(line, "status", "--watch", "--interval", "0.1")
    shown.until("worker", *(f":{pid} " for pid in running.workers()))
    write(running.folder, 3)
    document = {"data": {"dispatcher": "edition", "scriptPath": "edition.py", "path": "/api"}, "label": "watched"}
    running.reload(document)
    shown.until("(watched)")
    shown.process.send_signal(signal.SIGINT)
    assert shown.finish() == 0
    assert "\x1b[1A" in shown.raw

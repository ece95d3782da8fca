"""The command line against a real service, through pipes: what it prints where, and with which code it ends."""

from __future__ import annotations

import configparser
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from cluster import PATIENCE, until
from command_line import RELOAD, CommandLine, Stop, finish, generation, serving, url_of, write

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cli") / "service", workers=2) as running:
        running.await_members()
        yield running


@pytest.fixture
def line(running):
    """In the folder of the service, whose file is as it runs."""
    write(running.folder, 0)
    return CommandLine(url_of(running), running.folder)


# Exit code 0 -----------------------------------------------------------------------------------------------------


def test_a_committed_reload_is_0_and_tells_phases_changes_and_workers(running, line):
    write(running.folder, 1)
    before = generation(running)
    done = line.run(*RELOAD, "--id", "first", "--label", "v1")
    assert done.code == 0, done
    assert done.out.startswith(f"committed: generation {before} → {before + 1} (v1); requests were held for ")
    assert "  replaced /api edition\n" in done.out
    rows = [row.split() for row in done.out.splitlines()[2:]]
    assert rows[0] == ["WORKER", "RESULT", "HELD", "FOR", "ERROR"]
    assert {int(row[0].rpartition(":")[2]) for row in rows[1:]} == running.workers()
    assert {row[1] for row in rows[1:]} == {"ok"}
    told = done.err.splitlines()
    assert told[0] == "reload first: 2 workers"
    assert [each for each in told if each.endswith(" …")] == ["prepare …", "drain …", "decide …", "release …"]
    for state in ("prepared", "applied", "released"):
        assert len([each for each in told if each.endswith(f" {state}")]) == 2, told
    report = running.status()["last"]
    assert (report["id"], report["trigger"], report["label"]) == ("first", "cli", "v1")
    assert not [text for text in (done.out, done.err) if "\x1b" in text]


def test_the_whole_source_is_reloaded_if_nothing_is_named_and_unchanged_is_0(running, line):
    write(running.folder, 2)
    assert line.run("reload").out.startswith("committed: ")
    done = line.run("reload")
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        f"unchanged: the source is as it runs, in generation {generation(running)}",
    )


def test_a_check_is_0_changes_nothing_and_warns_of_what_the_import_leaves_behind(running, line):
    write(running.folder, 3, before="import atexit\natexit.register(print)\n")
    before = generation(running)
    done = line.run("check")
    assert (done.code, generation(running)) == (0, before)
    assert done.out.startswith("checked: it would be committed; ")
    assert "warning: 1 atexit callback registered\n" in done.err
    done = line.run("check", "--json")
    assert (done.json["status"], done.json["warnings"]) == ("checked", ["1 atexit callback registered"])


def test_a_check_takes_the_document_of_a_reload_whose_probation_it_leaves_out(running, line):
    write(running.folder, 4)
    document = {"probation": {"seconds": 1, "maxErrors": 0}}
    (running.folder / "reload.json").write_text(json.dumps(document))
    done = line.run("check", "--file", str(running.folder / "reload.json"))
    assert (done.code, done.out.startswith("checked: ")) == (0, True), done


def test_a_rollback_is_0_and_tells_what_it_restores(running, line):
    before = generation(running)
    for edition in (4, 5):
        write(running.folder, edition)
        assert line.run(*RELOAD).code == 0
    done = line.run("rollback", "--to", str(before + 1))
    assert done.code == 0
    assert done.out.startswith(f"committed: generation {before + 2} → {before + 3}, as {before + 1} was; ")
    assert running.call("edition") == 4


def test_status_and_history_tell_what_runs_and_what_was_done(running, line):
    write(running.folder, 5)
    assert line.run(*RELOAD).code == 0
    write(running.folder, 6)
    assert line.run(*RELOAD, "--id", "told", "--label", "six").code == 0
    write(running.folder, 7)
    done = line.run("status")
    assert done.code == 0
    shown = done.out.splitlines()
    assert shown[0] == f"generation {generation(running)} (six), 0 requests inside, 0 held"
    assert shown[1:3] == ["on disk, and not running:", f"  modified {running.folder}/edition.py"]
    assert shown[3].startswith("last reload, told: committed: ")
    assert sorted(row.split()[2] for row in shown[5:]) == ["serving", "serving"]
    assert line.run("status", "--json").json["label"] == "six"
    done = line.run("history", "-n", "2")
    assert done.out.splitlines()[1].split()[1:3] == ["told", "committed"]
    assert len(done.out.splitlines()) == 3
    assert [report["id"] for report in line.run("history", "--json", "-n", "1").json] == ["told"]
    assert line.run("history", "told").out.startswith("committed: ")
    assert line.run("history", "told", "--json").json["id"] == "told"
    done = line.run("history", "nothing")
    assert done.code == 2
    assert done.err.startswith("error: no report with the id 'nothing'")


def test_every_new_token_is_another_one(line):
    tokens = {line.run("token").out.strip() for _ in range(2)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 40


# Exit code 1: the compiler-like error ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["reload", "check"])
def test_a_syntax_error_is_1_with_its_place_and_line(running, line, command):
    write(running.folder, 0, after="def broken(\n")
    before = generation(running)
    done = line.run(command)
    assert (done.code, generation(running)) == (1, before)
    said = done.err.splitlines()
    place = said.index("edition.py:3: SyntaxError: '(' was never closed")
    assert said[place + 1 : place + 3] == ["    def broken(", "              ^"]
    assert done.out.startswith(f"aborted: nothing has changed, generation {before} goes on\n")
    assert " failed " in done.out


def test_an_error_when_it_is_imported_quotes_the_line_that_ran_whatever_lies_on_disk_by_then(running, line, tmp_path):
    stop = Stop(tmp_path, running.workers())
    write(running.folder, 0, before=f"{stop.source}raise ValueError('no tea')\n")
    with line.start(*RELOAD) as process:
        with stop.first_reached():
            write(running.folder, 1)
        done = finish(process)
    assert done.code == 1
    said = done.err.splitlines()
    place = said.index("edition.py:2: ValueError: no tea")
    assert said[place + 1] == "    raise ValueError('no tea')"


def test_a_place_is_told_in_full_from_elsewhere(running, line, tmp_path):
    write(running.folder, 0, after="1 / 0\n")
    done = CommandLine(line.url, tmp_path).run("check", *RELOAD[1:])
    assert f"{running.folder}/edition.py:3: ZeroDivisionError: division by zero\n    1 / 0\n" in done.err


def test_a_check_that_fails_is_1_and_has_no_place(line):
    document = {"checks": [{"path": "/api", "method": "add", "params": [1], "result": 7}], "data": None}
    document["data"] = {"dispatcher": "edition", "scriptPath": "edition.py", "path": "/api"}
    done = line.run("reload", "-f", "-", sent=json.dumps(document))
    assert done.code == 1
    assert "error: check of 'add' at '/api'" in done.err
    assert "check …" in done.err


# Exit code 2 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sent", "said"),
    [
        (("reload", "-f", "-"), '{"nonsense": 1}', "error: 'nonsense' is not a key of the document"),
        (("reload", "-f", "-"), "{", "error: standard input is not JSON"),
        (("reload", "-f", "-"), "[]", "error: standard input must hold a JSON object"),
        (("reload", "-f", "nowhere.json"), None, "error: nowhere.json cannot be read: No such file or directory"),
        (("reload", "-f", "-", "--dispatcher", "edition"), "{}", "error: --file and --dispatcher do not go together"),
        (("reload", "--script", "edition.py"), None, "error: --script, --path and --instance belong to a --dispatch"),
        (("reload", "--nonsense"), None, "Usage: "),
        (("reload", "--url", "nowhere"), None, "error: --url must be like https://host:8000, not 'nowhere'"),
        (("status", "--prefix", "/elsewhere"), None, "error: http://127.0.0.1:"),
        (("rollback", "--to", "12345"), None, "error: generation 12345"),
        (("status", "--url", "http://me:secret@127.0.0.1"), None, "error: leave user and password out of --url"),
    ],
)
def test_a_wrong_document_or_command_is_2_and_says_what_is_wrong(line, arguments, sent, said):
    done = line.run(*arguments, sent=sent)
    assert done.code == 2, done
    assert said in done.err
    assert "secret" not in done.err


# Exit codes 3, 4, 5 ----------------------------------------------------------------------------------------------


def test_another_generation_than_expected_is_3(running, line):
    done = line.run(*RELOAD, "--expect", "12345")
    assert done.code == 3
    assert f"error: generation {generation(running)} is live, not 12345 as expected" in done.err


def test_a_service_whose_workers_cannot_meet_is_4(tmp_path):
    with serving(tmp_path / "service", workers=2, env={"HOTRELOAD_COORDINATOR": "local"}) as running:
        done = CommandLine(url_of(running), running.folder).run(*RELOAD)
    assert done.code == 4
    assert "error: this server runs several processes" in done.err


def test_requests_that_do_not_leave_in_time_are_5(running, line, tmp_path):
    inside, pipe = tmp_path / "inside", tmp_path / "pipe"
    os.mkfifo(inside)
    os.mkfifo(pipe)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(running.call("wait", str(inside), str(pipe))))
    asking.start()
    inside.read_text()
    done = line.run(*RELOAD, "--timeout", "0.1", "--on-timeout", "abort")
    pipe.write_text("left")
    asking.join()
    assert answers == ["left"]
    assert done.code == 5
    assert "error: after 0.1 s requests were still inside: POST /api " in done.err


def test_an_answer_that_does_not_come_is_5_and_tells_how_to_ask_for_it(running, line, tmp_path):
    stop = Stop(tmp_path, running.workers())
    write(running.folder, 8, before=stop.source)
    done = line.run(*RELOAD, "--id", "late", "--patience", "1")
    stop.go_on()
    assert done.code == 5
    assert "goes on in the service. What has become of it: flask-hotreload history late" in done.err
    until(lambda: line.run("history", "late").code == 0, "the reload did not go on")


# Exit codes 6 and 7 ----------------------------------------------------------------------------------------------


def test_a_service_that_is_not_there_is_6_at_once(line):
    done = line.run(*RELOAD, "--url", "http://127.0.0.1:1")
    assert (done.code, done.out) == (6, "")
    assert done.err == "error: http://127.0.0.1:1 cannot be reached: Connection refused\n"


@pytest.mark.parametrize("value", ["", None])
def test_no_token_is_7(line, value):
    done = line.run("status", env={"HOTRELOAD_TOKEN": value})
    assert done.code == 7
    assert done.err.startswith("error: no token: set HOTRELOAD_TOKEN, or name a file")


@pytest.mark.parametrize("command", [("status",), RELOAD])
def test_a_wrong_token_is_7_and_is_not_shown(line, command):
    done = line.run(*command, env={"HOTRELOAD_TOKEN": "secret-and-wrong-0123"})
    assert done.code == 7
    assert done.err.startswith("error: the service does not know this token")
    assert "secret-and-wrong" not in done.out + done.err


def test_the_first_of_several_tokens_is_used(line):
    assert line.run("status", env={"HOTRELOAD_TOKEN": f"{line.environment()['HOTRELOAD_TOKEN']},other"}).code == 0


def test_a_token_file_goes_before_the_environment_and_is_warned_of_if_others_can_read_it(line, tmp_path):
    file = tmp_path / "token"
    file.write_text(line.environment()["HOTRELOAD_TOKEN"] + "\n")
    wrong = {"HOTRELOAD_TOKEN": "wrong-0123456789abcdef"}
    for mode, warned in ((0o600, False), (0o640, True), (0o604, True)):
        file.chmod(mode)
        done = line.run("status", "--token-file", str(file), env=wrong)
        assert done.code == 0
        told = f"warning: others can read the token file {file} (mode {mode:04o}); chmod 600 it\n"
        assert done.err == (told if warned else "")


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"\n", "no token in"), (b"\xff", "no text")]
)
def test_a_token_file_without_a_token_is_7(line, tmp_path, content, said):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    done = line.run("status", "--token-file", str(file))
    assert done.code == 7
    assert said in done.err


# JSON ------------------------------------------------------------------------------------------------------------


def test_json_is_one_document_on_standard_output_and_nothing_else(running, line):
    write(running.folder, 9)
    done = line.run(*RELOAD, "--json")
    assert (done.code, done.err, done.json["status"]) == (0, "", "committed")
    write(running.folder, 0, after="def broken(\n")
    done = line.run(*RELOAD, "--json")
    assert done.code == 1
    assert (done.json["status"], done.json["report"]["error"]["line"]) == (422, 3)
    assert done.err.startswith("edition.py:3: SyntaxError")
    for arguments, code, status in (
        (("reload", "-f", "nowhere"), 2, None),
        ((*RELOAD, "--expect", "12345"), 3, 409),
        (("status", "--url", "http://127.0.0.1:1"), 6, None),
        (("status", "--prefix", "/elsewhere"), 2, None),
    ):
        done = line.run(*arguments, "--json")
        assert (done.code, done.json["status"]) == (code, status)
        assert done.json["detail"]


# Labels ----------------------------------------------------------------------------------------------------------


def test_the_label_is_what_git_calls_the_source_unless_it_is_given(running, line, tmp_path):
    write(running.folder, 10)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1.4.2")
    there = CommandLine(line.url, tmp_path)
    assert labelled(there) == "v1.4.2"
    (tmp_path / "file").write_text("2")
    assert labelled(there) == "v1.4.2-dirty"
    assert labelled(there, "--label", "mine") == "mine"
    assert labelled(there, "--label", "") is None
    (tmp_path / "document.json").write_text('{"label": "the document\'s"}')
    assert labelled(there, "-f", "document.json") == "the document's"


def test_outside_of_a_repository_and_without_git_there_is_no_label(line, tmp_path):
    assert labelled(CommandLine(line.url, tmp_path)) is None
    assert labelled(line, env={"PATH": ""}) is None


def labelled(line, *options, **more):
    return line.run("check", "--json", *options, **more).json.get("label")


def git(folder, *arguments):
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


# Interruptions ---------------------------------------------------------------------------------------------------


def test_ctrl_c_says_that_the_reload_goes_on_and_how_to_ask_for_it(running, line, tmp_path):
    stop = Stop(tmp_path, running.workers())
    write(running.folder, 11, before=stop.source)
    with line.start(*RELOAD, "--id", "left") as process:
        while b"prepare" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code == 130
    assert "What has begun goes on in the service. What has become of it: flask-hotreload history left" in done.err
    stop.go_on()
    until(lambda: line.run("history", "left").code == 0, "the reload did not go on")
    assert running.call("edition") == 11


def test_who_reads_no_more_changes_neither_the_reload_nor_the_code(running, line):
    write(running.folder, 12)
    reader, writer = os.pipe()
    os.close(reader)
    with line.start(*RELOAD, stdout=writer, stderr=writer) as process:
        os.close(writer)
        done = finish(process)
    assert done.code == 0
    assert running.call("edition") == 12


def test_watching_tells_again_and_again_until_ctrl_c_also_while_the_service_is_away(line):
    with line.start("status", "--watch", "--interval", "0.1", "--json") as process:
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 0
    assert [len(status["workers"]) for status in told] == [2, 2]
    with line.start("status", "--watch", "--interval", "0.1", "--url", "http://127.0.0.1:1") as process:
        assert [process.stderr.readline() for _ in range(2)] == [
            b"error: http://127.0.0.1:1 cannot be reached: Connection refused\n"
        ] * 2
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 0
    assert line.run("status", "--watch", env={"HOTRELOAD_TOKEN": None}).code == 7


# Where it is found -----------------------------------------------------------------------------------------------


def test_it_is_a_script_and_a_command_of_flask_that_does_not_import_the_application(line, tmp_path):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    found = {}
    for group in ("console_scripts", "flask.commands"):
        name, _, target = config["options.entry_points"][group].strip().partition(" = ")
        module, _, attribute = target.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    assert callable(found["flask-hotreload"])
    assert isinstance(found["hotreload"], click.Group)
    (tmp_path / "app.py").write_text("raise SystemExit('imported')\n")
    code = (
        "import sys, flask.cli; from flask_hotreload.cli.entry import hotreload;"
        "assert not {'rich', 'urllib3'} & sys.modules.keys();"
        "group = flask.cli.FlaskGroup(create_app=None); group._loaded_plugin_commands = True;"
        "group.add_command(hotreload); group.main(['--app', 'app', 'hotreload', 'status', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=line.environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done
    assert len(json.loads(done.stdout)["workers"]) == 2


# Waiting for the end of a probation ------------------------------------------------------------------------------


def test_a_probation_that_is_passed_is_0(running, line):
    write(running.folder, 1)
    done = line.run(*RELOAD, "--probation", "0.5", "--max-errors", "0", "--wait")
    assert done.code == 0, done
    assert f"generation {generation(running)} has passed its probation: " in done.out


def test_a_generation_that_makes_too_many_errors_is_1_and_the_errors_are_named(running, line):
    before = generation(running)
    file = running.folder / "edition.py"
    file.write_text("def edition() -> int:\n    raise KeyError('tea')\n")
    process = line.start(*RELOAD, "--probation", "60", "--max-errors", "2", "--wait", text=True)
    until(lambda: generation(running) > before, "nothing was reloaded")
    for _ in range(3):
        status, _ = running.request("POST", "/api/edition")
        assert status == 500
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    assert f"generation {before + 1} rolled back\n" in err
    assert "over its limit: 3 errors in " in err
    [line_of_kind] = [each for each in err.splitlines() if "KeyError" in each]
    assert f"{file}:2" in line_of_kind
    assert "3" in line_of_kind.replace(str(file), "")
    assert running.status()["last"]["restores"] == before


def test_waiting_without_a_probation_is_2(line):
    assert line.run(*RELOAD, "--wait").code == 2

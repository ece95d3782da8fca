"""The how-tos as they stand: their commands work on a real gunicorn, and their examples are well formed."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cluster import TOKEN, cluster, service, write_edition
from gunicorn.config import Timeout

from flask_hotreload.cli.commands import commands
from flask_hotreload.config import KEYS

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [
    *sorted((DOCS / "how-to").glob("*.rst")),
    *(DOCS / name for name in ("many-hosts.rst", "security.rst", "comparison.rst")),
]


def blocks(page, language):
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", page.read_text("utf-8"), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def lines_of(page, *words):
    """The lines of its commands that begin with one of the words, in their order."""
    commands = "\n".join(blocks(page, "sh")).splitlines()
    return [line for line in commands if line.startswith(words)]


def page_id(file):
    return file.relative_to(DOCS).as_posix()


# Well formed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_example_is_well_formed(page):
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "ini"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str
        parser.read_string(block)
    for block in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    for block in blocks(page, "nginx"):
        assert block.count("{") == block.count("}")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_command_line_takes_every_command_that_a_page_types(page):
    for block in blocks(page, "sh"):
        for typed in re.findall(r"flask-hotreload ([^\n|&;#]*)", block):
            name, *arguments = shlex.split(typed)
            command = commands.get_command(None, name)
            assert command is not None, typed
            command.make_context(name, arguments)  # raises for what it does not know


def test_the_proxy_is_more_patient_than_gunicorn_and_that_more_than_a_hold():
    text = (DOCS / "how-to" / "nginx.rst").read_text("utf-8")
    hold, gunicorn, proxy = map(int, re.search(r"MAX_HOLD +(\d+) s.*?(\d+) s.*?(\d+) s", text).groups())
    assert (hold, gunicorn) == (KEYS["HOTRELOAD_MAX_HOLD"].default, Timeout.default)
    assert hold < gunicorn < proxy
    assert f"proxy_read_timeout {proxy}s;" in text


# A pipeline ------------------------------------------------------------------------------------------------------

SHOP = """\
from flask import Flask
from flask_hotreload import HotRPC
app = Flask(__name__)
rpc = HotRPC(app)

@rpc.dispatcher("/api")
def price(item: str) -> int:
    return {prices}[item]

@app.get("/health")
def health():
    return "ok"
"""


def test_the_pipeline_of_the_page_refuses_what_its_checks_refuse_and_reloads_the_rest(tmp_path):
    page = DOCS / "how-to" / "ci-cd.rst"
    folder = tmp_path / "service"
    (folder / "shop").mkdir(parents=True)
    app = folder / "shop" / "app.py"
    app.write_text(SHOP.replace("{prices}", '{"tea": 3}'))
    (folder / "deploy").mkdir()
    (folder / "deploy" / "reload.json").write_text(blocks(page, "json")[0])
    script = "\n".join(["set -eu", *lines_of(page, "flask-hotreload check", "flask-hotreload reload")])
    options = ("--config", "python:flask_hotreload.gunicorn")
    with cluster(folder, app="shop.app:app", workers=2, options=options) as running:

        def run(pipeline: str) -> int:
            given = {"label": "v2", "CI_PIPELINE_ID": pipeline, "HOTRELOAD_TOKEN": TOKEN}
            given["HOTRELOAD_URL"] = "http://{}:{}".format(*running.address)
            command = f'flask-hotreload() {{ {sys.executable} -m flask_hotreload.cli "$@"; }}\n{script}'
            environment = {**os.environ, **given}
            done = subprocess.run(
                ["bash"], input=command, cwd=folder, env=environment, text=True, timeout=60, check=False
            )
            return done.returncode

        app.write_text(SHOP.replace("{prices}", '{"tea": 4}'))
        assert run("1") == 1
        assert running.status()["generation"] == 0
        app.write_text(SHOP.replace("{prices}", '{"tea": 3, "coffee": 4}'))
        assert run("2") == 0
        assert running.call("price", "coffee") == 4
        status = running.status()
        assert (status["generation"], status["label"], status["last"]["id"]) == (1, "v2", "pipeline-2")
        assert status["probation"]["state"] == "running"


# A link that is switched -----------------------------------------------------------------------------------------


def test_switching_the_link_as_the_page_does_deploys_and_the_old_release_may_be_deleted(tmp_path):
    page = DOCS / "how-to" / "link-switch.rst"
    shop = tmp_path / "shop"
    (shop / "releases").mkdir(parents=True)
    service(shop / "releases" / "41")
    (shop / "current").symlink_to("releases/41")
    [start] = lines_of(page, "gunicorn")
    [roots] = lines_of(page, "export HOTRELOAD_ROOTS=")
    assert "--chdir /srv/shop/current -c python:flask_hotreload.gunicorn" in start
    env = {"HOTRELOAD_ROOTS": roots.partition("=")[2].replace("/srv/shop", str(shop))}
    options = ("--chdir", str(shop / "current"), "--config", "python:flask_hotreload.gunicorn")
    with cluster(shop, workers=2, env=env, options=options) as running:
        running.await_members()
        service(shop / "releases" / "42")
        write_edition(shop / "releases" / "42", 42)
        [switch] = lines_of(page, "ln -sfn")
        command = f"release=42\n{switch}".replace("/srv/shop", str(shop))
        subprocess.run(["bash", "-eu"], input=command, cwd=tmp_path, text=True, check=True)
        assert (shop / "current").readlink() == Path("releases/42")
        assert running.reload({"label": "42"})["label"] == "42"
        assert {answer["edition"] for answer in running.everywhere().values()} == {42}
        shutil.rmtree(shop / "releases" / "41")
        status, report = running.request("POST", "/_reload/rollback")
        assert (status, report["restores"]) == (200, 0), report
        assert {answer["edition"] for answer in running.everywhere().values()} == {0}
        running.kill(min(running.workers()))
        running.await_members()
        assert {answer["edition"] for answer in running.everywhere().values()} == {0}


# Copying over the files, and the way back ------------------------------------------------------------------------


def test_the_rollback_of_the_page_takes_every_worker_back_and_the_disk_stays(tmp_path):
    [curl] = lines_of(DOCS / "how-to" / "rollback.rst", "curl")
    options = ("--config", "python:flask_hotreload.gunicorn")
    with cluster(service(tmp_path / "service"), workers=2, options=options) as running:
        running.await_members()
        running.edit(1)
        running.reload({})
        address = "{}:{}".format(*running.address)
        command = curl.replace("127.0.0.1:8000", address).replace("$HOTRELOAD_TOKEN", TOKEN)
        report = json.loads(subprocess.check_output(shlex.split(command), stderr=subprocess.DEVNULL, timeout=30))
        assert (report["status"], report["restores"]) == ("committed", 0)
        assert {answer["edition"] for answer in running.everywhere().values()} == {0}
        assert [each["change"] for each in running.status()["pending"]] == ["modified"]

"""The pages of the documentation as they stand: their examples run, and what they name exists."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

import flask_hotreload
from flask_hotreload.config import KEYS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.rst")), ROOT / "README.rst", ROOT / "CHANGES.rst"]
KEEPING_STATE = (ROOT / "docs" / "keeping-state.rst").read_text("utf-8")
INTRODUCTION = "Keeping state"


def sections(page):
    """The text below each title, by title."""
    parts = re.split(r"^(.+)\n[=-]{3,}\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text, language):
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in found]


def files_and_document(title):
    """The files of an example by name, and its reload document; what it does not show is as in the introduction."""
    shown = sections(KEEPING_STATE)
    files, documents = {}, []
    for text in (shown[INTRODUCTION], shown[title]):
        files |= {re.match(r"# (\S+)\n", block)[1]: block for block in blocks(text, "python")}
        documents += blocks(text, "json")
    return files, json.loads(documents[-1])


@pytest.fixture
def page(site):
    """Serve the example below a title; return its reload document."""

    def serve(title):
        files, document = files_and_document(title)
        for name, text in files.items():
            site.write(name, text)
        site.adopt(site.load("shop"))
        return document

    return serve


@pytest.mark.parametrize(
    ("title", "after"),
    [
        (INTRODUCTION, 1),
        ("A module of its own", 3),
        ("A kept object", 3),
        ("The new module takes over by itself", 3),
        ("A callback in the new file", 3),
        ("A value in the document", 3),
    ],
)
def test_each_way_of_keeping_state_works_as_the_page_shows_it(site, page, title, after):
    document = page(title)
    assert [site.call("count"), site.call("count")] == [1, 2]
    for _ in range(2 if title != "A value in the document" else 1):
        assert site.rpc.reload(**document).status == "committed"
    assert site.call("count") == after


def test_code_that_is_not_reloaded_sees_new_globals_as_the_page_shows_it(site, page):
    document = page("A callback in the live module")
    visits = site.folder / "visits.py"
    site.write("visits.py", visits.read_text().replace("LIMIT = 100", "LIMIT = 200"))
    assert site.call("limit") == 100
    site.rpc.reload(**document)
    assert site.call("limit") == 200


def test_the_table_leads_to_every_way_that_the_page_shows():
    titles = list(sections(KEEPING_STATE))
    linked = re.findall(r"`([^`]+)`_\n", KEEPING_STATE)
    assert sorted(linked) == sorted(titles[1:])


# What the pages name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_file_and_test_that_a_page_names_exists(file):
    text = file.read_text("utf-8")
    for name in re.findall(r"``((?:tests|docs|bench|example_app|flask_hotreload)/[\w./-]*)``", text):
        assert (ROOT / name).exists(), name
    defined = "".join(test.read_text("utf-8") for test in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"``(test_\w+)``", text):
        assert f"def {name}(" in defined, name


def test_the_page_for_operators_names_every_setting_with_its_default():
    rows = dict(
        re.findall(r"^``(HOTRELOAD_\w+)`` +(\S+)", (ROOT / "docs" / "operations.rst").read_text("utf-8"), re.M)
    )
    assert set(rows) == set(KEYS)
    for name, told in rows.items():
        default = KEYS[name].default
        if isinstance(default, (bool, int, float)) or name in ("HOTRELOAD_URL_PREFIX", "HOTRELOAD_COORDINATOR"):
            assert told == f"``{default}``", name


def test_the_reference_tells_every_name_that_the_package_exports():
    told = re.findall(
        r"^\.\. auto(?:class|exception):: (\w+)$", (ROOT / "docs" / "reference.rst").read_text("utf-8"), re.M
    )
    assert sorted(told) == sorted(flask_hotreload.__all__)

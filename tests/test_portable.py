"""What can be told to other workers, and what is refused with the remedy."""

from __future__ import annotations

import json
import math

import pytest

from flask_hotreload.document import Document, Entry, read_document
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.portable import portable, with_scripts


def told(**entry):
    document = read_document({"data": [{"dispatcher": "f", "path": "/api", **entry}], "id": "one"})
    return portable(document, lambda path: f"/srv/{path}")


def a_callback(server, module, dispatcher):
    """Named by its module and its own name."""


class Holder:
    @staticmethod
    def inner(server, module, dispatcher):
        """Found through its class."""


def test_a_told_document_reads_as_the_same_document():
    given = {
        "data": [{"dispatcher": "f", "scriptPath": "/srv/a.py", "path": "/api", "name": "g", "aliases": ["h"],
                  "overload": [{"x": [1, {"y": None}]}, "hand_over"], "validate": False, "lock": True}],
        "timeout": 2.5, "onTimeout": "abort", "processingDispatcherCountMax": 3, "clearOld": True,
        "checks": [{"path": "/api", "method": "g", "params": [1], "result": 2}, {"url": "/", "contains": "ok"}],
        "label": "v1", "id": "one", "expect": 3,
        "probation": {"seconds": 30, "maxErrors": 5, "errorRatio": 0.02, "minRequests": 100},
    }  # fmt: skip
    document = read_document(given)
    again = read_document(json.loads(json.dumps(portable(document, lambda path: path or ""))))
    assert again == document


def test_scripts_are_told_as_whoever_knows_the_roots_tells_them():
    assert told()["data"][0]["scriptPath"] == "/srv/None"
    assert told(scriptPath="a.py")["data"][0]["scriptPath"] == "/srv/a.py"


def test_who_is_told_puts_his_own_scripts_in_the_place_of_those_told():
    written = portable(Document(data=(Entry("f", script_path="a.py"), Entry(a_callback, name="g"))), str)
    here = with_scripts(written, lambda script: f"/opt/{script}")
    assert [entry.get("scriptPath") for entry in here["data"]] == ["/opt/a.py", None]
    assert written["data"][0]["scriptPath"] == "a.py"
    assert with_scripts({"data": None, "label": "v1"}, str) == {"data": None, "label": "v1"}


def test_a_callable_is_told_by_the_name_that_leads_to_it():
    assert told(overload=a_callback)["data"][0]["overload"] == [f"{__name__}:a_callback"]
    assert told(overload=Holder.inner)["data"][0]["overload"] == [f"{__name__}:Holder.inner"]


@pytest.mark.parametrize("nameless", [lambda server, module, dispatcher: None, math.sin.__call__])
def test_a_callable_without_a_name_of_its_own_is_refused_with_the_remedy(nameless):
    with pytest.raises(ReloadInvalid, match="top level of a module"):
        told(overload=nameless)


@pytest.mark.parametrize(
    "value", [{1, 2}, (1, 2), object(), b"x", math.nan, math.inf, {1: "a"}, [(1,)], {"deep": {"er": {3}}}]
)
def test_a_value_that_json_would_change_is_refused_and_named(value):
    with pytest.raises(ReloadInvalid, match=r"overload 'limit'.*handed over by a callback"):
        told(overload={"limit": value})


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "é", [1, [2]], {"a": {"b": []}}, 2**70])
def test_a_value_that_survives_json_is_told_as_it_is(value):
    assert told(overload={"limit": value})["data"][0]["overload"] == [{"limit": value}]


def test_a_live_callable_as_dispatcher_is_told_by_name_and_without_a_script():
    document = Document(data=(Entry(dispatcher=a_callback, name="served"),), id="one")
    entry = portable(document, lambda path: "/never")["data"][0]
    assert entry["dispatcher"] == f"{__name__}:a_callback"
    assert "scriptPath" not in entry
    assert read_document({"data": [entry]}).data[0].has_script is False

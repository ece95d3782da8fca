"""``flask-hotreload rpc``: what an API says of itself, and calls of it."""

from __future__ import annotations

import pytest
from command_line import CommandLine, serving, url_of


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cli") / "service", workers=1) as running:
        running.await_members()
        yield CommandLine(url_of(running), running.folder)


NO_TOKEN = {"HOTRELOAD_TOKEN": None}


def test_the_methods_of_an_api_are_listed_without_a_token(line):
    done = line.run("rpc", "list", "--path", "/described", env=NO_TOKEN)
    assert done.code == 0
    assert [row.split(maxsplit=3) for row in done.out.splitlines()] == [
        ["METHOD", "WHAT", "IT", "DOES"],
        ["items()"],
        ["price(item,", "count?,", "tags?)", "What an item costs."],
    ]
    listed = line.run("rpc", "list", "--path", "described/", "--json", env=NO_TOKEN).json
    assert [method["name"] for method in listed] == ["items", "price"]


def test_a_method_is_described_with_its_parameters(line):
    done = line.run("rpc", "describe", "--path", "/described", "price")
    assert done.code == 0
    assert done.out.splitlines()[:4] == [
        "price(item, count?, tags?)", "  What an item costs.", "  In cents.", "  Without tax."
    ]  # fmt: skip
    rows = [row.split(maxsplit=2) for row in done.out.splitlines()[5:]]
    assert rows == [
        ["item", "string", "required   Its name."],
        ["count", "integer", "default 1"],
        ["tags", '{"items":{"type":"string"},"type":"array"}', "optional"],
        ["result:", "integer"],
    ]
    assert line.run("rpc", "describe", "--path", "/described", "price", "--json").json["params"][0]["required"]
    done = line.run("rpc", "describe", "--path", "/described", "nothing")
    assert (done.code, done.err) == (
        2,
        "error: there is no method 'nothing' at /described; there are: items, price\n",
    )


def test_an_api_that_does_not_describe_itself_is_2(line):
    done = line.run("rpc", "list", "--path", "/health")
    assert done.code == 2
    assert done.err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (["2"], 3),
        (["2", "-5"], -3),
        (["left=2", "right=40"], 42),
        (["--params", '{"left": 1}'], 2),
        (["--params", "[1, 5]"], 6),
    ],
)
def test_a_call_takes_parameters_by_position_by_name_or_as_json(line, arguments, result):
    done = line.run("rpc", "call", "--path", "/api", "add", *arguments, env=NO_TOKEN)
    assert (done.code, done.out) == (0, f"{result}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing"], 2, "(-32601)"),
        (["add", "tea"], 2, "(-32602)"),
        (["fail"], 1, 'no tea (7): {"kettle":"cold"}'),
        (["add", "1", "right=2"], 2, "all by position, or all by different names"),
        (["add", "--params", "1"], 2, "must be a JSON list or object"),
        (["add", "1", "--header", "nonsense"], 2, "--header must be like"),
    ],
)
def test_a_call_that_fails_says_whether_the_question_or_the_service_is_at_fault(line, arguments, code, said):
    done = line.run("rpc", "call", "--path", "/api", *arguments)
    assert done.code == code
    assert said in done.err


def test_a_call_of_what_is_no_api_is_2(line):
    assert line.run("rpc", "call", "--path", "/nowhere", "add").code == 2
    assert line.run("rpc", "call", "--path", "/health", "add").code == 2

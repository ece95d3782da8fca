"""The reload document: every spelling is one document, and what is wrong is named with its remedy."""

import pytest

from flask_hotreload.document import Check, Document, Entry, read_document
from flask_hotreload.errors import ReloadInvalid
from flask_hotreload.probation import Probation

DOCUMENT_KEYS = [
    *"data clearOld timeout processingDispatcherCountMax onTimeout checks dryRun stage label expect id".split(),  # noqa: SIM905  # reads as the contract does
    "probation",
]
ENTRY_KEYS = (
    "dispatcher scriptPath isInstance name aliases overload path exclusiveModule validate lock authorize".split()  # noqa: SIM905  # as above
)
PROBATION_KEYS = ["seconds", "maxErrors", "errorRatio", "minRequests"]
CHECK_KEYS = ["path", "method", "params", "result", "url", "status", "contains", "applied"]


def entry(**keys):
    return read_document({"data": {"dispatcher": "echo", **keys}}).data[0]


def check(**keys):
    return read_document({"data": {"dispatcher": "echo"}, "checks": [keys]}).checks[0]


def refusal(document):
    with pytest.raises(ReloadInvalid) as caught:
        read_document(document)
    return str(caught.value)


# Spellings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"clearOld": True}, {"clear_old": True}),
        ({"processingDispatcherCountMax": 3}, {"processing_dispatcher_count_max": 3}),
        ({"onTimeout": "abort"}, {"on_timeout": "abort"}),
        ({"dryRun": True}, {"dry_run": True}),
        ({"data": [{"dispatcher": "f", "scriptPath": "a.py"}]}, {"data": {"dispatcher": "f", "script_path": "a.py"}}),
        ({"data": {"dispatcher": "F", "isInstance": True}}, {"data": {"dispatcher": "F", "is_instance": True}}),
        (
            {"data": {"dispatcher": "f", "exclusiveModule": True}},
            {"data": {"dispatcher": "f", "exclusive_module": True}},
        ),
        ({"data": {"dispatcher": "f", "dispatcherName": "g"}}, {"data": {"dispatcher": "f", "name": "g"}}),
        ({"data": {"dispatcher": "f", "overload": {"a": 1}}}, {"data": {"dispatcher": "f", "overload": [{"a": 1}]}}),
        ({"data": {"dispatcher": "f", "aliases": "g"}}, {"data": {"dispatcher": "f", "aliases": ["g"]}}),
        ({"data": {"dispatcher": "f", "path": "/api/"}}, {"data": {"dispatcher": "f", "path": "api"}}),
    ],
)
def test_every_spelling_is_the_same_document(one, other):
    base = {"data": {"dispatcher": "echo"}, "id": "x"}
    assert read_document(base | one) == read_document(base | other)


def test_what_is_left_out_has_the_contracts_default():
    assert read_document({"data": {"dispatcher": "echo"}, "id": "x"}) == Document(
        data=(Entry("echo"),),
        clear_old=False,
        timeout=None,
        processing_dispatcher_count_max=0,
        on_timeout="proceed",
        checks=(),
        dry_run=False,
        label=None,
        expect=None,
        id="x",
        probation=None,
    )
    assert entry() == Entry("echo", None, False, None, None, (), "/", False, {})


def test_null_is_left_out_wherever_nothing_may_be_said():
    nothing = dict.fromkeys(["data", "timeout", "checks", "label", "expect", "id", "probation"])
    assert read_document(nothing).data is None
    assert entry(**dict.fromkeys(["scriptPath", "name", "aliases", "overload", "path"])) == Entry("echo")
    assert entry(authorize=None).settings == {"authorize": None}  # which takes an earlier one away


def test_each_document_without_an_id_gets_its_own():
    assert read_document({}).id != read_document({}).id
    assert read_document({"id": "deploy-77"}).id == "deploy-77"


def test_one_key_in_two_spellings_is_refused():
    assert "two spellings" in refusal({"clearOld": True, "clear_old": True})
    assert "'scriptPath' is given twice" in refusal(
        {"data": {"dispatcher": "f", "scriptPath": "a", "script_path": "b"}}
    )
    assert "'name' is given twice" in refusal({"data": {"dispatcher": "f", "name": "a", "dispatcherName": "b"}})


@pytest.mark.parametrize(
    ("document", "wrong", "valid"),
    [
        ({"Data": []}, "'Data'", DOCUMENT_KEYS),
        ({"data": {"dispatcher": "f", "script": "a"}}, "'script'", ENTRY_KEYS),
        ({"data": {"dispatcher": "f"}, "checks": [{"URL": "/"}]}, "'URL'", CHECK_KEYS),
        ({"data": {"dispatcher": "f", 3: "a"}}, "3", ENTRY_KEYS),
        ({"probation": {"seconds": 1, "errors": 5}}, "'errors'", PROBATION_KEYS),
    ],
)
def test_an_unknown_key_lists_the_valid_ones(document, wrong, valid):
    text = refusal(document)
    assert text.startswith(f"{wrong} is not a key of ")
    assert text.endswith("; the keys are " + ", ".join(valid))


# Wrong values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("clearOld", value) for value in (1, "true", None, [])],
        *[("dryRun", value) for value in (0, "no", None)],
        *[("timeout", value) for value in (-1, "5", True, float("nan"), float("inf"), [5])],
        *[("processingDispatcherCountMax", value) for value in (-1, 1.0, True, "1")],
        *[("onTimeout", value) for value in ("stop", None, True, ["abort"], {})],
        *[("label", value) for value in (5, "", ["v1"])],
        *[("expect", value) for value in (-1, "3", 3.0, False)],
        *[("id", value) for value in (5, "", {})],
        *[("data", value) for value in ("echo", 5, [5], ["echo"], [[]], {}, [{}])],
        *[("checks", value) for value in ({}, "x", [5], [[]])],
    ],
)
def test_a_wrong_value_of_the_document_is_refused_by_name(key, value):
    text = refusal({"data": {"dispatcher": "echo"}, key: value})
    named = {"data": ("dispatcher", "entry of data"), "checks": ("check",)}.get(key, (key,))
    assert any(name in text for name in named)
    if value not in ({}, [{}]):
        assert "not " in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("dispatcher", value) for value in (None, "", 5, ["echo"])],
        *[("scriptPath", value) for value in (5, "", ["a.py"])],
        *[("isInstance", value) for value in (1, "true", None)],
        *[("exclusiveModule", value) for value in (1, None)],
        *[("name", value) for value in (5, "", ["a"])],
        *[("aliases", value) for value in (5, [5], [""], {"a": 1})],
        *[("overload", value) for value in (5, "", [5], [None], {1: 2}, [["a"]])],
        *[("path", value) for value in (5, "/a<b>", "/a?b", "/a#b", ["/a"])],
        *[("validate", value) for value in (1, "yes", None)],
        *[("lock", value) for value in (1, None)],
        *[("authorize", value) for value in (5, "", True, ["f"])],
    ],
)
def test_a_wrong_value_of_an_entry_is_refused(key, value):
    text = refusal({"data": [{"dispatcher": "fine"}, {"dispatcher": "echo", key: value}]})
    assert {"path": "API path", "overload": "overload"}.get(key, key) in text


@pytest.mark.parametrize(
    ("probation", "named"),
    [
        *[({"seconds": value, "maxErrors": 5}, "seconds") for value in (0, -1, "30", True, None, float("inf"))],
        *[({"seconds": 1, "maxErrors": value}, "maxErrors") for value in (-1, 1.5, "5", True)],
        *[({"seconds": 1, "errorRatio": value, "minRequests": 9}, "errorRatio") for value in (-0.1, 1.1, "0", True)],
        *[({"seconds": 1, "errorRatio": 0.5, "minRequests": value}, "minRequests") for value in (0, -1, 2.0, None)],
        ({"seconds": 1, "errorRatio": 0.5}, "minRequests"),
        ({"seconds": 1, "minRequests": 5}, "errorRatio"),
        ({"seconds": 1, "maxErrors": 5, "minRequests": 5}, "errorRatio"),
        ({"seconds": 1}, "maxErrors"),
        ({"maxErrors": 5}, "seconds"),
        (30, "a probation must be an object"),
    ],
)
def test_a_probation_without_an_end_or_a_limit_is_refused(probation, named):
    assert named in refusal({"probation": probation})


def test_a_probation_has_either_limit_or_both_in_either_spelling():
    said = {"seconds": 30, "maxErrors": 5, "errorRatio": 0.02, "minRequests": 100}
    read = read_document({"probation": said}).probation
    assert read == Probation(30.0, 5, 0.02, 100)
    assert read.to_dict() == said
    python = {"seconds": 30, "max_errors": 5, "error_ratio": 0.02, "min_requests": 100}
    assert read_document({"probation": python}).probation == read
    assert read_document({"probation": {"seconds": 1, "maxErrors": 0}}).probation == Probation(1.0, 0)


def test_a_probation_does_not_go_with_a_dry_run():
    assert "dryRun" in refusal({"dryRun": True, "probation": {"seconds": 1, "maxErrors": 0}})


@pytest.mark.parametrize("document", [None, [], "data", 5])
def test_what_is_no_object_is_refused(document):
    assert "the document must be an object" in refusal(document)


def test_an_empty_list_is_refused_with_the_remedy():
    assert "leave data out" in refusal({"data": []})


def test_clear_old_without_data_is_refused():
    assert "clearOld needs data" in refusal({"clearOld": True})
    assert "clearOld needs data" in refusal({"clearOld": True, "data": None})


# Callables -------------------------------------------------------------------------------------------------------


def test_a_callable_needs_no_script():
    def answer():
        return 5

    assert entry(dispatcher=answer).dispatcher is answer
    assert not entry(dispatcher=answer).has_script


def test_a_name_with_a_colon_is_a_live_callable():
    assert not entry(dispatcher="package.module:function").has_script
    assert entry(dispatcher="function").has_script
    assert entry(dispatcher="package.module:function").own_name == "function"


@pytest.mark.parametrize("key", ["scriptPath", "isInstance", "exclusiveModule"])
@pytest.mark.parametrize("dispatcher", [test_a_callable_needs_no_script, "package.module:function"])
def test_a_callable_comes_without_what_belongs_to_a_script(key, dispatcher):
    value = "a.py" if key == "scriptPath" else True
    assert key in refusal({"data": {"dispatcher": dispatcher, key: value}})


@pytest.mark.parametrize("nameless", [lambda: 5, type("Callable", (), {"__call__": lambda self: 5})()])
def test_a_callable_without_a_usable_name_needs_one(nameless):
    assert "give the entry a name" in refusal({"data": {"dispatcher": nameless}})
    assert entry(dispatcher=nameless, name="five").name == "five"


def test_an_instance_takes_neither_name_nor_aliases():
    for key, value in {"name": "a", "aliases": ["b"]}.items():
        assert "methods have their own names" in refusal(
            {"data": {"dispatcher": "Ledger", "isInstance": True, key: value}}
        )


def test_an_overload_is_dicts_and_callbacks_in_the_order_given():
    def callback(server, module, dispatcher):
        pass

    assert entry(overload=[{"a": 1}, callback, "name", "package.module:function"]).overload == (
        {"a": 1},
        callback,
        "name",
        "package.module:function",
    )


def test_an_overload_dict_is_copied_when_it_is_read():
    values = {"a": 1}
    read = entry(overload=values)
    values["b"] = 2
    assert read.overload == ({"a": 1},)


# Checks ----------------------------------------------------------------------------------------------------------


def test_a_check_is_a_call_or_a_url():
    assert check(path="/api/", method="echo", params=[1], result=1) == Check(
        path="/api", method="echo", params=[1], expected=(1,)
    )
    assert check(url="/health", status=204, contains="ok", applied=True) == Check(
        url="/health", status=204, contains="ok", applied=True
    )


def test_a_result_of_null_is_expected_and_a_result_left_out_is_not():
    assert check(method="echo", result=None).expected == (None,)
    assert check(method="echo").expected is None


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, "either a method"),
        ({"url": "/", "method": "echo"}, "either a method"),
        ({"url": "/", "params": []}, "'params' does not go with"),
        ({"url": "/", "path": "/api"}, "'path' does not go with"),
        ({"method": "echo", "status": 200}, "'status' does not go with"),
        ({"method": "echo", "contains": "x"}, "'contains' does not go with"),
        ({"url": "health"}, "such as '/health'"),
        ({"url": "http://example.com/"}, "such as '/health'"),
        ({"url": None}, "such as '/health'"),
        ({"url": "/", "status": "200"}, "a number such as 200"),
        ({"url": "/", "status": True}, "a number such as 200"),
        ({"url": "/", "contains": 5}, "contains must be"),
        ({"method": "echo", "params": 5}, "list or an object"),
        ({"method": 5}, "a dispatcher's name, not 5"),
        ({"method": None}, "a dispatcher's name, not None"),
        ({"method": "echo", "applied": 1}, "applied must be"),
    ],
)
def test_a_check_at_fault_is_refused(keys, text):
    assert text in refusal({"data": {"dispatcher": "echo"}, "checks": [keys]})

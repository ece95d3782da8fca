"""Configuration: where a setting comes from, and what is refused before anything is served."""

import pytest
from flask import Flask

from flask_hotreload import HotRPC
from flask_hotreload.config import KEYS, NETWORK, Config
from flask_hotreload.coordination import redis_address

TOKEN = "0123456789abcdef-one"
OTHER = "0123456789abcdef-two"


def load(arguments=None, app_config=None, **environment):
    return Config.load(arguments or {}, app_config or {}, environment)


def test_an_argument_goes_before_app_config_before_the_environment_before_the_default():
    name = "HOTRELOAD_TIMEOUT"
    assert load().timeout == 5.0
    assert load(None, None, HOTRELOAD_TIMEOUT="4").timeout == 4.0
    assert load(None, {name: 3}, HOTRELOAD_TIMEOUT="4").timeout == 3.0
    assert load({"timeout": 2}, {name: 3}, HOTRELOAD_TIMEOUT="4").timeout == 2.0
    assert load({name: 1}, {name: 3}).timeout == 1.0


def test_the_defaults_are_the_contracts():
    config = load()
    assert (config.token, config.http, config.url_prefix, config.max_body) == ((), True, "/_reload", 1024 * 1024)
    assert (config.timeout, config.prepare_timeout, config.apply_timeout, config.max_hold) == (5.0, 20.0, 5.0, 15.0)
    assert (config.roots, config.exempt, config.max_batch, config.coordinator) == (None, (), 1000, "auto")


def test_the_environment_is_text_that_is_read_as_the_setting_is():
    config = load(
        HOTRELOAD_TOKEN=f"{TOKEN}, {OTHER}",
        HOTRELOAD_HTTP="no",
        HOTRELOAD_MAX_BODY="2048",
        HOTRELOAD_EXEMPT="/live, /ready/",
        HOTRELOAD_ROOTS="/srv/a,/srv/b",
        HOTRELOAD_URL_PREFIX="/ops/",
    )
    assert config.token == (TOKEN, OTHER)
    assert config.http is False
    assert config.max_body == 2048
    assert config.exempt == ("/live", "/ready")
    assert config.roots == ("/srv/a", "/srv/b")
    assert config.url_prefix == "/ops"


def test_an_empty_variable_is_no_setting():
    assert load(HOTRELOAD_TOKEN="", HOTRELOAD_TIMEOUT="").timeout == 5.0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *[("TOKEN", value, TypeError) for value in (5, [5], {"a": 1})],
        *[("TOKEN", value, ValueError) for value in ("short", [TOKEN, "short"], "ä" * 16, "a b" * 10, "a\n" * 10)],
        *[("HTTP", value, TypeError) for value in (0, "no")],
        *[("URL_PREFIX", value, ValueError) for value in ("/", "_reload", "")],
        ("URL_PREFIX", ["/a"], TypeError),
        *[("MAX_BODY", value, TypeError) for value in ("1", 1.5, True)],
        *[("MAX_BODY", value, ValueError) for value in (0, -1)],
        *[("MAX_BATCH", value, ValueError) for value in (0, -1)],
        *[(name, "5", TypeError) for name in ("TIMEOUT", "PREPARE_TIMEOUT", "APPLY_TIMEOUT", "MAX_HOLD")],
        *[("TIMEOUT", value, ValueError) for value in (-1, float("nan"), float("inf"))],
        ("TIMEOUT", True, TypeError),
        ("TIMEOUT", 16, ValueError),  # above HOTRELOAD_MAX_HOLD
        *[("ROOTS", value, TypeError) for value in (5, [5])],
        *[("EXEMPT", value, ValueError) for value in ("live", ["/"], [""])],
        ("EXEMPT", 5, TypeError),
        ("COORDINATOR", "zookeeper", ValueError),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_key_wherever_it_comes_from(name, value, error):
    key = f"HOTRELOAD_{name}"
    with pytest.raises(error, match=key):
        load({name.lower(): value})
    with pytest.raises(error, match=key):
        load(None, {key: value})


@pytest.mark.parametrize(
    ("name", "text"),
    [("HTTP", "perhaps"), ("MAX_BODY", "1.5"), ("TIMEOUT", "soon"), ("TOKEN", "short"), ("EXEMPT", "live")],
)
def test_a_wrong_text_in_the_environment_names_the_variable(name, text):
    with pytest.raises((TypeError, ValueError), match=f"HOTRELOAD_{name}"):
        load(**{f"HOTRELOAD_{name}": text})


@pytest.mark.parametrize("where", ["argument", "app.config"])
def test_an_unknown_setting_lists_those_that_there_are(where):
    given = ({"tokens": TOKEN}, {}) if where == "argument" else ({}, {"HOTRELOAD_TOKENS": TOKEN})
    with pytest.raises(ValueError, match="HOTRELOAD_TOKENS is not a setting") as caught:
        load(*given)
    assert all(key in str(caught.value) for key in KEYS)


def test_a_token_that_is_too_short_is_told_how_to_be_made_and_is_not_shown():
    with pytest.raises(ValueError, match=r"secrets\.token_urlsafe") as caught:
        load({"token": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_it_is_read_when_the_extension_meets_the_application(monkeypatch):
    monkeypatch.setenv("HOTRELOAD_MAX_BATCH", "1")
    app = Flask(__name__)
    app.config["HOTRELOAD_TIMEOUT"] = "soon"
    rpc = HotRPC()
    with pytest.raises(TypeError, match="HOTRELOAD_TIMEOUT"):
        rpc.init_app(app)
    app.config["HOTRELOAD_TIMEOUT"] = 1
    rpc.init_app(app)
    rpc.register_function(lambda: 1, "/api", name="one")
    batch = [{"jsonrpc": "2.0", "id": number, "method": "one"} for number in range(2)]
    answer = app.test_client().post("/api", json=batch).get_json()
    assert answer["error"]["code"] == -32600


@pytest.mark.parametrize("scheme", redis_address._SCHEMES)
def test_every_form_of_a_redis_url_is_one_of_a_coordinator(scheme):
    url = f"{scheme}://place/shop"
    config = Config.load({"coordinator": url, "signing_key": "0123456789abcdef"}, {}, {})
    assert config.coordinator == url
    assert url.startswith(NETWORK)

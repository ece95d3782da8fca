"""The examples of the page for operators, run as they stand, with the real libraries, in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from scraping import Scrape
from test_docs import ROOT, blocks

PAGE = (ROOT / "docs" / "operations.rst").read_text("utf-8")

APPLICATION = """
from flask import Flask
from flask_hotreload import HotRPC
{before}
app = Flask(__name__)
rpc = HotRPC(app, token="0123456789abcdef", roots=sys.argv[1])
def fails() -> int:
    raise RuntimeError("as intended")
rpc.register_function(fails, "/api")
{example}
def call():
    return app.test_client().post("/api/fails").status_code
call()
rpc.reload([{"dispatcher": fails, "path": "/api"}], label="v2")
call()
{after}
"""

SENTRY = {
    "before": """
import sentry_sdk
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.transport import Transport
told = []
class Told(Transport):
    def capture_envelope(self, envelope):
        told.append(envelope.get_event())
flask = FlaskIntegration()
sentry_sdk.init("http://key@localhost/1", transport=Told, default_integrations=False, integrations=[flask])
""",
    "after": """
for event in told:
    print(event["exception"]["values"][-1]["value"], event["tags"]["generation"], event["tags"]["generation_label"])
""",
}
OPENTELEMETRY = {
    "before": """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
""",
    "after": """
for span in exporter.get_finished_spans():
    print("as intended", span.attributes["generation"], span.attributes["generation_label"] or None)
""",
}
#: What an instrumentation of WSGI does.
SPANS = """
call_untraced = call
def call():
    with trace.get_tracer("test").start_as_current_span("request"):
        call_untraced()
call()
"""


def run(folder, script):
    (folder / "script.py").write_text("import sys\n" + script)
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def example(word):
    """The example of the page that holds ``word``."""
    [found] = [block for block in blocks(PAGE, "python") if word in block]
    return found


@pytest.mark.parametrize(("library", "around"), [("sentry", SENTRY), ("opentelemetry", OPENTELEMETRY)])
def test_three_lines_tell_generation_and_label(tmp_path, library, around):
    script = APPLICATION.replace("{example}", example(f"tell_{library}"))
    if library == "opentelemetry":
        script = script.replace("\ncall()\nrpc.reload", SPANS + "rpc.reload")
    for place, text in around.items():
        script = script.replace("{" + place + "}", text)
    assert len(example(f"tell_{library}").splitlines()) == 3
    assert run(tmp_path, script).stdout.splitlines() == ["as intended 0 None", "as intended 1 v2"]


def test_the_configuration_of_logging_shows_the_generation(tmp_path):
    script = "import logging.config\n" + example("GenerationFilter") + "logging.getLogger('shop').info('ready')\n"
    assert run(tmp_path, script).stderr.rstrip().endswith("INFO generation=None shop ready")


def test_the_page_names_every_metric_that_there_is_with_its_kind_and_no_other(site):
    site.serve()
    with site.control("/metrics") as response:
        there = {family.name: family.type for family in Scrape(response.get_data(as_text=True)).families.values()}
    told = re.findall(r"^``(flask_hotreload_\w+)`` +(gauge|counter|histogram) ", PAGE, re.MULTILINE)
    assert {name.removesuffix("_total"): kind for name, kind in told} == there

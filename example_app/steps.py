"""What the demo shows, step by step. Each step edits the service's files as a developer would, and reloads."""

from __future__ import annotations

from decimal import Decimal
from time import monotonic
from typing import Any

from example_app.story import Outcome, Step, StepError, Story
from example_app.workload import Edition

FIRST = Edition(generation=0, factor=Decimal(1), receipt="Deposit")

SLOW_SECONDS = 1.0  # what rates.interbank takes at least

EXCHANGE = "(amount * _cross_rate(base, target)).quantize(CENT)"
WITH_MARGIN = '(amount * _cross_rate(base, target) * Decimal("0.995")).quantize(CENT)'
UNCLOSED = '(amount * _cross_rate(base, target) * Decimal("0.5").quantize(CENT)'
SMALL_MARGIN = '(amount * _cross_rate(base, target) * Decimal("0.9975")).quantize(CENT)'


def rates(label: str) -> dict[str, Any]:
    """The document that reloads all of ``rates.py``. A file that is named several times is imported once."""
    names = ("convert", "currencies", "interbank", "quote")
    data = [{"dispatcher": name, "scriptPath": "rates.py", "path": "/api"} for name in names]
    return {"data": data, "label": label}


def ledger(label: str) -> dict[str, Any]:
    """The document that replaces the ledger by one of a new class, which takes over the state of the old."""
    entry = {
        "dispatcher": "Ledger",
        "isInstance": True,
        "scriptPath": "ledger.py",
        "path": "/ledger",
        "overload": ["take_over"],
    }
    return {"data": [entry], "label": label}


def calm(story: Story) -> Outcome:
    """No reload: what the waits are without one."""
    return Outcome(0, "no reload, for comparison")


def new_behaviour(story: Story) -> Outcome:
    story.edit("rates.py", EXCHANGE, WITH_MARGIN, Edition(1, Decimal("0.995"), "Deposit"))
    report = story.commit(rates("a margin of 0.5 %"))
    return Outcome(report["generation"], "committed", report)


def state_handed_over(story: Story) -> Outcome:
    edition = Edition(2, Decimal("0.995"), "Receipt no.")
    story.edit("ledger.py", 'f"Deposit {self', 'f"Receipt no. {self', edition)
    report = story.commit(ledger("better receipts"))
    story.watch(0.5)
    last = 0
    for number, receipt in sorted(story.workload.tills.items()):
        old = [n for n, by in receipt.receipts.items() if by.newest < edition.generation]
        new = [n for n, by in receipt.receipts.items() if by.oldest == edition.generation]
        if not old or not new or min(new) != max(old) + 1:
            raise StepError(f"till {number}: the old ledger ended at {old[-1:]}, the new one began at {new[:1]}")
        last = max(old)
    return Outcome(report["generation"], f"committed, receipts go on after no. {last}", report)


def broken_file(story: Story) -> Outcome:
    line = story.edit("rates.py", WITH_MARGIN, UNCLOSED)
    answer = story.reload(rates("a parenthesis is missing"))
    if answer.status_code != 422:
        raise StepError(f"broken code was answered {answer.status_code}: {answer.text[:500]}")
    report: dict[str, Any] = answer.json()["report"]
    error = report["error"]
    if report["status"] != "aborted" or not error["file"].endswith("rates.py") or error["line"] != line:
        raise StepError(f"the report should be an abort at rates.py:{line}, and is {report['status']} {error}")
    story.say(f"   {error['message'].replace(f'{story.server.folder}/', '')}", "yellow")
    return Outcome(story.generation, f"refused: 422, rates.py:{error['line']}", report)


def slow_request(story: Story) -> Outcome:
    question = (Decimal("1000.00"), "EUR", "JPY")
    slow = story.begin(story.workload.conversion("interbank", *question))
    story.edit("rates.py", UNCLOSED, SMALL_MARGIN, Edition(3, Decimal("0.9975"), "Receipt no."))
    report = story.commit(rates("a margin of 0.25 %"))
    committed = monotonic()
    sample = slow.result(timeout=30.0)
    if sample.error is not None or sample.generations is None:
        raise StepError(f"the slow request failed: {sample.error}")
    if committed < sample.started + SLOW_SECONDS or report["drain"]["stragglers"]:
        raise StepError("the reload did not wait for the slow request")
    if sample.generations.newest > story.generation:
        raise StepError("the slow request was finished by other code than it started with")
    if report["drain"]["held"] == 0:
        raise StepError("no request was held while the slow one was drained")
    return Outcome(report["generation"], f"committed after a request of {sample.wait * 1e3:.0f} ms", report)


STEPS = (
    Step("Steady load", "nobody touches the service", calm),
    Step("New behaviour", "the bureau takes a margin", new_behaviour),
    Step("State handed over", "the ledger's receipts change, its numbers and balances go on", state_handed_over),
    Step("Broken file", "a parenthesis is forgotten", broken_file),
    Step("Slow request", "it is waited for, the others are held meanwhile", slow_request),
)

"""What the demo shows, step by step. Each step edits the service's files as a developer would, and reloads."""

from __future__ import annotations

from decimal import Decimal
from time import monotonic
from typing import Any

from example_app.load import Sample
from example_app.story import Outcome, Step, StepError, Story
from example_app.workload import Edition

FIRST = Edition(generation=0, factor=Decimal(1), receipt="Deposit")

DEPOSIT, RECEIPT = 'f"Deposit {number}', 'f"Receipt no. {number}'

TURNS = 10  # reloads in a row
SLOW_SECONDS = (1.0, 2.0, 4.0)  # how long the slow request takes: the first time, and again if it was over too soon


def exchange(factor: Decimal) -> str:
    """The expression in ``rates.convert`` that gives so much of what the amount is worth."""
    margin = "" if factor == 1 else f' * Decimal("{factor}")'
    return f"(amount * _cross_rate(base, target){margin}).quantize(CENT)"


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


def take_margin(story: Story, factor: str, label: str, *, quietly: bool = False) -> dict[str, Any]:
    """Have ``convert`` give ``factor`` of what the amount is worth, reload, and return the report."""
    before = story.edition
    edition = story.announce(factor=Decimal(factor))
    story.edit("rates.py", exchange(before.factor), exchange(edition.factor), quietly=quietly)
    return story.commit(rates(label), quietly=quietly)


def calm(story: Story) -> Outcome:
    """No reload: what the waits are without one."""
    story.ask_each()
    return Outcome(0, "no reload, for comparison")


def new_behaviour(story: Story) -> Outcome:
    report = take_margin(story, "0.995", "a margin of 0.5 %")
    story.ask_each()
    return Outcome(report["generation"], "committed", (report,))


def at_one_instant(story: Story) -> Outcome:
    """That no answer is old after a new one is judged over all requests; here is much to judge."""
    reports = []
    for turn in range(1, TURNS + 1):
        reports.append(take_margin(story, f"{0.995 - turn / 1000:.3f}", f"turn {turn}", quietly=True))
        story.ask_each()
        story.watch(min(0.05, story.seconds / TURNS))
    return Outcome(story.generation, f"{TURNS} committed, each on every worker", tuple(reports))


def state_handed_over(story: Story) -> Outcome:
    story.ask_each()  # so that each till has given out a receipt
    edition = story.announce(receipt="Receipt no.")
    story.edit("ledger.py", DEPOSIT, RECEIPT)
    report = story.commit(ledger("better receipts"))
    story.ask_each()
    expect_receipts_to_go_on(story, edition)
    return Outcome(report["generation"], "committed, the receipts of each worker go on", (report,))


def expect_receipts_to_go_on(story: Story, edition: Edition) -> None:
    """:class:`StepError` unless each till's first receipt by ``edition`` comes right after its last one before."""
    story.settle()  # every receipt up to these is in the clients' hands now
    for number in sorted(story.workers.pids):
        receipts = story.workload.tills[number].receipts
        last = max((n for n, by in receipts.items() if by.newest < edition.generation), default=None)
        if last is None or last + 1 not in receipts:
            raise StepError(
                f"till {number}: the old ledger ended at {last}, and the new one did not go on from there"
            )


def broken_file(story: Story) -> Outcome:
    right = exchange(story.edition.factor)
    broken = right.replace("))", ")", 1)
    line = story.edit("rates.py", right, broken)
    answer = story.reload(rates("a parenthesis is missing"))
    if answer.status_code != 422:
        raise StepError(f"broken code was answered {answer.status_code}: {answer.text[:500]}")
    report: dict[str, Any] = answer.json()["report"]
    error = report["error"]
    if report["status"] != "aborted" or not error["file"].endswith("rates.py") or error["line"] != line:
        raise StepError(f"the report should be an abort at rates.py:{line}, and is {report['status']} {error}")
    story.say(f"   {error['message'].replace(f'{story.server.folder}/', '')}", "yellow")
    story.edit("rates.py", broken, right, quietly=True)
    story.ask_each()
    return Outcome(story.generation, f"refused: 422, rates.py:{error['line']}", (report,))


def slow_request(story: Story) -> Outcome:
    """A machine may be so busy that the request ends before the new code is ready: then it takes a slower one."""
    reports = []
    for turn, seconds in enumerate(SLOW_SECONDS):
        slow = story.begin(story.workload.conversion("interbank", Decimal("1000.00"), "EUR", "JPY", seconds=seconds))
        before = story.generation
        reports.append(take_margin(story, f"{0.9975 - turn / 10000:.4f}", "a smaller margin"))
        committed = monotonic()
        sample = slow.result(timeout=30.0)
        _check_slow(sample, reports[-1], before, committed, seconds)
        if reports[-1]["drain"]["held"]:
            story.ask_each()
            text = f"committed after a request of {sample.wait * 1e3:.0f} ms"
            return Outcome(story.generation, text, tuple(reports))
    raise StepError("no request was held while the slow one was drained")


def _check_slow(sample: Sample, report: dict[str, Any], before: int, committed: float, seconds: float) -> None:
    if sample.error is not None or sample.generations is None:
        raise StepError(f"the slow request failed: {sample.error}")
    if committed < sample.started + seconds or report["drain"]["stragglers"]:
        raise StepError("the reload did not wait for the slow request")
    if sample.generations.newest > before:
        raise StepError("the slow request was finished by other code than it started with")


def killed_worker(story: Story) -> Outcome:
    """The file on disk is not what was committed: an answer by it would be wrong."""
    right, wrong = exchange(story.edition.factor), exchange(Decimal("0.5"))
    story.edit("rates.py", right, wrong)
    victim, successor = story.kill_one()
    story.ask_each()
    story.settle()  # every client has met with what happened to its connection
    answers = sorted((s for s in story.samples() if s.worker == successor), key=lambda s: s.ended)
    first = answers[0].generations
    if first is None or first.newest != story.generation:
        raise StepError(f"the first answer of {successor} was of {first}, not of generation {story.generation}")
    story.edit("rates.py", wrong, right, quietly=True)
    lost = len(story.lost())
    text = f"{victim} killed, {lost} of its own requests lost; {successor} began with generation {story.generation}"
    return Outcome(story.generation, text)


STEPS = (
    Step("Steady load", "nobody touches the service", calm),
    Step("New behaviour", "the bureau takes a margin", new_behaviour),
    Step(
        "At one instant", "another margin, and another; nobody is answered by old code after new code", at_one_instant
    ),
    Step("State handed over", "the ledgers' receipts change, their numbers and balances go on", state_handed_over),
    Step("Broken file", "a parenthesis is forgotten", broken_file),
    Step("Slow request", "it is waited for, the others are held meanwhile", slow_request),
    Step(
        "Killed worker", "the file is spoilt and nobody reloads it; a worker is killed, another begins", killed_worker
    ),
)

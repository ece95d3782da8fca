"""What the demo of several hosts shows, step by step: the first host is edited and asked, all of them change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from example_app import steps
from example_app.cluster_story import ClusterStory
from example_app.steps import exchange, expect_receipts_to_go_on, rates
from example_app.story import Outcome, Step, StepError, Story

KILLED = 2  # the third host


def _cluster(act: Callable[[ClusterStory], Outcome]) -> Callable[[Story], Outcome]:
    def perform(story: Story) -> Outcome:
        assert isinstance(story, ClusterStory)
        return act(story)

    return perform


def one_host_asked(story: ClusterStory) -> Outcome:
    before = [story.files(host) for host in (1, 2)]
    report = steps.take_margin(story, "0.995", "a margin of 0.5 %")
    story.ask_each()
    if before != [story.files(host) for host in (1, 2)]:
        raise StepError("a reload has changed files on disk")
    return Outcome(report["generation"], "committed; the others' files are as they were", (report,))


def whole_source(story: ClusterStory) -> Outcome:
    """The code of all modules, and what each till's memory holds, together."""
    story.ask_each()  # so that each till has given out a receipt
    before = story.edition
    edition = story.announce(factor=Decimal("0.99"), receipt="Receipt no.")
    story.edit("rates.py", exchange(before.factor), exchange(edition.factor))
    story.edit("ledger.py", steps.DEPOSIT, steps.RECEIPT)
    report = story.commit({"label": "a margin of 1 %, better receipts"})
    story.ask_each()
    expect_receipts_to_go_on(story, edition)
    return Outcome(report["generation"], f"committed, {len(report['modules'])} modules; state kept", (report,))


def rollback(story: ClusterStory) -> Outcome:
    before = story.workload.editions[-2]
    edition = replace(before, generation=story.generation + 1)
    story.workload.announce(edition)
    story.say("   POST /_reload/rollback", "cyan")
    report = story.committed(story.ask("/_reload/rollback", {}))
    story.ask_each()
    expect_receipts_to_go_on(story, edition)
    if report["restores"] != before.generation:
        raise StepError(f"the rollback restored generation {report['restores']}, not {before.generation}")
    story.edit("rates.py", exchange(Decimal("0.99")), exchange(edition.factor), quietly=True)
    story.edit("ledger.py", steps.RECEIPT, steps.DEPOSIT, quietly=True)
    return Outcome(report["generation"], f"as generation {before.generation} again; state kept", (report,))


def killed_host(story: ClusterStory) -> Outcome:
    gone = story.kill_host(KILLED)
    report = steps.take_margin(story, "0.985", "while a host is away")
    story.ask_each()
    fresh = story.start_host(KILLED)
    story.ask_each()
    story.settle()
    for pid in fresh:
        answers = sorted((each for each in story.samples() if each.worker == pid), key=lambda each: each.ended)
        first = answers[0].generations
        if first is None or first.newest != story.generation:
            raise StepError(f"the first answer of {pid} was of {first}, not of generation {story.generation}")
    text = f"{len(gone)} workers killed, {len(story.lost())} of their own requests lost; back, and caught up"
    return Outcome(story.generation, text, (report,))


def redis_killed(story: ClusterStory) -> Outcome:
    return _without_redis(story, "0.98", with_data=True)


def redis_emptied(story: ClusterStory) -> Outcome:
    return _without_redis(story, "0.975", with_data=False)


def _without_redis(story: ClusterStory, factor: str, *, with_data: bool) -> Outcome:
    story.kill_redis()
    story.ask_each()
    _expect_refusal(story)
    story.watch(story.seconds)
    story.start_redis(with_data=with_data)
    story.ask_each()
    report = steps.take_margin(story, factor, "Redis is back")
    story.ask_each()
    return Outcome(report["generation"], "requests went on; 503 meanwhile, then committed", (report,))


def _expect_refusal(story: ClusterStory) -> None:
    answer = story.reload(rates("without Redis"))
    if answer.status_code != 503:
        raise StepError(f"a reload without Redis was answered {answer.status_code}: {answer.text[:500]}")
    problem: dict[str, Any] = answer.json()
    story.say(f"   503: {problem['detail']}", "yellow")


CLUSTER_STEPS = (
    Step("Steady load", "nobody touches the service", steps.calm),
    Step(
        "One host asked", "the bureau takes a margin; only the first host has the new file", _cluster(one_host_asked)
    ),
    Step("Broken file", "a parenthesis is forgotten", steps.broken_file),
    Step("Whole source", "margin and receipts change, in two modules; the ledgers go on", _cluster(whole_source)),
    Step("Rollback", "nobody likes it", _cluster(rollback)),
    Step(
        "Killed host",
        "a margin is taken while the third host is away; it starts from old files",
        _cluster(killed_host),
    ),
    Step("Killed Redis", "requests go on; when it is back, so do reloads", _cluster(redis_killed)),
    Step("Empty Redis", "it loses all its data; the workers give it back", _cluster(redis_emptied)),
)

"""Each rule of the state machines, one at a time; what they are good for together is seen in the simulation."""

import pytest
from msgspec.structs import replace

from flask_hotreload.coordination.protocol import (
    DRY_RUN,
    STAGED,
    VOTES_LOST,
    Advance,
    Apply,
    CatchUp,
    Commit,
    Coordinator,
    Finish,
    Participant,
    Prepare,
    PublishAgain,
    Release,
    Restore,
    Step,
    TryAbort,
    Wait,
    stand_by,
)
from flask_hotreload.coordination.records import Ballot, Member, News, Phase, TransactionRecord, View, Vote

RELEASE = "0"
DEADLINE = 100.0
IN_DOUBT = 10.0


def transaction(phase=Phase.PREPARE, *, name="t1", participants=("a", "b", "c"), base=0, reason=None):
    return TransactionRecord(name, RELEASE, "a", participants, base, base + 1, phase, DEADLINE, b"payload", reason)


def view(active=None, *, head=0, outcome=None, votes=(), members=("a", "b", "c")):
    there = tuple(Member(name, "host", 1, RELEASE, head) for name in members)
    return View(RELEASE, head, head, active, tuple(votes), there, outcome)


def votes(ballot, *names, ok=True):
    return [Vote("t1", ballot, name, ok) for name in names]


def participant(me="b", generation=0, *, step=Step.IDLE):
    """One that stands at ``step`` of transaction ``t1``."""
    found = Participant(me, RELEASE, generation, in_doubt=IN_DOUBT)
    if step is not Step.IDLE:
        found.prepared(transaction(), ok=step is not Step.REFUSED)
    if step is Step.APPLIED:
        found.observe(view(transaction(Phase.APPLY), outcome=Phase.APPLY), 1.0)
        found.applied(ok=True)
    return found


def within(phase, *, now=1.0, step=Step.APPLIED, **options):
    """What a participant at ``step`` does when its transaction is in ``phase``."""
    return participant(step=step).observe(view(transaction(phase), outcome=phase), now, **options)


NEWS_OF_APPLY = News("t1", Phase.APPLY, DEADLINE)
NEWS_OF_COMMIT = News("t1", Phase.COMMITTED)


def news_of_beginning(**other):
    record = replace(transaction(), **other)
    return News(record.id, Phase.PREPARE, record.deadline, record=record)


# A participant that is in no transaction ----------------------------------------------------------------------------


def test_nothing_to_do_without_a_transaction():
    assert participant().observe(view(), 1.0) == Wait()


def test_who_is_behind_catches_up_first():
    assert participant().observe(view(transaction(), head=3), 1.0) == CatchUp(3)
    assert participant().observe(view(head=3), 1.0) == CatchUp(3)


def test_a_participant_prepares():
    assert participant().observe(view(transaction()), 1.0) == Prepare(transaction())


def test_the_askers_worker_prepares_before_the_others():
    staging = transaction(Phase.STAGING)
    assert participant("a").observe(view(staging), 1.0) == Prepare(staging)
    assert participant("b").observe(view(staging), 1.0) == Wait(DEADLINE)


def test_who_is_no_participant_waits_for_the_end():
    assert participant("d").observe(view(transaction()), 1.0) == Wait(DEADLINE)


@pytest.mark.parametrize("phase", [Phase.COMMITTED, Phase.ABORTED])
def test_what_is_decided_does_not_concern_who_took_no_part(phase):
    assert participant().observe(view(transaction(phase)), 1.0) == Wait()


def test_what_it_has_given_up_it_ends():
    gone = participant(step=Step.PREPARED)
    assert isinstance(gone.observe(None, 1.0), Restore)
    gone.settled(0)
    assert gone.observe(view(transaction()), 2.0) == TryAbort("t1", "worker b had to give it up")


def test_a_transaction_that_changes_what_it_does_not_serve_it_ends():
    ahead = participant(generation=5)
    assert isinstance(ahead.observe(view(transaction()), 1.0), TryAbort)


@pytest.mark.parametrize("me", ["a", "b", "d"])
@pytest.mark.parametrize("phase", [Phase.STAGING, Phase.PREPARE, Phase.APPLY])
def test_anybody_ends_what_is_overdue_or_orphaned(me, phase):
    idle = view(transaction(phase))
    assert isinstance(participant(me).observe(idle, DEADLINE), TryAbort)
    assert isinstance(participant(me).observe(idle, 1.0, coordinator_is_dead=True), TryAbort)
    assert isinstance(stand_by(idle, DEADLINE), TryAbort)
    assert isinstance(stand_by(idle, 1.0, coordinator_is_dead=True), TryAbort)
    assert stand_by(idle, 1.0) == Wait(DEADLINE)


@pytest.mark.parametrize("phase", [Phase.COMMITTED, Phase.ABORTED])
def test_nobody_ends_what_is_decided(phase):
    decided = view(transaction(phase))
    assert stand_by(decided, DEADLINE, coordinator_is_dead=True) == Wait()
    assert stand_by(view(), DEADLINE) == Wait()


def test_without_the_store_and_a_transaction_there_is_nothing_to_do():
    assert participant().observe(None, 1.0) == Wait()


# A participant in a transaction -------------------------------------------------------------------------------------


def test_it_waits_for_the_others_until_the_deadline():
    assert within(Phase.PREPARE, step=Step.PREPARED) == Wait(DEADLINE)
    assert within(Phase.APPLY) == Wait(DEADLINE)


def test_it_applies_when_all_have_prepared():
    assert within(Phase.APPLY, step=Step.PREPARED) == Apply(transaction(Phase.APPLY))


def test_it_does_not_close_its_lock_when_the_time_is_over():
    assert isinstance(within(Phase.APPLY, step=Step.PREPARED, now=DEADLINE), TryAbort)


def test_it_releases_what_is_committed():
    assert within(Phase.COMMITTED) == Release("t1")


@pytest.mark.parametrize("step", [Step.PREPARED, Step.APPLIED, Step.REFUSED])
def test_it_restores_what_is_aborted_and_knows_why(step):
    aborted = view(transaction(Phase.ABORTED, reason="worker c refused"), outcome=Phase.ABORTED)
    assert participant(step=step).observe(aborted, 1.0) == Restore("t1", "worker c refused")


@pytest.mark.parametrize("phase", list(Phase))
def test_what_was_decided_counts_when_others_have_gone_on(phase):
    gone_on = transaction(phase, name="t2", base=1)
    assert participant(step=Step.APPLIED).observe(view(gone_on, outcome=Phase.COMMITTED), 1.0) == Release("t1")
    assert isinstance(participant(step=Step.APPLIED).observe(view(gone_on, outcome=Phase.ABORTED), 1.0), Restore)


def test_it_never_releases_what_it_has_not_applied():
    assert isinstance(within(Phase.COMMITTED, step=Step.PREPARED), Restore)


@pytest.mark.parametrize("step", [Step.PREPARED, Step.APPLIED])
def test_at_the_deadline_it_tries_to_abort_and_does_not_decide(step):
    phase = Phase.PREPARE if step is Step.PREPARED else Phase.APPLY
    assert isinstance(within(phase, step=step, now=DEADLINE), TryAbort)
    assert isinstance(within(phase, step=step, now=DEADLINE + 1000), TryAbort)


def test_when_the_coordinator_is_dead_it_tries_to_abort():
    action = within(Phase.APPLY, coordinator_is_dead=True)
    assert action == TryAbort("t1", "the coordinating worker a has died")


def test_when_it_has_refused_it_ends_the_transaction():
    assert within(Phase.PREPARE, step=Step.REFUSED) == TryAbort("t1", "worker b refused")


def test_without_the_store_it_gives_up_before_its_vote():
    assert isinstance(participant(step=Step.PREPARED).observe(None, 1.0), Restore)
    assert isinstance(participant(step=Step.REFUSED).observe(None, 1.0), Restore)


def test_without_the_store_it_waits_after_its_vote():
    voted = participant(step=Step.APPLIED)
    assert voted.observe(None, 5.0) == Wait(5.0 + IN_DOUBT)
    assert voted.observe(None, 5.0 + IN_DOUBT - 0.1) == Wait(5.0 + IN_DOUBT)
    last = voted.observe(None, 5.0 + IN_DOUBT)
    assert isinstance(last, Restore)
    assert last.reason.startswith("in doubt")


def test_a_store_that_is_back_ends_the_doubt():
    voted = participant(step=Step.APPLIED)
    voted.observe(None, 5.0)
    assert voted.observe(view(transaction(Phase.APPLY), outcome=Phase.APPLY), 14.0) == Wait(DEADLINE)
    assert voted.observe(None, 16.0) == Wait(16.0 + IN_DOUBT)
    assert voted.observe(view(transaction(Phase.COMMITTED), outcome=Phase.COMMITTED), 99.0) == Release("t1")


def test_a_store_that_can_be_read_but_not_written_is_a_store_that_is_away():
    voted = participant(step=Step.APPLIED)
    undecided = view(transaction(Phase.APPLY), outcome=Phase.APPLY)
    now = DEADLINE
    while now < DEADLINE + IN_DOUBT:
        assert isinstance(voted.observe(undecided, now), TryAbort)
        assert isinstance(voted.observe(None, now), Wait)  # it failed
        now += 1.0
    assert isinstance(voted.observe(undecided, now), TryAbort)  # once more
    assert isinstance(voted.observe(None, now), Restore)


def test_a_store_that_cannot_be_read_and_then_not_be_written_has_been_away_since_the_first():
    voted = participant(step=Step.APPLIED)
    undecided = view(transaction(Phase.APPLY), outcome=Phase.APPLY)
    assert voted.observe(None, DEADLINE) == Wait(DEADLINE + IN_DOUBT)
    assert isinstance(voted.observe(undecided, DEADLINE + IN_DOUBT - 1.0), TryAbort)  # it can be read again
    assert voted.observe(None, DEADLINE + IN_DOUBT - 1.0) == Wait(DEADLINE + IN_DOUBT)
    assert isinstance(voted.observe(undecided, DEADLINE + IN_DOUBT), TryAbort)
    assert isinstance(voted.observe(None, DEADLINE + IN_DOUBT), Restore)


def test_an_abort_that_was_answered_ends_the_doubt():
    found = participant(step=Step.APPLIED)
    overdue = view(transaction(Phase.APPLY), outcome=Phase.APPLY)
    assert found.observe(None, DEADLINE) == Wait(DEADLINE + IN_DOUBT)
    assert isinstance(found.observe(overdue, DEADLINE + 1), TryAbort)
    found.wrote()
    assert found.observe(None, DEADLINE + IN_DOUBT) == Wait(DEADLINE + 2 * IN_DOUBT)


def test_a_long_stop_is_no_doubt():
    voted = participant(step=Step.APPLIED)
    assert isinstance(voted.observe(view(transaction(Phase.APPLY), outcome=Phase.APPLY), 1e6), TryAbort)
    assert isinstance(voted.observe(None, 1e6), Wait)


def test_a_view_that_does_not_tell_of_its_transaction_is_an_error():
    with pytest.raises(ValueError, match="t1"):
        participant(step=Step.APPLIED).observe(view(transaction(Phase.APPLY)), 1.0)


def test_it_prepares_what_it_hears_begins():
    assert participant().hear(news_of_beginning(), 1.0) == Prepare(transaction())


@pytest.mark.parametrize(
    "other",
    [
        {"phase": Phase.STAGING},
        {"phase": Phase.APPLY},
        {"base": 1},
        {"participants": ("a",)},
        {"deadline": 1.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_it_hears_begins_for_others_or_in_another_way_it_looks_into(other):
    assert participant().hear(news_of_beginning(**other), 1.0) is None


def test_what_it_has_ended_does_not_begin_again_by_hearsay():
    done = participant(step=Step.PREPARED)
    done.settled(0)
    assert done.hear(news_of_beginning(), 1.0) is None


def test_while_it_prepares_it_hears_of_no_other_beginning():
    assert participant(step=Step.PREPARED).hear(news_of_beginning(id="t2"), 1.0) is None


def test_who_has_lost_the_store_looks_before_it_prepares_what_it_hears():
    """The time for which it may doubt would count from then."""
    lost = participant()
    assert lost.observe(None, 1.0) == Wait()
    assert lost.hear(news_of_beginning(), 1.0) is None
    assert lost.observe(view(), 1.0) == Wait()
    assert lost.hear(news_of_beginning(), 1.0) == Prepare(transaction())


def test_it_applies_when_it_hears_that_all_have_prepared():
    prepared = participant(step=Step.PREPARED)
    assert prepared.hear(NEWS_OF_APPLY, 1.0) == Apply(transaction(Phase.APPLY))
    assert prepared.record.phase is Phase.APPLY


def test_it_does_not_close_its_lock_for_what_it_hears_when_the_time_is_over():
    assert participant(step=Step.PREPARED).hear(NEWS_OF_APPLY, DEADLINE) is None


def test_it_releases_what_it_hears_is_committed():
    assert participant(step=Step.APPLIED).hear(NEWS_OF_COMMIT, 1.0) == Release("t1")


@pytest.mark.parametrize(
    ("step", "news"),
    [
        (Step.IDLE, NEWS_OF_APPLY),
        (Step.IDLE, NEWS_OF_COMMIT),
        (Step.REFUSED, NEWS_OF_APPLY),
        (Step.REFUSED, NEWS_OF_COMMIT),
        (Step.PREPARED, NEWS_OF_COMMIT),
        (Step.APPLIED, NEWS_OF_APPLY),
        (Step.PREPARED, News("t0", Phase.APPLY, DEADLINE)),
        (Step.APPLIED, News("t0", Phase.COMMITTED)),
        (Step.PREPARED, News("t1", Phase.APPLY, DEADLINE, agreed=True)),
    ],
)
def test_what_it_hears_at_another_step_or_of_another_transaction_it_looks_into(step, news):
    found = participant(step=step)
    assert found.hear(news, 1.0) is None
    assert found.step is step


def test_what_is_settled_is_over():
    voted = participant(step=Step.APPLIED)
    voted.settled(1)
    assert (voted.transaction, voted.step, voted.generation) == (None, Step.IDLE, 1)
    assert voted.observe(view(transaction(Phase.COMMITTED), head=1), 1.0) == Wait()


# The coordinator ----------------------------------------------------------------------------------------------------


def coordinate(phase, cast=(), *, now=1.0, dead=(), members=("a", "b", "c"), **options):
    seen = view(transaction(phase), outcome=phase, votes=cast, members=members)
    return Coordinator("t1", **options).observe(seen, set(dead), now)


@pytest.mark.parametrize(
    ("phase", "ballot", "then"),
    [
        (Phase.PREPARE, Ballot.PREPARED, Advance("t1", Phase.APPLY)),
        (Phase.APPLY, Ballot.APPLIED, Commit("t1")),
    ],
)
def test_a_phase_ends_with_the_last_vote(phase, ballot, then):
    assert coordinate(phase, votes(ballot, "a", "b")) == Wait(DEADLINE)
    assert coordinate(phase, votes(ballot, "a", "b", "c")) == then


def test_staging_ends_with_the_askers_own_vote():
    assert coordinate(Phase.STAGING) == Wait(DEADLINE)
    assert coordinate(Phase.STAGING, votes(Ballot.PREPARED, "a")) == Advance("t1", Phase.PREPARE)


@pytest.mark.parametrize(("option", "reason"), [("dry_run", DRY_RUN), ("stage", STAGED)])
def test_what_is_not_to_be_committed_ends_when_all_have_prepared(option, reason):
    cast = votes(Ballot.PREPARED, "a", "b", "c")
    assert coordinate(Phase.PREPARE, cast[:2], **{option: True}) == Wait(DEADLINE)
    assert coordinate(Phase.PREPARE, cast, **{option: True}) == TryAbort("t1", reason)


@pytest.mark.parametrize("phase", [Phase.STAGING, Phase.PREPARE, Phase.APPLY])
def test_one_no_is_enough(phase):
    ballot = Ballot.APPLIED if phase is Phase.APPLY else Ballot.PREPARED
    cast = votes(ballot, "a", "c") + votes(ballot, "b", ok=False)
    assert coordinate(phase, cast) == TryAbort("t1", "worker b refused")


def test_the_silent_are_named():
    action = coordinate(Phase.APPLY, votes(Ballot.APPLIED, "a"), now=DEADLINE)
    assert isinstance(action, TryAbort)
    assert action.reason.endswith("apply: b, c")


def test_the_dead_and_those_who_have_left_are_not_waited_for():
    cast = votes(Ballot.APPLIED, "a", "b")
    assert coordinate(Phase.APPLY, cast, dead=["c"]) == Commit("t1")
    assert coordinate(Phase.APPLY, cast, members=["a", "b"]) == Commit("t1")


def test_all_votes_that_are_there_count_even_after_the_deadline():
    assert coordinate(Phase.APPLY, votes(Ballot.APPLIED, "a", "b", "c"), now=DEADLINE + 1) == Commit("t1")


@pytest.mark.parametrize(
    ("phase", "options", "then"),
    [
        (Phase.PREPARE, {}, Advance("t1", Phase.APPLY)),
        (Phase.PREPARE, {"dry_run": True}, TryAbort("t1", DRY_RUN)),
        (Phase.PREPARE, {"stage": True}, TryAbort("t1", STAGED)),
        (Phase.APPLY, {}, Commit("t1")),
    ],
)
def test_a_phase_ends_when_it_hears_that_all_have_agreed(phase, options, then):
    coordinator = Coordinator("t1", **options)
    news = News("t1", phase, agreed=True)
    assert coordinator.hear(news) == then
    assert coordinator.hear(news) is None  # heard twice; if it did not take effect, the store tells


def test_that_all_have_prepared_is_nothing_new_to_who_has_heard_that_all_have_applied():
    """Of several votes that are cast at once each may be told that it is the last, and the news come late."""
    coordinator = Coordinator("t1")
    for phase in (Phase.PREPARE, Phase.APPLY):
        assert coordinator.hear(News("t1", phase, agreed=True)) is not None
    assert coordinator.hear(News("t1", Phase.PREPARE, agreed=True)) is None


@pytest.mark.parametrize("options", [{}, {"stage": True}])
def test_what_it_has_seen_it_does_not_do_again_when_it_hears_of_it(options):
    coordinator = Coordinator("t1", **options)
    prepared = view(transaction(), outcome=Phase.PREPARE, votes=votes(Ballot.PREPARED, "a", "b", "c"))
    assert not isinstance(coordinator.observe(prepared, set(), 1.0), Wait)
    assert coordinator.hear(News("t1", Phase.PREPARE, agreed=True)) is None


@pytest.mark.parametrize(
    "news",
    [
        News("t0", Phase.APPLY, agreed=True),
        News("t1", Phase.APPLY, DEADLINE),
        News("t1", Phase.COMMITTED, agreed=True),
        News("t1", Phase.STAGING, agreed=True),
    ],
)
def test_whatever_else_the_coordinator_hears_it_looks_into(news):
    assert Coordinator("t1").hear(news) is None


def test_who_hears_that_all_have_applied_knows_that_the_store_has_been_there():
    asker = Coordinator("t1")
    assert asker.hear(News("t1", Phase.APPLY, agreed=True)) == Commit("t1")
    lost = view(transaction(), outcome=Phase.PREPARE, votes=votes(Ballot.PREPARED, "a", "b", "c"))
    assert asker.observe(lost, set(), 1.0) == TryAbort("t1", VOTES_LOST)


@pytest.mark.parametrize("phase", [Phase.COMMITTED, Phase.ABORTED])
def test_it_waits_a_while_until_the_decision_was_carried_out(phase):
    prepared = votes(Ballot.PREPARED, "a", "b")
    coordinator = Coordinator("t1", settle_seconds=2.0)
    some = view(transaction(phase), outcome=phase, votes=prepared + votes(Ballot.SETTLED, "a"))
    every = view(transaction(phase), outcome=phase, votes=prepared + votes(Ballot.SETTLED, "a", "b"))
    assert coordinator.observe(some, set(), 1.0) == Wait(3.0)
    assert coordinator.observe(every, set(), 2.0) == Finish(phase, ())
    assert coordinator.observe(some, {"b"}, 2.0) == Finish(phase, ())
    assert coordinator.observe(some, set(), 3.0) == Finish(phase, ("b",))


@pytest.mark.parametrize("outcome", [Phase.COMMITTED, Phase.ABORTED])
def test_it_learns_what_was_decided_while_it_was_stopped(outcome):
    gone_on = view(transaction(Phase.APPLY, name="t2", base=1), outcome=outcome)
    assert Coordinator("t1").observe(gone_on, set(), 1.0) == Finish(outcome, ())


# What the store has lost --------------------------------------------------------------------------------------------


def test_who_runs_what_the_store_has_lost_publishes_it_again_if_it_can():
    ahead = participant(generation=7)
    ahead.publishes = True
    assert ahead.observe(view(head=5), 1.0) == PublishAgain(5)
    ahead.publishes = False
    assert ahead.observe(view(head=5), 1.0) == Wait()


def test_nothing_is_committed_without_the_dead_when_the_store_was_away():
    applied = view(transaction(Phase.APPLY), votes=votes(Ballot.APPLIED, "a", "b"), outcome=Phase.APPLY)
    coordinator = Coordinator("t1")
    assert coordinator.observe(applied, {"c"}, 1.0) == Commit("t1")
    assert isinstance(coordinator.observe(applied, {"c"}, 1.0, steady=False), TryAbort)
    everybody = view(transaction(Phase.APPLY), votes=votes(Ballot.APPLIED, "a", "b", "c"), outcome=Phase.APPLY)
    assert coordinator.observe(everybody, set(), 1.0, steady=False) == Commit("t1")


def test_whose_vote_the_store_has_lost_it_aborts_at_once():
    assert within(Phase.PREPARE, step=Step.APPLIED) == TryAbort("t1", VOTES_LOST)
    assert within(Phase.PREPARE, step=Step.PREPARED) == Wait(DEADLINE)
    asker = Coordinator("t1")
    assert isinstance(asker.observe(view(transaction(Phase.APPLY), outcome=Phase.APPLY), set(), 1.0), Wait)
    prepared = view(transaction(), outcome=Phase.PREPARE, votes=votes(Ballot.PREPARED, "a", "b", "c"))
    assert asker.observe(prepared, set(), 1.0) == TryAbort("t1", VOTES_LOST)

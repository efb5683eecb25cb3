"""Every checker of the chaos suites is shown to see what it is for, in histories made by hand."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from chaos import fleet_faults, store_suite
from chaos.checkers import CHECKERS, Checker, violations
from chaos.faults import Kind, schedule_of
from chaos.history import Attempt, Command, Heard, History, Read
from chaos.truth import LogMessage, OutboxRow, StoredEvent, Truth
from chaos.worlds import Breakable

EVERYTHING = Breakable(("node",), ("http", "nats"), has_postgres=True)
A, B = "t/counter/a", "t/counter/b"


def event(stream: str, version: int, key: str, by: int, value: int) -> StoredEvent:
    return StoredEvent(stream, version, f"id-{stream[-1]}{version}", key, by, value)


def command(key: str, at_s: float, by: int, told: tuple[int, int], **more: int) -> Command:
    heard = Heard("ok", "", *told)
    return Command(key, A, by, attempts=[Attempt(at_s, at_s + 0.5, heard)], **more)


def a_world() -> tuple[History, Truth]:
    """A round in which every promise was kept: what the mutants below are made of."""
    retried = command("k3", 3.0, -2, (6, 4), expected=3)
    retried.attempts.insert(0, Attempt(2.0, 2.5, Heard("unknown", "503")))
    late = Command("k4", A, 1, expected=1)
    late.attempts.append(Attempt(4.0, 4.1, Heard("refused", "412")))
    other = Command("k5", B, 3, attempts=[Attempt(0.5, 0.9, Heard("ok", "", 3, 2))])
    commands = [command("k1", 0.0, 5, (5, 2)), command("k2", 1.0, 3, (8, 3)), retried, late, other]
    reads = [Read(A, 2, 1.0, 1.2, 5, 2), Read(A, 0, 1.3, 1.4, 5, 2), Read(A, 4, 5.0, 5.1, 6, 4)]
    events = [
        event(A, 1, "k1", 0, 0),
        event(A, 2, "k1", 5, 5),
        event(B, 1, "k5", 0, 0),
        event(B, 2, "k5", 3, 3),
        event(A, 3, "k2", 3, 8),
        event(A, 4, "k3", -2, 6),
    ]
    log = [LogMessage(n, e.event_id, e.stream, e.version) for n, e in enumerate(events, start=1)]
    state = {A: (6, 4), B: (3, 2)}
    truth = Truth(
        events,
        {A: 4, B: 2},
        {"k1": (5, 2), "k2": (8, 3), "k3": (6, 4), "k5": (3, 2)},
        [OutboxRow(n * 10, n, e.stream, e.version) for n, e in enumerate(events, start=1)],
        ledger=log,
        log=list(log),
        views=state,
        shown=dict(state),
    )
    return History(commands, reads), truth


def test_a_world_in_which_everything_was_kept_is_not_complained_about() -> None:
    assert [] == violations(*a_world())


Mutant = Callable[[History, Truth], Truth]


def without(truth: Truth, stream: str, version: int) -> Truth:
    return truth.but(events=[e for e in truth.events if (e.stream, e.version) != (stream, version)])


def lost_acknowledgement(_: History, truth: Truth) -> Truth:
    """As if the last commit had not survived the crash: no trace of it anywhere."""
    gone = without(truth, A, 4)
    replies = {key: told for key, told in truth.replies.items() if key != "k3"}
    return gone.but(
        replies=replies,
        heads={A: 3, B: 2},
        outbox=truth.outbox[:-1],
        ledger=(truth.ledger or [])[:-1],
        log=(truth.log or [])[:-1],
        views={A: (8, 3), B: (3, 2)},
        shown={A: (8, 3), B: (3, 2)},
    )


def forgotten_reply(_: History, truth: Truth) -> Truth:
    return truth.but(replies={key: told for key, told in truth.replies.items() if key != "k2"})


def double_effect(_: History, truth: Truth) -> Truth:
    """The retry of k3 was carried out again."""
    again = event(A, 5, "k3", -2, 4)
    return truth.but(events=[*truth.events, again], heads={A: 5, B: 2})


def effect_of_nobody(_: History, truth: Truth) -> Truth:
    return truth.but(events=[*truth.events, event(B, 3, "k9", 1, 4)])


def effect_elsewhere(_: History, truth: Truth) -> Truth:
    swapped = {"k2": "k5", "k5": "k2"}
    return truth.but(events=[replace(e, key=swapped.get(e.key, e.key)) for e in truth.events])


def refused_and_done(_: History, truth: Truth) -> Truth:
    return truth.but(events=[*truth.events, event(A, 5, "k4", 1, 7)])


def refused_without_condition(history: History, truth: Truth) -> Truth:
    history.commands[3].expected = None
    return truth


def condition_ignored(history: History, truth: Truth) -> Truth:
    history.commands[2].expected = 1
    return truth


def heard_nonsense(history: History, truth: Truth) -> Truth:
    history.commands[2].attempts[0] = Attempt(2.0, 2.5, Heard("wrong", "500 internal"))
    return truth


def never_settled(history: History, truth: Truth) -> Truth:
    history.commands[2].attempts.pop()
    return truth


def told_two_things(history: History, truth: Truth) -> Truth:
    history.commands[0].attempts.append(Attempt(6.0, 6.1, Heard("ok", "", 6, 4, replayed=True)))
    return truth


def hole_in_versions(_: History, truth: Truth) -> Truth:
    return without(truth, A, 3)


def stale_head(_: History, truth: Truth) -> Truth:
    return truth.but(heads={A: 3, B: 2})


def wrong_fold(_: History, truth: Truth) -> Truth:
    """An event that was decided on a state that never was."""
    return truth.but(events=[replace(e, value=9) if e.key == "k2" else e for e in truth.events])


def wrong_sum(history: History, truth: Truth) -> Truth:
    history.commands[4].by = 4
    return truth


def inversion(history: History, truth: Truth) -> Truth:
    """k2 was asked for after k3 had been acknowledged, and stands before it."""
    history.commands[1].attempts = [Attempt(3.6, 3.9, Heard("ok", "", 8, 3))]
    return truth


def read_of_what_never_was(history: History, truth: Truth) -> Truth:
    history.reads[1] = Read(A, 0, 1.3, 1.4, 7, 2)
    return truth


def read_too_old_for_its_token(history: History, truth: Truth) -> Truth:
    history.reads[2] = Read(A, 4, 5.0, 5.1, 8, 3)
    return truth


def read_that_goes_back(history: History, truth: Truth) -> Truth:
    history.reads.append(Read(A, 0, 6.0, 6.1, 8, 3))
    return truth


def two_outbox_rows(_: History, truth: Truth) -> Truth:
    return truth.but(outbox=[*truth.outbox, OutboxRow(99, None, A, 2)])


def no_outbox_row(_: History, truth: Truth) -> Truth:
    return truth.but(outbox=truth.outbox[1:])


def outbox_row_of_nothing(_: History, truth: Truth) -> Truth:
    return truth.but(outbox=[*truth.outbox, OutboxRow(99, 7, B, 3)])


def never_published(_: History, truth: Truth) -> Truth:
    last = replace(truth.outbox[-1], offset=None)
    ledger = (truth.ledger or [])[:-1]
    return truth.but(outbox=[*truth.outbox[:-1], last], ledger=ledger, log=list(ledger))


def hole_in_offsets(_: History, truth: Truth) -> Truth:
    log = [replace(m, offset=m.offset + (m.offset > 3)) for m in truth.log or ()]
    return truth.but(ledger=log, log=list(log))


def message_missing(_: History, truth: Truth) -> Truth:
    return truth.but(log=(truth.log or [])[:-1])


def other_event_at_an_offset(_: History, truth: Truth) -> Truth:
    log = list(truth.log or ())
    log[1] = replace(log[1], event_id="id-foreign")
    return truth.but(log=log)


def log_out_of_order(_: History, truth: Truth) -> Truth:
    """Ledger and stream agree, and both have a stream's second event before its first."""
    log = list(truth.log or ())
    log[0], log[1] = replace(log[1], offset=1), replace(log[0], offset=2)
    return truth.but(ledger=log, log=list(log))


def wrong_view(_: History, truth: Truth) -> Truth:
    return truth.but(views={A: (6, 4), B: (2, 2)})


def view_without_a_counter(_: History, truth: Truth) -> Truth:
    return truth.but(views={A: (6, 4)})


def wrong_get(_: History, truth: Truth) -> Truth:
    return truth.but(shown={A: (8, 3), B: (3, 2)})


def nothing_done(history: History, truth: Truth) -> Truth:
    history.commands.clear()
    history.reads.clear()
    return truth.but(
        events=[], heads={}, replies={}, outbox=[], ledger=[], log=[], views={}, shown={}
    )


CAUGHT_BY: dict[Mutant, str] = {
    lost_acknowledgement: "nothing_acknowledged_is_lost",
    forgotten_reply: "nothing_acknowledged_is_lost",
    double_effect: "nothing_happens_twice",
    effect_of_nobody: "nothing_happens_twice",
    effect_elsewhere: "nothing_happens_twice",
    refused_and_done: "a_refusal_leaves_no_trace",
    refused_without_condition: "a_refusal_leaves_no_trace",
    condition_ignored: "a_condition_holds",
    heard_nonsense: "callers_hear_an_outcome_or_unavailable",
    never_settled: "retries_settle_everything",
    told_two_things: "retries_settle_everything",
    hole_in_versions: "versions_have_no_hole",
    stale_head: "versions_have_no_hole",
    wrong_fold: "state_is_the_fold",
    wrong_sum: "sums_agree",
    inversion: "time_is_respected",
    read_of_what_never_was: "reads_are_true",
    read_too_old_for_its_token: "reads_are_true",
    read_that_goes_back: "reads_are_true",
    two_outbox_rows: "the_outbox_has_each_event_once",
    no_outbox_row: "the_outbox_has_each_event_once",
    outbox_row_of_nothing: "the_outbox_has_each_event_once",
    never_published: "the_log_is_the_ledger",
    hole_in_offsets: "the_log_is_the_ledger",
    message_missing: "the_log_is_the_ledger",
    other_event_at_an_offset: "the_log_is_the_ledger",
    log_out_of_order: "the_log_is_the_ledger",
    wrong_view: "views_are_the_fold",
    view_without_a_counter: "views_are_the_fold",
    wrong_get: "views_are_the_fold",
    nothing_done: "something_was_done",
}


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_a_broken_promise_is_seen_by_its_checker(mutant: Mutant) -> None:
    history, truth = a_world()
    broken = mutant(history, truth)

    assert CAUGHT_BY[mutant] in {said.split(":")[0] for said in violations(history, broken)}


def test_every_checker_has_something_that_it_is_seen_to_catch() -> None:
    def name(checker: Checker) -> str:
        return checker.__name__

    assert {name(checker) for checker in CHECKERS} == set(CAUGHT_BY.values())


def test_what_a_suite_does_not_have_is_not_judged() -> None:
    history, truth = a_world()

    assert [] == violations(history, truth.but(ledger=None, log=None, views=None, shown=None))


def test_a_part_of_the_log_is_compared_from_where_the_last_comparison_ended() -> None:
    history, truth = a_world()
    part = (truth.log or [])[2:]

    assert [] == violations(history, truth.but(ledger=part, log=list(part), log_after=2))
    assert violations(history, truth.but(ledger=part, log=list(part), log_after=1))


def test_a_history_comes_back_from_another_process_as_it_was() -> None:
    history, _ = a_world()

    assert history == History.from_json(history.to_json())


@pytest.mark.parametrize(
    "suite",
    [store_suite.kinds(), fleet_faults.kinds(Breakable(("n",), ("http",), has_postgres=True))],
    ids=["store", "fleet"],
)
def test_a_seed_is_a_schedule(suite: Mapping[str, Kind]) -> None:
    """The same seed breaks the same things; many seeds break everything that can be broken."""

    def faults(seed: int) -> Iterator[str]:
        return (fault.kind for fault in schedule_of(seed, suite))

    first, second = ([schedule_of(n, suite) for n in range(50)] for _ in range(2))
    assert first == second
    assert set(suite) == {kind for seed in range(300) for kind in faults(seed)}
    assert {1, 2, 3} == {len(list(faults(seed))) for seed in range(50)}

"""`flotilla why-late`: from facts to a verdict as a table of sentences, and with a stopped relay."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.lateness import Facts, judge
from flotilla_platform.testing import Fleet, eventually

Up = Callable[..., Fleet]
Run = Callable[..., subprocess.CompletedProcess[str]]

WELL = Facts("counters", "counter", budget_s=5.0, stream_last=0, sign_of_life_s=1.0)
LATE = replace(WELL, lag_events=100, lag_s=60.0, committed_before=500, committed=500)

SENTENCES = [
    (
        "its log's store is away",
        replace(WELL, log_error="no answer"),
        ["store-unreachable"],
        "the store of the log 'counter' cannot be read: no answer",
    ),
    (
        "its view store is away",
        replace(WELL, views_error="no answer"),
        ["views-unreachable"],
        "its view store cannot be read: no answer",
    ),
    (
        "the broker is away",
        replace(LATE, broker_answers=False, stream_last=None),
        ["broker-down"],
        "the broker does not answer, so nothing is relayed and nothing delivered",
    ),
    (
        "the broker is away, and so everything waits in the outbox",
        replace(LATE, broker_answers=False, stream_last=None, waiting=100, oldest_waiting_s=60.0),
        ["broker-down", "relay"],
        "the broker does not answer, so nothing is relayed and nothing delivered",
    ),
    (
        "nobody relays",
        replace(LATE, waiting=100, oldest_waiting_s=60.0),
        ["relay"],
        "100 event(s) of 'counter' have no offset, the oldest for 60.0 s: no relay publishes them",
    ),
    (
        "the relay published and halted",
        replace(LATE, waiting=100, oldest_waiting_s=4.0, offset=400, stream_last=410),
        ["relay-halted"],
        (
            "the stream ends at 410 and the ledger at 400: what is published and not recorded is not"
            " folded"
        ),
    ),
    (
        "nobody runs it",
        replace(LATE, sign_of_life_s=90.0, checkpoint_before=400, checkpoint=400),
        ["not-running"],
        "its projector was last heard of 90 s ago, and the checkpoint stays at 400",
    ),
    (
        "nobody ever ran it",
        replace(LATE, sign_of_life_s=None),
        ["not-running"],
        "its projector never left a sign of life, and the checkpoint stays at 0",
    ),
    (
        "it died with a trouble of long ago, which is no reason any more",
        replace(LATE, sign_of_life_s=90.0, trouble="the broker is away"),
        ["not-running"],
        "its projector was last heard of 90 s ago, and the checkpoint stays at 0",
    ),
    (
        "projectors live, and none owns it",
        replace(LATE, ownerless_s=30.0, trouble="silent for 3.5 s"),
        ["no-owner", "trouble"],
        ("no projector has owned it for 30 s: none reaches broker and store, or all are halted"),
    ),
    (
        "it was let go of a moment ago, and is slow",
        replace(LATE, ownerless_s=3.0, checkpoint_before=0, checkpoint=10, committed=530),
        ["slow"],
        (
            "it folds 10 events/s and 30/s arrive, 100 are left: its handler is slower than what"
            " arrives"
        ),
    ),
    (
        "it folded what the restored store has lost, however much has happened since",
        replace(LATE, diverged="the log ends at 3", waiting=100, oldest_waiting_s=60.0),
        ["diverged"],
        "the log ends at 3: the store of 'counter' was restored from before that",
    ),
    (
        "somebody has locked its tables",
        replace(LATE, lock_wait_s=1.5, lock_holder="process 7 (psql, idle): lock table x"),
        ["lock"],
        "it waits for 1.5 s for a lock of process 7 (psql, idle): lock table x",
    ),
    (
        "it halted",
        replace(LATE, trouble="projection.counters halted: offset 3 is neither"),
        ["trouble"],
        "the projector says: projection.counters halted: offset 3 is neither",
    ),
    (
        "keys are parked and nothing else is wrong",
        replace(WELL, parked_events=3, parked_keys=1, parked_s=40.0),
        ["parked"],
        (
            "3 event(s) of 1 key(s) are parked, the oldest of 40 s ago: these keys are stale, the"
            " others are not"
        ),
    ),
    (
        "keys are parked, and it is slow beside",
        replace(
            LATE, parked_events=3, parked_keys=1, checkpoint_before=0, checkpoint=10, committed=530
        ),
        ["parked", "slow"],
        (
            "3 event(s) of 1 key(s) are parked, the oldest of 0 s ago: these keys are stale, the"
            " others are not"
        ),
    ),
    (
        "more arrives than it folds",
        replace(LATE, checkpoint_before=0, checkpoint=10, committed=530),
        ["slow"],
        (
            "it folds 10 events/s and 30/s arrive, 100 are left: its handler is slower than what"
            " arrives"
        ),
    ),
    (
        "it catches up",
        replace(LATE, checkpoint_before=380, checkpoint=400),
        ["catching-up"],
        "it folds 20 events/s and 0/s arrive, 100 are left: it catches up in about 5 s",
    ),
    (
        "it folds, whatever it complained of a moment ago",
        replace(LATE, checkpoint_before=380, checkpoint=400, trouble="silent for 3.5 s"),
        ["catching-up"],
        "it folds 20 events/s and 0/s arrive, 100 are left: it catches up in about 5 s",
    ),
    (
        "it lives and does nothing",
        replace(LATE, checkpoint_before=400, checkpoint=400),
        ["stuck"],
        (
            "it folds 0 events/s and 0/s arrive, 100 are left: it lives, and its checkpoint stays at"
            " 400"
        ),
    ),
]


@pytest.mark.parametrize(
    ("facts", "codes", "because"),
    [sentence[1:] for sentence in SENTENCES],
    ids=[sentence[0] for sentence in SENTENCES],
)
def test_it_is_late_because(facts: Facts, codes: list[str], because: str) -> None:
    verdict = judge(facts)
    assert verdict.late
    assert [reason.code for reason in verdict.reasons] == codes
    assert verdict.reasons[0].because == because
    assert all(reason.do for reason in verdict.reasons)


@pytest.mark.parametrize(
    "facts",
    [
        WELL,
        replace(WELL, lag_events=10, lag_s=4.9),
        replace(WELL, lag_events=10, lag_s=5.0, waiting=10, oldest_waiting_s=5.0),
        replace(WELL, broker_answers=False, stream_last=None),
        replace(WELL, sign_of_life_s=None),
        replace(WELL, trouble="silent for 3.5 s"),
        replace(LATE, budget_s=60.0),
    ],
)
def test_it_is_not_late_within_its_budget_whatever_else_is_wrong(facts: Facts) -> None:
    verdict = judge(facts)
    assert (verdict.late, verdict.reasons) == (False, ())


def test_whoever_is_late_has_a_reason() -> None:
    """Any mix of facts: late means at least one reason, each once."""
    one_of_each = [sentence[1] for sentence in SENTENCES]
    for a in one_of_each:
        for b in one_of_each:
            changed = {
                name: getattr(b, name)
                for name in Facts.__dataclass_fields__
                if getattr(b, name) != getattr(WELL, name)
            }
            verdict = judge(replace(a, **changed))
            codes = [reason.code for reason in verdict.reasons]
            assert codes, (a, b)
            assert len(set(codes)) == len(codes)


# A real fleet.


def told(result: subprocess.CompletedProcess[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_stopped_relay_is_named_with_its_cure(up: Up, run: Run) -> None:
    up("keeps", "folds", folds="tiny_services:folds_punctually").runtime()

    def late() -> subprocess.CompletedProcess[str] | None:
        result = run("why-late", "said", "--json")
        return result if result.returncode == ExitCode.UNHEALTHY else None

    verdict = told(eventually(late, "it is late"))
    assert verdict["budget_s"] == 0.1
    assert verdict["lag_events"] == 3
    first = verdict["reasons"][0]  # type: ignore[index] # a JSON document
    assert first["code"] == "relay"
    assert first["because"].startswith("2 event(s) of 'keeps' have no offset, the oldest for ")
    shown = run("why-late", "said").stdout
    assert "said (log keeps) is late: 3 event(s)" in shown
    assert "→ look at `curl <api>/readyz`, restart the relay" in shown


def test_a_projection_that_has_everything_is_not_late(up: Up, run: Run) -> None:
    up("keeps", "relays", "folds", folds="tiny_services:folds_all").runtime()
    result = run("why-late", "said")
    assert result.returncode == ExitCode.OK, result.stdout
    assert result.stdout.startswith("said (log keeps) is not late: 0 event(s), 0.0 s behind")


def test_a_projection_that_nobody_knows(up: Up, run: Run) -> None:
    up("keeps", "folds", folds="tiny_services:folds_two").runtime()
    result = run("why-late", "sad")
    assert (result.returncode, result.stdout) == (ExitCode.NOT_FOUND, "")
    assert result.stderr == ("flotilla: no projection 'sad' has begun here: there are said\n")
    assert run("why-late", "said", "--data", "nowhere").returncode == ExitCode.NOT_RUNNING

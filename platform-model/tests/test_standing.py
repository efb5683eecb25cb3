"""A projection in partitions is told by the slowest of them, with all of them beside it."""

from flotilla_platform.lateness import Facts, judge, slowest_of
from flotilla_platform.standing import ProjectionRow, wholes


def a_row(name: str, checkpoint: int, **more: float | str) -> ProjectionRow:
    facts = {"lag_events": 100 - checkpoint, "lag_s": (100 - checkpoint) / 10}
    return ProjectionRow.model_validate(
        {"projection": name, "log": "counter", "checkpoint": checkpoint} | facts | more
    )


def test_one_in_one_part_is_told_as_it_is() -> None:
    row = a_row("counters", 90, owner="me")

    assert [row] == wholes([row])


def test_one_in_partitions_is_where_the_slowest_is_and_lacks_what_any_lacks() -> None:
    parts = [
        a_row("counters/10of11", 99, parked_events=2, parked_keys=1, parked_oldest_s=4.0),
        a_row("counters/0of11", 95, owner="a"),
        a_row("counters/2of11", 40, owner="b", parked_events=1, parked_keys=1),
        a_row("counters/1of11", 98, ownerless_s=7.0),
    ]

    [whole, other] = wholes([*parts, a_row("tenant-totals", 100)])

    assert ("counters", 40, 60, "b") == (
        whole.projection,
        whole.checkpoint,
        whole.lag_events,
        whole.owner,
    )
    assert (3, 2, 4.0, 7.0) == (
        whole.parked_events,
        whole.parked_keys,
        whole.parked_oldest_s,
        whole.ownerless_s,
    )
    assert [0, 1, 2, 10] == [
        int(part.projection.split("/")[1].split("of")[0]) for part in whole.partitions
    ]
    assert ("tenant-totals", ()) == (other.projection, other.partitions)


def test_why_late_tells_the_latest_partition_and_lists_all() -> None:
    facts = [
        Facts("counters/0of2", "counter", lag_s=1.0, lag_events=3, sign_of_life_s=1.0),
        Facts("counters/1of2", "counter", lag_s=60.0, lag_events=9, sign_of_life_s=99.0),
    ]

    verdict = slowest_of("counters", [judge(one) for one in facts])

    assert ("counters", True, 9) == (verdict.projection, verdict.late, verdict.lag_events)
    assert ["not-running"] == [reason.code for reason in verdict.reasons]
    assert [False, True] == [part.late for part in verdict.partitions]
    alone = judge(Facts("counters", "counter"))
    assert alone == slowest_of("counters", [alone])

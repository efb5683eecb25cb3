"""What must be true after every round, whatever broke: one function a promise, pure.

Each yields what contradicts it, in words; nothing means that the promise was kept. Every one of them
is shown to catch what it is for (`tests/test_chaos_checkers.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from chaos.history import Command, History
from chaos.truth import LogMessage, StoredEvent, Truth

Checker = Callable[[History, Truth], Iterator[str]]

COMPLAINTS_MAX = 5
"""How many contradictions each checker may name: the first ones say what is wrong."""


def nothing_acknowledged_is_lost(history: History, truth: Truth) -> Iterator[str]:
    """What a caller was told is in the store, as it was told, and under its key."""
    stored = _moves(truth)
    for command in history.commands:
        for attempt in command.acknowledged:
            told = (attempt.heard.value, attempt.heard.version)
            at = [(event.value, event.version) for event in stored.get(command.key, ())]
            if told not in at:
                yield f"{command.key}: told {told} of {command.stream}, the store has {at}"
            if truth.replies.get(command.key) != told:
                yield f"{command.key}: told {told}, remembered {truth.replies.get(command.key)}"


def nothing_happens_twice(history: History, truth: Truth) -> Iterator[str]:
    """One key, one effect, of the size that was asked for, in the stream that was asked for."""
    asked = {command.key: command for command in history.commands}
    for key, moves in _moves(truth).items():
        if len(moves) > 1:
            yield f"{key}: took effect {len(moves)} times: {_places(moves)}"
        command = asked.get(key)
        if command is None:
            yield f"{key}: nobody asked for it: {_places(moves)}"
        elif any((move.stream, move.by) != (command.stream, command.by) for move in moves):
            yield f"{key}: asked for {command.by} in {command.stream}, got {_places(moves)}"


def a_refusal_leaves_no_trace(history: History, truth: Truth) -> Iterator[str]:
    """What was refused did not happen, under no attempt; and only a condition can be refused."""
    stored = _moves(truth)
    for command in history.commands:
        if not command.answer or command.answer.outcome != "refused":
            continue
        if command.expected is None:
            yield f"{command.key}: refused without a condition: {command.answer.detail}"
        if command.key in stored:
            yield f"{command.key}: refused, and happened: {_places(stored[command.key])}"


def a_condition_holds(history: History, truth: Truth) -> Iterator[str]:
    """A command that was meant for one version acted on that version."""
    stored = _moves(truth)
    for command in history.commands:
        for move in stored.get(command.key, ()):
            if command.expected is not None and move.version != command.expected + 1:
                yield f"{command.key}: meant for {command.expected}, became {move.version}"


def callers_hear_an_outcome_or_unavailable(history: History, _truth: Truth) -> Iterator[str]:
    """Nobody hears of anything that is not in the contract."""
    for command in history.commands:
        for attempt in command.attempts:
            if attempt.heard.outcome == "wrong":
                yield f"{command.key}: {attempt.heard.detail}"


def something_was_done(history: History, truth: Truth) -> Iterator[str]:
    """A round in which nothing was acknowledged proves nothing."""
    if not history.count("ok") or not truth.events:
        yield f"{len(history.commands)} commands, none of them acknowledged"


def retries_settle_everything(history: History, _truth: Truth) -> Iterator[str]:
    """Whoever insists under the same key learns what became of the command, always the same."""
    for command in history.commands:
        if not command.answer:
            last = command.attempts[-1].heard.detail if command.attempts else "never tried"
            yield f"{command.key}: not settled after {len(command.attempts)} attempts: {last}"
        told = {(attempt.heard.value, attempt.heard.version) for attempt in command.acknowledged}
        if len(told) > 1:
            yield f"{command.key}: told different things: {sorted(told)}"


def versions_have_no_hole(_history: History, truth: Truth) -> Iterator[str]:
    """A stream is 1, 2, 3 …, and its compare-and-set row knows where it ends."""
    for stream, events in truth.streams.items():
        versions = [event.version for event in events]
        if versions != list(range(1, len(versions) + 1)):
            yield f"{stream}: versions {_first_gap(versions)}"
    for stream in truth.heads.keys() | truth.streams.keys():
        last = max((event.version for event in truth.streams.get(stream, ())), default=0)
        if truth.heads.get(stream) != last:
            yield f"{stream}: its row says {truth.heads.get(stream)}, its events {last}"


def state_is_the_fold(_history: History, truth: Truth) -> Iterator[str]:
    """Every event stands on the one before it."""
    for stream, events in truth.streams.items():
        value = 0
        for event in events:
            value += event.by
            if event.value != value:
                yield f"{stream}@{event.version}: says {event.value}, the events add up to {value}"
                break


def sums_agree(history: History, truth: Truth) -> Iterator[str]:
    """A counter stands where its callers, adding up what they were told, expect it."""
    expected: dict[str, int] = {}
    open_streams = set()
    for command in history.commands:
        if command.answer and command.answer.outcome == "ok":
            expected[command.stream] = expected.get(command.stream, 0) + command.by
        elif not command.answer:
            open_streams.add(command.stream)  # complained about elsewhere
    for stream, total in expected.items():
        events = truth.streams.get(stream)
        found = events[-1].value if events else None
        if found != total and stream not in open_streams:
            yield f"{stream}: callers add up to {total}, it stands at {found}"


def time_is_respected(history: History, _truth: Truth) -> Iterator[str]:
    """What was asked for after something was acknowledged comes after it in the stream."""
    for stream, commands in _by_stream(history.commands).items():
        ends = sorted(
            (attempt.ended_s, attempt.heard.version, command.key)
            for command in commands
            for attempt in islice(command.acknowledged, 1)
        )
        begins = sorted(
            (command.attempts[0].invoked_s, command.answer.version, command.key)
            for command in commands
            if command.answer and command.answer.outcome == "ok"
        )
        yield from _inversions(stream, ends, begins)


def reads_are_true(history: History, truth: Truth) -> Iterator[str]:
    """A query shows a state that was, not older than asked for or than what was shown before."""
    for read in history.reads:
        events = truth.streams.get(read.stream, ())
        was = events[read.version - 1].value if 0 < read.version <= len(events) else None
        if read.value != was:
            yield f"{read.stream}: a query showed {read.value}@{read.version}; it was {was}"
        if read.version < read.at_least:
            yield f"{read.stream}: a query showed {read.version}, asked for {read.at_least}"
    streams: dict[str, list[tuple[float, float, int]]] = {}
    for read in history.reads:
        streams.setdefault(read.stream, []).append((read.invoked_s, read.ended_s, read.version))
    for stream, reads in streams.items():
        ends = sorted((ended_s, version, f"a query@{version}") for _, ended_s, version in reads)
        begins = sorted(
            (began_s, version + 1, f"a query@{version}") for began_s, _, version in reads
        )
        yield from _inversions(stream, ends, begins)  # + 1: two may show the same


def the_outbox_has_each_event_once(_history: History, truth: Truth) -> Iterator[str]:
    """Exactly one row an event, in order within each stream."""
    rows: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    for row in sorted(truth.outbox, key=lambda row: row.position):
        rows[row.stream, row.version] = rows.get((row.stream, row.version), 0) + 1
        if row.version <= last.get(row.stream, 0):
            yield f"{row.stream}: the outbox has {row.version} after {last[row.stream]}"
        last[row.stream] = row.version
    events = {(event.stream, event.version) for event in truth.events}
    for stream, version in sorted(events | rows.keys()):
        count = rows.get((stream, version), 0)
        if count != 1 or (stream, version) not in events:
            there = "there" if (stream, version) in events else "not there"
            yield f"{stream}@{version}: {count} rows in the outbox, the event is {there}"


def the_log_is_the_ledger(_history: History, truth: Truth) -> Iterator[str]:
    """Offsets are dense, and each is the same event in ledger and stream; nothing is left waiting."""
    if truth.ledger is None or truth.log is None:
        return
    yield from _dense("the ledger", truth.ledger, truth.log_after)
    yield from _dense("the stream", truth.log, truth.log_after)
    theirs = {message.offset: message for message in truth.log}
    ours = {message.offset: message for message in truth.ledger}
    for offset in sorted(ours.keys() | theirs.keys()):
        if ours.get(offset) != theirs.get(offset):
            yield f"offset {offset}: ledger {ours.get(offset)}, stream {theirs.get(offset)}"
    versions: dict[str, int] = {}
    for message in truth.log:
        before = versions.get(message.stream)
        if before is not None and message.version != before + 1:
            yield f"offset {message.offset}: {message.stream}@{message.version} after {before}"
        versions[message.stream] = message.version
    for row in truth.outbox:
        if row.offset is None:
            yield f"{row.stream}@{row.version}: never got an offset"


def views_are_the_fold(_history: History, truth: Truth) -> Iterator[str]:
    """The read model, and what a query of it shows, are where the events lead."""
    folded = {s: (events[-1].value, events[-1].version) for s, events in truth.streams.items()}
    for name, found in (("the view", truth.views), ("a query", truth.shown)):
        if found is None:
            continue
        for stream in sorted(folded.keys() | found.keys()):
            if folded.get(stream) != found.get(stream):
                yield f"{stream}: {name} has {found.get(stream)}, it is {folded.get(stream)}"


CHECKERS: Sequence[Checker] = (
    something_was_done,
    nothing_acknowledged_is_lost,
    nothing_happens_twice,
    a_refusal_leaves_no_trace,
    a_condition_holds,
    callers_hear_an_outcome_or_unavailable,
    retries_settle_everything,
    versions_have_no_hole,
    state_is_the_fold,
    sums_agree,
    time_is_respected,
    reads_are_true,
    the_outbox_has_each_event_once,
    the_log_is_the_ledger,
    views_are_the_fold,
)


def violations(history: History, truth: Truth) -> list[str]:
    """Return what is not as promised; the first few of each promise."""
    return [
        f"{checker.__name__}: {complaint}"
        for checker in CHECKERS
        for complaint in islice(checker(history, truth), COMPLAINTS_MAX)
    ]


def _moves(truth: Truth) -> Mapping[str, Sequence[StoredEvent]]:
    """Return the events that moved something, by the key that led to them."""
    moves: dict[str, list[StoredEvent]] = {}
    for event in truth.events:
        if event.by:
            moves.setdefault(event.key, []).append(event)
    return moves


def _places(moves: Sequence[StoredEvent]) -> str:
    return ", ".join(f"{move.by:+} in {move.stream}@{move.version}" for move in moves)


def _by_stream(commands: Sequence[Command]) -> Mapping[str, Sequence[Command]]:
    streams: dict[str, list[Command]] = {}
    for command in commands:
        streams.setdefault(command.stream, []).append(command)
    return streams


def _inversions(
    stream: str,
    ends: Sequence[tuple[float, int, str]],
    begins: Sequence[tuple[float, int, str]],
) -> Iterator[str]:
    """Yield what began after something had ended and is not above it. Both are (time, version, who)."""
    at, highest, whose = 0, 0, ""
    for began_s, version, who in begins:
        while at < len(ends) and ends[at][0] < began_s:
            if ends[at][1] > highest:
                _, highest, whose = ends[at]
            at += 1
        if version <= highest:
            yield f"{stream}: {who} came after {whose} (version {highest}) and is {version}"


def _dense(where: str, messages: Sequence[LogMessage], after: int) -> Iterator[str]:
    offsets = [message.offset for message in messages]
    if offsets != list(range(after + 1, after + 1 + len(offsets))):
        yield f"{where}: offsets after {after}: {_first_gap(offsets, after)}"


def _first_gap(numbers: Sequence[int], after: int = 0) -> str:
    for expected, found in enumerate(numbers, start=after + 1):
        if found != expected:
            return f"{found} where {expected} should be"
    return f"end at {len(numbers) + after}"

"""How far every log and every projection is, read from the tables and not from who fills them.

A relay that died cannot say that it is behind; the table can. So this opens the stores of a running
fleet by their URLs, and asks the broker only for its last sequence, to show it beside.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Literal

import nats.errors
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from pydantic import BaseModel, ConfigDict

from flotilla.clock import Clock
from flotilla.errors import KernelError, Unavailable
from flotilla.lease import LeaseStatus
from flotilla.nats import inbox_prefix
from flotilla.outbox import LogStatus
from flotilla.parked import parked_counts
from flotilla.replica import LEADERLESS_MAX_S, Led, led
from flotilla.stores import ServiceStore, open_leases, open_store, open_views
from flotilla_contracts.wire import event_stream, projection_lease, relay_lease
from flotilla_platform.limits import LAG_MAX_S
from flotilla_platform.model import OPERATOR
from flotilla_platform.runtime import ProcessState, Runtime
from flotilla_platform.standing import ProjectionRow, projection_row, wholes, with_parked

MISMATCH_MAX_S = 3.0
"""How long stream and ledger may differ: the relay publishes first and records second."""

_STORE_TIMEOUT_S = 5.0
_BROKER_TIMEOUT_S = 1.5
_UNREADABLE = (KernelError, OSError, KeyError, ValueError)
"""What opening and reading a store may raise: none of it may hide what the other stores say."""


class LogRow(BaseModel):
    """One log: what was committed, what has an offset, and what the broker has of it."""

    model_config = ConfigDict(frozen=True)

    log: str
    committed: int
    offset: int
    waiting: int
    oldest_waiting_s: float
    """Age of the oldest event without an offset; 0 when there is none."""
    stream: str
    stream_last_sequence: int | None
    """None when the broker does not answer; 0 when it has no such stream yet."""
    leader: str | None
    """Which relay leads the log, `<host>:<pid>:<id>`, by the lease in its store; None: nobody."""
    leaderless_s: float | None
    """How long nobody has; None while somebody does, or when nobody ever did."""


class Status(BaseModel):
    """Everything that `flotilla status` knows. The JSON of it is stable: fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    topology: str
    data: str
    pid: int
    api: str | None
    broker: str
    broker_reachable: bool
    lag_max_s: float
    healthy: bool
    """All can be read, the broker answers, nothing lags more than `lag_max_s`, nothing is parked."""
    problems: tuple[str, ...]
    """Why it is not healthy, in words."""
    logs: tuple[LogRow, ...]
    projections: tuple[ProjectionRow, ...]
    processes: tuple[ProcessState, ...] = ()
    """The processes of the fleet; empty where it is one."""


async def read_status(runtime: Runtime, clock: Clock, *, lag_max_s: float = LAG_MAX_S) -> Status:
    """Return where the fleet is now. What cannot be read becomes a problem, not an error."""
    problems = [_not_running(each) for each in runtime.processes if each.state != "running"]
    sequences = await read_sequences(runtime)
    if sequences is None:
        problems.append(f"the broker at {runtime.nats_url} does not answer")
    async with AsyncExitStack() as stack:
        stores: dict[str, ServiceStore] = {}
        logs: dict[str, LogStatus] = {}
        leaders: dict[str, Led] = {}
        for name in runtime.logs:
            try:
                async with asyncio.timeout(_STORE_TIMEOUT_S):
                    store = await stack.enter_async_context(
                        open_store(runtime.stores[name], service=name, migrate=False)
                    )
                    leases = await read_leases(runtime.stores[name], name)
                    logs[name] = await store.status()
                    leaders[name] = led(leases, relay_lease(name))
                    stores[name] = store
            except _UNREADABLE as error:
                problems.append(f"the store of {name!r} cannot be read: {error}")
        projections = await _read_projections(runtime, stores, logs, clock, problems)
    rows = tuple(_log_row(name, status, sequences, leaders[name]) for name, status in logs.items())
    problems += _too_late(rows, projections, lag_max_s)
    return Status(
        topology=runtime.topology,
        data=runtime.data,
        pid=runtime.pid,
        api=runtime.api,
        broker=runtime.nats_url,
        broker_reachable=sequences is not None,
        lag_max_s=lag_max_s,
        healthy=not problems,
        problems=tuple(problems),
        logs=rows,
        projections=projections,
        processes=runtime.processes,
    )


def _not_running(process: ProcessState) -> str:
    ended = "" if process.last_exit is None else f"; it ended with status {process.last_exit}"
    return f"the process {process.name} is {process.state}, not running{ended}"


async def _read_projections(
    runtime: Runtime,
    stores: Mapping[str, ServiceStore],
    logs: Mapping[str, LogStatus],
    clock: Clock,
    problems: list[str],
) -> tuple[ProjectionRow, ...]:
    rows: list[ProjectionRow] = []
    for name in runtime.views:
        try:
            async with (
                asyncio.timeout(_STORE_TIMEOUT_S),
                open_views(runtime.stores[name], service=name, migrate=False) as views,
            ):
                parked = {(c.projection, c.log): c for c in await parked_counts(views)}
                leases = await read_leases(runtime.stores[name], name)
                parts = list[ProjectionRow]()
                for projection, log, checkpoint in await views.checkpoints():
                    of = (log, logs.get(log), stores.get(log))
                    row = await projection_row(projection, of, checkpoint, clock)
                    row = with_parked(row, parked.get((projection, log)), clock)
                    owner = led(leases, projection_lease(projection, log))
                    owned = {"owner": owner.holder, "ownerless_s": _rounded(owner.since_s)}
                    parts.append(row.model_copy(update=owned))
                rows += wholes(parts)
        except _UNREADABLE as error:
            problems.append(f"the read models of {name!r} cannot be read: {error}")
    return tuple(rows)


async def read_leases(url: str, service: str) -> Sequence[LeaseStatus]:
    """Return the leases on what `service` owns: none where nobody ever took one."""
    try:
        async with open_leases(url, service=service, migrate=False) as leases:
            return await leases.leases()
    except Unavailable as error:
        if error.code == "schema-missing":
            return ()
        raise


def _log_row(
    name: str, status: LogStatus, sequences: Mapping[str, int] | None, leader: Led
) -> LogRow:
    return LogRow(
        log=name,
        committed=status.committed,
        offset=status.offset,
        waiting=status.waiting,
        oldest_waiting_s=round(status.oldest_waiting_s, 3),
        stream=event_stream(name),
        stream_last_sequence=None if sequences is None else sequences.get(name, 0),
        leader=leader.holder,
        leaderless_s=_rounded(leader.since_s),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _too_late(
    logs: tuple[LogRow, ...], projections: tuple[ProjectionRow, ...], lag_max_s: float
) -> list[str]:
    late = [
        f"the log {row.log!r} has an event without an offset for {row.oldest_waiting_s:.1f} s"
        for row in logs
        if row.oldest_waiting_s > lag_max_s
    ]
    late += [
        f"the log {row.log!r} has no leader: no relay that can do its work is running;"
        " see docs/runbooks/relay.md"
        for row in logs
        if row.leader is None and (row.leaderless_s is None or row.leaderless_s > LEADERLESS_MAX_S)
    ]
    late += [
        f"the stream of {row.log!r} ends at {row.stream_last_sequence} and its ledger at {row.offset},"
        " and nobody brings them together: see docs/runbooks/relay.md"
        for row in logs
        if (row.stream_last_sequence or 0) > row.offset and row.oldest_waiting_s > MISMATCH_MAX_S
    ]
    late += [
        f"the projection {row.projection!r} is {row.lag_s:.1f} s behind"
        for row in projections
        if row.lag_s is not None and row.lag_s > lag_max_s
    ]
    late += [
        f"the projection {row.projection!r} has no owner for {row.ownerless_s:.1f} s: no projector"
        " that can do its work is running; see docs/runbooks/projector.md"
        for row in projections
        if row.ownerless_s is not None and row.ownerless_s > LEADERLESS_MAX_S
    ]
    late += [
        f"the projection {row.projection!r} is of a log that was lost: {row.diverged};"
        f" `flotilla rebuild {row.projection}`, see docs/runbooks/restore.md"
        for row in projections
        if row.diverged
    ]
    late += [
        f"the projection {row.projection!r} has parked {row.parked_events} event(s) of"
        f" {row.parked_keys} key(s), the oldest for {row.parked_oldest_s:.1f} s: see"
        f" `flotilla parked list --projection {row.projection}`"
        for row in projections
        if row.parked_events
    ]
    return late


async def read_sequences(runtime: Runtime) -> dict[str, int] | None:
    """Return the last sequence of each log's stream; None when the broker does not answer."""
    client = Client()
    sequences: dict[str, int] = {}
    try:
        async with asyncio.timeout(_BROKER_TIMEOUT_S):
            await client.connect(
                runtime.nats_url,
                error_cb=_quiet,
                allow_reconnect=False,
                connect_timeout=1,
                inbox_prefix=inbox_prefix(OPERATOR),
            )
            jetstream = client.jetstream(timeout=_BROKER_TIMEOUT_S)
            for name in runtime.logs:
                try:
                    info = await jetstream.stream_info(event_stream(name))
                    sequences[name] = info.state.last_seq
                except NotFoundError:
                    sequences[name] = 0
    except (OSError, nats.errors.Error):  # a TimeoutError is an OSError
        return None
    finally:
        await _close(client)
    return sequences


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(_BROKER_TIMEOUT_S):
            await client.close()
    except (OSError, nats.errors.Error):
        return


async def _quiet(_error: Exception) -> None:
    """Keep nats-py from writing to our stderr: that the broker is away is told in the table."""

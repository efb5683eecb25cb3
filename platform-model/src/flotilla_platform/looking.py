"""The command `flotilla why-late`: what can be seen of a projection, and what follows from it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from flotilla import telemetry
from flotilla.clock import Clock, SystemClock
from flotilla.divergence import divergence
from flotilla.errors import KernelError
from flotilla.heartbeat import heartbeats
from flotilla.lag import projection_lag
from flotilla.parked import parked_counts
from flotilla.partition import whole_name
from flotilla.projection import ViewStore
from flotilla.replica import led
from flotilla.stores import ServiceStore, open_store, open_views
from flotilla_contracts.wire import projection_lease
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.lateness import Facts, Verdict, judge, slowest_of
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    ProjectionArgument,
    TopologyOption,
    data_directory,
)
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.showing import make_console, plain
from flotilla_platform.status import read_leases, read_sequences

WATCH_S = 1.0
WHY_LATE_EXAMPLES = (
    "flotilla why-late counters",
    "flotilla why-late counters --json | jq -r '.reasons[].do'",
    "flotilla why-late counters || echo 'somebody must look'",
)
_STORE_TIMEOUT_S = 5.0
_UNREADABLE = (KernelError, OSError, KeyError, ValueError)


def why_late(
    projection: ProjectionArgument,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say why a projection is behind, and what helps; takes a second to look.

    Late is what is over its own staleness budget, or has something parked. Read
    from the tables, so that it needs neither relay nor projector to answer.
    Of a projection in partitions the slowest is told; --json has all of them.

    Exit status: 0 when it is not late, 8 when it is, 11 when there is no such
    projection, 7 when nothing is running.
    """

    def run() -> ExitCode:
        telemetry.configure("flotilla-why-late", log_level="error")
        runtime = find_running(data_directory(data, topology))
        facts = asyncio.run(look(runtime, projection, SystemClock()))
        verdicts = [
            slowest_of(projection, [judge(f) for f in facts if f.log == log])
            for log in dict.fromkeys(f.log for f in facts)
        ]
        for verdict in verdicts:
            if json:
                typer.echo(verdict.model_dump_json())
            else:
                make_console().print(show_verdict(verdict))
        return ExitCode.UNHEALTHY if any(v.late for v in verdicts) else ExitCode.OK

    finish(run, debug=debug)


async def look(runtime: Runtime, projection: str, clock: Clock) -> Sequence[Facts]:
    """Return what is to be seen of a projection, for each log and in each of its partitions.

    Raises `Failure` (not found) when no service keeps such a projection.
    """
    unreadable: list[str] = []
    known: list[str] = []
    for service in runtime.views:
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(_STORE_TIMEOUT_S):
                    opened = open_views(runtime.stores[service], service=service, migrate=False)
                    views = await stack.enter_async_context(opened)
                    begun = await views.checkpoints()
                known += dict.fromkeys(whole_name(name) for name, _, _ in begun)
                parts = [(n, log) for n, log, _ in begun if projection in (n, whole_name(n))]
                if parts:
                    leases = await read_leases(runtime.stores[service], service)
                    looks = [_look(runtime, views, name, log, clock) for name, log in parts]
                    return [
                        replace(
                            f,
                            ownerless_s=led(leases, projection_lease(f.projection, f.log)).since_s,
                        )
                        for f in await asyncio.gather(*looks)
                    ]
        except _UNREADABLE as error:
            unreadable.append(f"{service}: {str(error) or type(error).__name__}")
    if unreadable:
        return [Facts(projection, "?", views_error="; ".join(unreadable))]
    raise Failure(
        ExitCode.NOT_FOUND,
        f"no projection {projection!r} has begun here: there are {', '.join(known) or 'none'}",
    )


async def _look(
    runtime: Runtime, views: ViewStore, projection: str, log: str, clock: Clock
) -> Facts:
    facts = await _look_at_views(Facts(projection, log, interval_s=WATCH_S), views, clock)
    sequences = await read_sequences(runtime)
    facts = replace(
        facts,
        broker_answers=sequences is not None,
        stream_last=None if sequences is None else sequences.get(log, 0),
    )
    try:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                opened = open_store(runtime.stores[log], service=log, migrate=False)
                source = await stack.enter_async_context(opened)
            return await _watch(facts, views, source, clock)
    except _UNREADABLE as error:
        return replace(facts, log_error=str(error) or type(error).__name__)


async def _watch(facts: Facts, views: ViewStore, source: ServiceStore, clock: Clock) -> Facts:
    """Look at log and checkpoint, and once more a second later."""
    before = (await views.checkpoint(facts.projection, facts.log)).offset
    committed_before = (await source.status()).committed
    began_s = clock.monotonic_s()
    await clock.sleep(WATCH_S)
    found = await views.checkpoint(facts.projection, facts.log)
    checkpoint, head = found.offset, await source.status()
    lag = await projection_lag(source, checkpoint, clock)
    return replace(
        facts,
        interval_s=max(clock.monotonic_s() - began_s, WATCH_S / 2),
        checkpoint_before=before,
        checkpoint=checkpoint,
        committed_before=committed_before,
        committed=head.committed,
        offset=head.offset,
        waiting=head.waiting,
        oldest_waiting_s=head.oldest_waiting_s,
        lag_events=lag.events,
        lag_s=lag.seconds,
        diverged=await divergence(source, found),
    )


async def _look_at_views(facts: Facts, views: ViewStore, clock: Clock) -> Facts:
    """Look at what is parked, at the projector's sign of life, and at locks."""
    of, now = (facts.projection, facts.log), clock.now()
    for count in await parked_counts(views):
        if (count.projection, count.log) == of:
            parked_s = (now - count.oldest_recorded_at).total_seconds()
            facts = replace(
                facts,
                parked_events=count.events,
                parked_keys=count.keys,
                parked_s=max(0.0, parked_s),
            )
    for sign in await heartbeats(views):
        if (sign.projection, sign.log) == of:
            facts = replace(
                facts,
                budget_s=sign.staleness_budget_s,
                sign_of_life_s=max(0.0, (now - sign.at).total_seconds()),
                trouble=sign.trouble,
            )
    for wait in list(await views.lock_waits())[:1]:
        facts = replace(facts, lock_wait_s=wait.waits_s, lock_holder=wait.holder)
    return facts


def show_verdict(verdict: Verdict) -> RenderableType:
    """Return the verdict in words: late or not, and a cause and its cure each."""
    seconds = f"{verdict.lag_s:.1f} s behind; {verdict.budget_s:g} s allowed"
    behind = f"{verdict.lag_events} event(s), {seconds}"
    name = f"{verdict.projection} (log {verdict.log})"
    if not verdict.late:
        return Text.assemble((f"{name} is not late", "green"), f": {behind}")
    lines: list[RenderableType] = [Text.assemble((f"{name} is late", "red"), f": {behind}")]
    for reason in verdict.reasons:
        lines += [plain(f"✗ {reason.because}"), plain(f"  → {reason.do}")]
    return Group(*lines)

"""What is folded here: by the projector, and again by `flotilla rebuild` and `flotilla replay`."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from flotilla import LogEvent, Offset, Projection, Unavailable
from flotilla.nats import connected
from flotilla.rebuild import BATCH_EVENTS_MAX, ReadModels, Source
from svc_projector.activity import ActivityFeed
from svc_projector.audit import AuditView
from svc_projector.counters import CounterView
from svc_projector.log_reader import LogReader
from svc_projector.memberships import Memberships
from svc_projector.quotas import QuotaUseView
from svc_projector.settings import Settings
from svc_projector.tenants import TenantDirectory
from svc_projector.totals import TotalsView

QUIET_BATCHES_MAX = 5
"""How many heartbeats without an event (one a second) mean that the stream has no more."""


def projections(settings: Settings) -> tuple[Projection, ...]:
    """Return all read models: each has a checkpoint, a reader and a lag of its own."""
    return (
        CounterView(settings.counters_partitions),
        TotalsView(),
        ActivityFeed(settings.activity_entries_max, settings.activity_age_max_s),
        TenantDirectory(),
        Memberships(),
        QuotaUseView(),
        AuditView(),
    )


def read_models() -> ReadModels:
    """Return the projections of this service, and how to read their logs from the broker."""
    return ReadModels(projections(Settings.read()), read_stream)


def read_stream(nats_url: str, log: str) -> Source:
    """Return a log as JetStream has it."""

    async def read(after: Offset, upto: Offset) -> AsyncGenerator[Sequence[LogEvent]]:
        async with connected(nats_url, name="operator") as nats:
            reader = LogReader(nats, log, batch_events_max=BATCH_EVENTS_MAX)
            last, quiet = after, 0
            async with aclosing(reader.batches(after=after)) as batches:
                while last < upto:
                    batch = [e for e in await anext(batches) if last < e.offset <= upto]
                    quiet = 0 if batch else quiet + 1
                    if quiet > QUIET_BATCHES_MAX:
                        raise Unavailable(
                            f"the stream of {log} does not go on after offset {last}:"
                            " --source store has all of it"
                        )
                    if batch:
                        last = batch[-1].offset
                        yield batch

    return read

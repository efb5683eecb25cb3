"""The audit trail: what `flotilla audit` and the history of a tenant show. One entry an event.

No payload is kept here: names and addresses are not in the view, sealed or not. What is not the form of
an event of ours is in the trail all the same, only without who did it.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from flotilla import LogEvent, Offset, StreamId, Version, ViewSession, ViewStore
from flotilla.audit import NO_LINK, AuditEntry, Link, chained
from flotilla.clock import from_us, to_us
from flotilla.projection import Row
from flotilla.replay import NotReplayable
from flotilla.store import stream_id
from flotilla_contracts.tenant import (
    SERVICE,
)

NAME = "audit"
ENDS_MAX = 50
"""How many tenants' ends are looked up with one query."""
_WHO = ("actor_id", "user_id")
_ABOUT = ("user_id", "invitation_id", "quota", "subject")
_NAMES_LENGTH_MAX = 200

_COLUMNS = (
    "log_offset, tenant, number, stream, version, event_id, type, actor_id, about, recorded_at_us,"
    " hash"
)
_PUT = f"""
insert into audit_entry ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict (log_offset) do update set
    tenant = excluded.tenant, number = excluded.number, stream = excluded.stream,
    version = excluded.version, event_id = excluded.event_id, type = excluded.type,
    actor_id = excluded.actor_id, about = excluded.about,
    recorded_at_us = excluded.recorded_at_us, hash = excluded.hash
"""  # noqa: S608 - our own text
_END_OF = "(select max(log_offset) from audit_entry where log_offset < $1 and tenant = ${n})"
_ENDS = "select tenant, number, hash from audit_entry where log_offset in ({ends})"
_FORGET = "delete from audit_entry where tenant = $1"
_LIST = f"""
select {_COLUMNS} from audit_entry
where tenant = $1 and log_offset < $2 order by log_offset desc limit $3
"""  # noqa: S608 - our own text
_ENTRIES = f"""
select {_COLUMNS} from audit_entry
where log_offset > $1 and log_offset <= $2 order by log_offset limit $3
"""  # noqa: S608 - our own text
_ENTRIES_OF = f"""
select {_COLUMNS} from audit_entry
where tenant = $1 and log_offset > $2 and log_offset <= $3 order by log_offset limit $4
"""  # noqa: S608 - our own text
_OFFSET_OF = "select log_offset from audit_entry where stream = $1 and version = $2 limit 1"
_SEEN_UPTO = """
select version from audit_entry where tenant = $1 and stream = $2 order by version desc limit 1
"""
_BEHIND_ALL = 2**63 - 1


class AuditView:
    """Every event of the log of tenants, and the chain of its tenant's hashes."""

    name = NAME
    log = SERVICE
    staleness_budget_s = 5.0
    replayable = True
    """An entry follows from its event and the entry before it: made again, it is the same."""
    tables = (
        """
create table audit_entry (
    log_offset bigint primary key,
    tenant text not null,
    number bigint not null,
    stream text not null,
    version bigint not null,
    event_id text not null,
    type text not null,
    actor_id text,
    about text,
    recorded_at_us bigint not null,
    hash text not null
);
create index audit_entry_of_tenant on audit_entry (tenant, log_offset);
create index audit_entry_of_event on audit_entry (stream, version)
""",
    )

    def key_of(self, event: LogEvent) -> str:
        """Return the tenant: a chain has an order, whatever the streams are."""
        return event.tenant

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Continue each tenant's chain."""
        ends = await _ends(view, batch[0].offset, {event.tenant for event in batch})
        rows = []
        for event in batch:
            entry = self.entry(event, ends.get(event.tenant, NO_LINK))
            ends[event.tenant] = entry.link
            rows.append(_row(entry))
        await view.execute_many(_PUT, rows)

    async def forget(self, view: ViewSession, tenant: str, stream: StreamId | None) -> None:
        """Delete a tenant's chain; it cannot lack one stream. Raises `NotReplayable`."""
        if stream is not None:
            raise NotReplayable(f"{NAME}: a chain is of a whole tenant: replay --tenant {tenant}")
        await view.execute_many(_FORGET, [(tenant,)])

    def entry(self, event: LogEvent, before: Link) -> AuditEntry:
        """Return the entry of an event that follows `before` in its tenant's chain."""
        said, link = _said(event.payload), chained(before, event)
        return AuditEntry(
            event.offset,
            event.tenant,
            link.entries,
            event.stream,
            event.version,
            event.event_id,
            event.type,
            next((said[name] for name in _WHO if name in said), None),
            next((said[name] for name in _ABOUT if name in said), None),
            from_us(to_us(event.recorded_at)),
            link.hash,
        )

    async def entries(
        self, views: ViewStore, *, after: int, upto: int, tenant: str | None, limit: int
    ) -> Sequence[AuditEntry]:
        """Return entries with offsets greater than `after` up to `upto`, of all tenants or one."""
        if tenant is None:  # for an operator, who verifies all of the log
            return _read(await views.fetch_across(_ENTRIES, after, upto, limit))
        return _read(await views.fetch_of(tenant, _ENTRIES_OF, after, upto, limit))

    async def last(self, views: ViewStore, tenant: str) -> AuditEntry | None:
        """Return the end of a tenant's chain; None when it has none."""
        return next(iter(await list_audit(views, tenant, before=None, limit=1)), None)

    async def offset_of(self, views: ViewStore, stream: StreamId, version: Version) -> int | None:
        """Return where the view has an event. For an operator, who verifies."""
        rows = await views.fetch_across(_OFFSET_OF, stream, version)
        return rows[0][0] if rows else None


async def list_audit(
    views: ViewStore, tenant: str, *, before: int | None, limit: int
) -> Sequence[AuditEntry]:
    """Return up to `limit` of a tenant's entries before an offset, newest first."""
    return _read(await views.fetch_of(tenant, _LIST, before or _BEHIND_ALL, limit))


async def seen_of_audit(views: ViewStore, tenant: str) -> int:
    """Return up to which version a tenant was seen; 0 when it was not."""
    rows = await views.fetch_of(tenant, _SEEN_UPTO, stream_id(tenant, "tenant", tenant))
    return int(rows[0][0]) if rows else 0


async def _ends(view: ViewSession, first: Offset, tenants: set[str]) -> dict[str, Link]:
    """Return the chains' ends of these tenants before an offset."""
    ends, names = dict[str, Link](), sorted(tenants)
    for start in range(0, len(names), ENDS_MAX):
        some = names[start : start + ENDS_MAX]
        sql = _ENDS.format(ends=", ".join(_END_OF.format(n=n + 2) for n in range(len(some))))
        for tenant, number, digest in await view.fetch(sql, first, *some):
            ends[tenant] = Link(number, digest)
    return ends


def _said(payload: bytes) -> dict[str, str]:
    """Return the names in a payload; nothing of one that has another form."""
    try:
        content: Any = json.loads(payload)
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    wanted = {name: content.get(name) for name in (*_WHO, *_ABOUT)}
    return {
        name: text
        for name, text in wanted.items()
        if isinstance(text, str) and "\0" not in text and len(text) <= _NAMES_LENGTH_MAX
    }


def _row(entry: AuditEntry) -> Row:
    return (
        *(entry.offset, entry.tenant, entry.number, entry.stream, entry.version, entry.event_id),
        *(entry.type, entry.actor_id, entry.about, to_us(entry.recorded_at), entry.hash),
    )


def _read(rows: Iterable[Row]) -> Sequence[AuditEntry]:
    return [AuditEntry(*(*names, from_us(at_us), digest)) for *names, at_us, digest in rows]

-- A stream and the replies that some keys stand for, as of one moment, in one round trip.
-- Rows of three kinds: 0 the aggregate, 1 its events after the snapshot, 2 known replies.
with g as materialized (
    select version, snapshot, snapshot_version, snapshot_schema = $2 as usable
    from aggregate where stream = $1
)
select
    0 as kind, g.version,
    null::uuid as event_id, null as type, case when g.usable then g.snapshot end as payload,
    null as metadata, null::timestamptz as recorded_at,
    case when g.usable then g.snapshot_version end as snapshot_version,
    null as tenant, null as scope, null as key, null::bytea as fingerprint, null::bytea as reply
from g
union all
select
    1, e.version, e.event_id, e.type, e.payload::text, e.metadata::text, e.recorded_at, null,
    null, null, null, null, null
from event e
where e.stream = $1
    and e.version > coalesce((select g.snapshot_version from g where g.usable), 0)
union all
select 2, 0, null, null, null, null, null, null, i.tenant, i.scope, i.key, i.fingerprint, i.reply
from unnest($3::text[], $4::text[], $5::text[]) as k (tenant, scope, key)
join idempotency i using (tenant, scope, key)
where i.expires_at > now()
order by kind, version

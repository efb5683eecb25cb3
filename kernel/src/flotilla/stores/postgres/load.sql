-- Streams and the replies that some keys stand for, as of one moment, in one round trip.
-- Rows of three kinds: 0 an aggregate, 1 its events after the snapshot, 2 a known reply.
-- `n` says which of the streams asked for a row of kind 0 or 1 belongs to.
with
asked as materialized (
    select * from unnest($1::int[], $2::text[], $3::int[]) as r (n, stream, snapshot_schema)
),
g as materialized (
    select
        r.n, a.stream, a.version, a.snapshot, a.snapshot_version,
        coalesce(a.snapshot_schema = r.snapshot_schema, false) as usable
    from asked r join aggregate a on a.stream = r.stream
)
select
    0 as kind, g.n, g.version,
    null::uuid as event_id, null as type, case when g.usable then g.snapshot end as payload,
    null as metadata, null::timestamptz as recorded_at,
    case when g.usable then g.snapshot_version end as snapshot_version,
    null as tenant, null as scope, null as key, null::bytea as fingerprint, null::bytea as reply
from g
union all
select
    1, g.n, e.version, e.event_id, e.type, e.payload::text, e.metadata::text, e.recorded_at, null,
    null, null, null, null, null
from g
cross join lateral (
    select * from event
    where stream = g.stream and version > case when g.usable then g.snapshot_version else 0 end
) e
union all
select
    2, 0, 0, null, null, null, null, null, null,
    i.tenant, i.scope, i.key, i.fingerprint, i.reply
from unnest($4::text[], $5::text[], $6::text[]) as k (tenant, scope, key)
join idempotency i using (tenant, scope, key)
where i.expires_at > now()
order by kind, n, version

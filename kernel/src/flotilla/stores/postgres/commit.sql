-- Commit a round of independent chains: one statement, one round trip, one fsync.
--
-- A chain is one unit, or several that build on each other in one stream. `lost` are the chains that cannot
-- commit as this snapshot sees it; nothing is written for them. If a concurrent writer commits between
-- the snapshot and our locks, some write below does not happen: then `torn()` takes the whole statement
-- back, and it runs again. Returns the lost chains.
-- $5 are the tenants of the round. Nothing here reads or writes a table before the verdict asks for it, and
-- the verdict asks for `said` first: row-level security knows the tenants before it is asked for a row.
with
said as materialized (select set_config('flotilla.tenants', $5::text[]::text, true) as tenants),
appended as materialized (
    select * from json_to_recordset($2::json) as a (
        chain int, stream text, expected bigint, version bigint,
        snapshot text, snapshot_schema int, snapshot_version bigint
    )
),
asked as materialized (
    select * from json_to_recordset($3::json) as k (
        chain int, tenant text, scope text, key text, fingerprint text, reply text, ttl_s int
    )
),
lost as materialized (
    select a.chain
    from appended a left join aggregate g on g.stream = a.stream
    where coalesce(g.version, 0) <> a.expected
    union
    select k.chain
    from asked k join idempotency i using (tenant, scope, key)
    where i.expires_at > now()
),
a as materialized (select * from appended where chain not in (select chain from lost)),
k as materialized (select * from asked where chain not in (select chain from lost)),
claimed as (
    insert into idempotency as i (tenant, scope, key, fingerprint, reply, expires_at)
    select
        tenant, scope, key, decode(fingerprint, 'hex'), decode(reply, 'hex'),
        now() + ttl_s * interval '1 second'
    from k order by tenant, scope, key
    on conflict (tenant, scope, key) do update
    set fingerprint = excluded.fingerprint, reply = excluded.reply, expires_at = excluded.expires_at
    where i.expires_at <= now()
    returning 1
),
moved as (
    update aggregate g
    set version = a.version,
        snapshot = coalesce(a.snapshot, g.snapshot),
        snapshot_schema = coalesce(a.snapshot_schema, g.snapshot_schema),
        snapshot_version = coalesce(a.snapshot_version, g.snapshot_version)
    from (select * from a where expected > 0 order by stream) a
    where g.stream = a.stream and g.version = a.expected
    returning 1
),
opened as (
    insert into aggregate as g (stream, version, snapshot, snapshot_schema, snapshot_version)
    select stream, version, snapshot, snapshot_schema, snapshot_version
    from a where expected = 0 order by stream
    on conflict (stream) do update
    set version = excluded.version,
        snapshot = excluded.snapshot,
        snapshot_schema = excluded.snapshot_schema,
        snapshot_version = excluded.snapshot_version
    where g.version = 0
    returning 1
),
news as materialized (
    select * from rows from (
        json_to_recordset($4::json) as (
            chain int, stream text, version bigint, event_id uuid, type text, payload text, metadata json
        )
    ) with ordinality as e (chain, stream, version, event_id, type, payload, metadata, n)
    where chain not in (select chain from lost)
),
written as (
    insert into event (stream, version, event_id, type, payload, metadata)
    select stream, version, event_id, type, payload::json, metadata from news order by n
),
queued as (
    insert into event_outbox (stream, version, log)
    select stream, version, $1 from news order by n
)
select case
    when (select count(tenants) from said) = 1
        and (select count(*) from claimed) = (select count(*) from k)
        and (select count(*) from moved) + (select count(*) from opened) = (select count(*) from a)
    then array(select chain from lost)
    else torn()
end

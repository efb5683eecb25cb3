-- What a service owns: its streams, its idempotency ledger, its outbox.
-- The shape is the same for every service; the relay relies on that.

create table event (
    stream text collate "C" not null,
    version bigint not null check (version > 0),
    event_id uuid not null,
    type text collate "C" not null,
    payload json not null,  -- json, not jsonb: kept to the byte
    metadata json not null,
    recorded_at timestamptz not null default now(),
    primary key (stream, version)
);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'events are immutable: append a correcting event instead' using errcode = 'FT002';
end
$$;

create trigger event_is_immutable before update or delete or truncate on event
for each statement execute function refuse_change();

-- The compare-and-set row of each stream, with the state worth starting from.
create table aggregate (
    stream text collate "C" primary key,
    version bigint not null,
    snapshot text,
    snapshot_schema integer,
    snapshot_version bigint
) with (fillfactor = 80);

-- Committed events. Without an offset: still to be published. With one: the ledger of the log.
-- The identity must not be cached: positions have to grow within a stream across connections.
create table event_outbox (
    position bigint generated always as identity (cache 1) primary key,
    stream text collate "C" not null,
    version bigint not null,
    log text collate "C" not null,
    "offset" bigint
);

create index event_outbox_waiting on event_outbox (log, position) where "offset" is null;
create unique index event_outbox_ledger on event_outbox (log, "offset") where "offset" is not null;

create table idempotency (
    tenant text collate "C" not null,
    scope text collate "C" not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    reply bytea not null,
    expires_at timestamptz not null,
    primary key (tenant, scope, key)
);

-- Keys expire about in the order of their rows: a range index is enough, and costs a commit nothing.
create index idempotency_expiry on idempotency using brin (expires_at) with (autosummarize = on);

-- A statement that finds, after its writes, that somebody was faster between its snapshot and its
-- locks takes everything back by calling this. The writer tries again with a fresh snapshot.
create function torn() returns integer[] language plpgsql as $$
begin
    raise exception 'overtaken by a concurrent writer' using errcode = 'FT001';
end
$$;

-- Outbox entries with their events: what the relay reads.
create view outbox_entry with (security_invoker = true) as
select
    o.position, o.log, o."offset", e.stream, e.version, e.event_id, e.type,
    e.payload, e.metadata, e.recorded_at
from event_outbox o join event e on e.stream = o.stream and e.version = o.version;

-- What a service owns: its streams, its idempotency ledger, its outbox. The names are those of the
-- Postgres adapter. Times are microseconds since 1970, UTC. Tables keep their rowid: rows are then
-- appended and only the small keys are spread, which writes twice as fast as WITHOUT ROWID.

create table event (
    stream text not null,
    version integer not null check (version > 0),
    event_id text not null,
    type text not null,
    payload text not null check (json_valid(payload)), -- text: kept to the byte
    metadata text not null check (json_valid(metadata)),
    recorded_at integer not null,
    primary key (stream, version)
) strict;

create trigger event_is_not_updated before update on event begin
    select raise(abort, 'events are immutable: append a correcting event instead');
end;

create trigger event_is_not_deleted before delete on event begin
    select raise(abort, 'events are immutable: append a correcting event instead');
end;

-- The compare-and-set row of each stream, with the state worth starting from.
create table aggregate (
    stream text not null primary key,
    version integer not null,
    snapshot text,
    snapshot_schema integer,
    snapshot_version integer
) strict;

-- Committed events. Without an offset: still to be published. With one: the ledger of the log.
create table event_outbox (
    position integer primary key autoincrement,
    stream text not null,
    version integer not null,
    log text not null,
    "offset" integer,
    unique (stream, version)
) strict;

create index event_outbox_waiting on event_outbox (log, position) where "offset" is null;
create unique index event_outbox_ledger on event_outbox (log, "offset") where "offset" is not null;

create table idempotency (
    tenant text not null,
    scope text not null,
    key text not null,
    fingerprint blob not null,
    reply blob not null,
    expires_at integer not null,
    primary key (tenant, scope, key)
) strict;

create index idempotency_expiry on idempotency (expires_at);

-- Outbox entries with their events: what the relay reads.
create view outbox_entry as
select
    o.position, o.log, o."offset", e.stream, e.version, e.event_id, e.type,
    e.payload, e.metadata, e.recorded_at
from event_outbox o join event e on e.stream = o.stream and e.version = o.version;

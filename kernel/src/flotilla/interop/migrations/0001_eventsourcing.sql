-- What the Python library `eventsourcing` needs beside our own tables, in the service's schema.

-- Which stream an originator's events are in: the library asks by the originator alone. Its versions
-- start at `initial_version` (1, or 0), ours at 1.
create table eventsourcing_originator (
    originator_id text collate "C" primary key,
    stream text collate "C" not null unique,
    initial_version bigint not null check (initial_version in (0, 1))
);

-- The head of the notification log, and whose it is. Every numbered append updates this row last and
-- holds it until its commit is visible: the order of notification ids is the order of commits, and a
-- transaction that rolls back takes its ids back. The only lock that writers share.
create table eventsourcing_log (
    only_one boolean primary key default true check (only_one),
    last_id bigint not null default 0,
    writer text collate "C"  -- <tenant>/<application>, of the first append
) with (fillfactor = 10);
insert into eventsourcing_log default values;

create table eventsourcing_notification (
    notification_id bigint primary key,
    stream text collate "C" not null,
    version bigint not null,
    unique (stream, version)
);

-- Snapshots are a cache of the library's and are not published. `kind` is the name that the library
-- would give to a table.
create table eventsourcing_snapshot (
    kind text collate "C" not null,
    originator_id text collate "C" not null,
    originator_version bigint not null,
    topic text not null,
    state bytea not null,
    primary key (kind, originator_id, originator_version)
);

-- How far a follower (`tracker`, the name of the library's tracking table) is in a log.
create table eventsourcing_tracking (
    tracker text collate "C" not null,
    application_name text collate "C" not null,
    notification_id bigint not null,
    primary key (tracker, application_name)
) with (fillfactor = 50);

-- Append events, in the order of the arrays; for each originator they have consecutive versions.
-- With a writer they get notification ids, which are returned in that order.
--
--   originators ─▶ aggregate rows ─▶ event, event_outbox ─▶ head of the log ─▶ notifications
--   (sorted)       (sorted)                                 (one row, held until the commit)
--
-- Everybody takes these locks in this order, so nobody waits in a circle. The ones that all writers
-- share come last. Raises unique_violation when an originator is not at the expected version.
create function eventsourcing_append(
    p_log text,
    p_writer text,  -- null: not numbered
    p_originators text[],
    p_streams text[],  -- where an originator's events go if it is new
    p_originator_versions bigint[],
    p_event_ids uuid[],
    p_types text[],
    p_payloads text[],
    p_metadata text[]
) returns setof bigint language plpgsql as $$
declare
    v_streams text[];
    v_versions bigint[];
    v_expected bigint;
    v_moved bigint;
    v_opened bigint;
    v_last bigint;
    v_owner text;
begin
    insert into eventsourcing_originator (originator_id, stream, initial_version)
    select originator, stream, first
    from (
        select distinct on (originator) originator, stream, version as first
        from unnest(p_originators, p_streams, p_originator_versions)
            with ordinality as e (originator, stream, version, n)
        order by originator, n
    ) as e
    where first in (0, 1)
    order by originator
    on conflict do nothing;

    select array_agg(o.stream order by e.n),
        array_agg(e.version - o.initial_version + 1 order by e.n)
    into v_streams, v_versions
    from unnest(p_originators, p_originator_versions) with ordinality as e (originator, version, n)
    left join eventsourcing_originator o on o.originator_id = e.originator;

    if array_position(v_streams, null) is not null then
        raise exception 'a new originator starts at version 0 or 1' using errcode = '23505';
    end if;

    perform 1 from aggregate where stream = any (v_streams) order by stream for update;

    with a as (
        select stream, min(version) as first, max(version) as last
        from unnest(v_streams, v_versions) as e (stream, version) group by stream
    )
    update aggregate g set version = a.last from a
    where g.stream = a.stream and g.version = a.first - 1;
    get diagnostics v_moved = row_count;

    insert into aggregate as g (stream, version)
    select stream, max(version) from unnest(v_streams, v_versions) as e (stream, version)
    group by stream having min(version) = 1 order by stream
    on conflict do nothing;
    get diagnostics v_opened = row_count;

    select count(distinct stream) into v_expected from unnest(v_streams) as e (stream);
    if v_moved + v_opened <> v_expected then
        raise exception 'an originator is not at the version that these events continue'
            using errcode = '23505';
    end if;

    insert into event (stream, version, event_id, type, payload, metadata)
    select stream, version, event_id, type, payload::json, metadata::json
    from unnest(v_streams, v_versions, p_event_ids, p_types, p_payloads, p_metadata)
        with ordinality as e (stream, version, event_id, type, payload, metadata, n)
    order by n;

    insert into event_outbox (stream, version, log)
    select stream, version, p_log
    from unnest(v_streams, v_versions) with ordinality as e (stream, version, n) order by n;

    if p_writer is null then
        return;
    end if;

    update eventsourcing_log
    set last_id = last_id + cardinality(v_streams), writer = coalesce(writer, p_writer)
    returning last_id, writer into v_last, v_owner;
    if v_owner is distinct from p_writer then
        raise exception 'this log is written by %, not by %: give each application a service',
            v_owner, p_writer using errcode = 'FT003';
    end if;

    return query
    insert into eventsourcing_notification (notification_id, stream, version)
    select v_last - cardinality(v_streams) + n, stream, version
    from unnest(v_streams, v_versions) with ordinality as e (stream, version, n) order by n
    returning notification_id;
end
$$;

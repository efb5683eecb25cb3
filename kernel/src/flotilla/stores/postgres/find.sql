-- Only what waits can be looked for: the relay reads back what was published and not recorded.
select
    o.position, o."offset", o.stream, o.version, o.event_id::text, o.type, o.payload, o.metadata,
    o.recorded_at
from unnest($2::text[], $3::bigint[]) as wanted (stream, version)
join outbox_entry o using (stream, version)
where o.log = $1 and o."offset" is null

-- The log as projections fold it: only what a `LogEvent` has, for this is read by the million.
select
    "offset", stream, version, type, payload, recorded_at, metadata ->> 'traceparent', event_id,
    coalesce(metadata ->> 'correlation', event_id), metadata ->> 'causation'
from outbox_entry where log = ?1 and "offset" > ?2 order by "offset" limit ?3

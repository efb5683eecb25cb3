-- Those without an offset of [[stream, version] …] in log ?2.
select
    o.position, o."offset", o.stream, o.version, o.event_id, o.type, o.payload, o.metadata,
    o.recorded_at
from json_each(?1) as k
cross join outbox_entry as o on o.stream = k.value ->> 0 and o.version = k.value ->> 1
where o.log = ?2 and o."offset" is null

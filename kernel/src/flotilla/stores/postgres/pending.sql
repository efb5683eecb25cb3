-- What waits, but not what is on its way ($3): as a subquery, because that is hashed and an array is not.
select position, "offset", stream, version, event_id::text, type, payload, metadata, recorded_at
from outbox_entry
where log = $1 and "offset" is null and position not in (select unnest($3::bigint[]))
order by position limit $2

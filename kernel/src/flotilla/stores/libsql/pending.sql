select position, "offset", stream, version, event_id, type, payload, metadata, recorded_at
from outbox_entry
where log = ?1 and "offset" is null and position not in (select value from json_each(?3))
order by position limit ?2

select position, "offset", stream, version, event_id, type, payload, metadata, recorded_at
from outbox_entry where log = ?1 and "offset" is null order by position limit ?2

select position, "offset", stream, version, event_id::text, type, payload, metadata, recorded_at
from outbox_entry where log = $1 and "offset" > $2 order by "offset" limit $3

-- Up to ?3 events (-1: all) of a stream after a version.
select stream, version, event_id, type, payload, metadata, recorded_at
from event where stream = ?1 and version > ?2 order by version limit ?3

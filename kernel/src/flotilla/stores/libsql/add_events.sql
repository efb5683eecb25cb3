-- Store [[stream, version, event_id, type, payload, metadata] …], recorded at ?2.
insert into event (stream, version, event_id, type, payload, metadata, recorded_at)
select
    value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, ?2
from json_each(?1)

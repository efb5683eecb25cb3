-- Forget up to ?3 of the oldest entries of log ?1: recorded before ?2, read by everybody, not the last.
-- The oldest ones without a gap: it ends at the first entry that has to stay.
delete from event_outbox
where log = ?1 and "offset" < (
    with oldest as (
        select "offset", recorded_at from outbox_entry
        where log = ?1 and "offset" is not null order by "offset" limit ?3
    )
    select min(
        coalesce((select min("offset") from oldest where recorded_at >= ?2), 9223372036854775807),
        (select max("offset") + 1 from oldest),
        coalesce((select min("offset") + 1 from log_reader where log = ?1), 0),
        (select max("offset") from event_outbox where log = ?1 and "offset" is not null)
    )
)

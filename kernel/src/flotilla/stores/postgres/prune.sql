-- Forget up to $3 of the oldest entries of a log: older than $2 seconds, read by everybody, not the last.
-- The oldest ones without a gap: it ends at the first entry that has to stay.
with oldest as materialized (
    select position, "offset", recorded_at < now() - $2::float8 * interval '1 second' as is_old
    from outbox_entry where log = $1 and "offset" is not null order by "offset" limit $3
),
bounds as materialized (
    select
        coalesce((select min("offset") from oldest where not is_old), 9223372036854775807) as young,
        coalesce((select min("offset") from log_reader where log = $1), 0) as read_by_all,
        (select max("offset") from event_outbox where log = $1 and "offset" is not null) as last
),
gone as (
    delete from event_outbox where position in (
        select position from oldest, bounds
        where "offset" < young and "offset" <= read_by_all and "offset" < last
    )
    returning 1
)
select count(*) from gone

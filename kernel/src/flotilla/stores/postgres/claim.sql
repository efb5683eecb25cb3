-- Hide up to $2 of the streams of kind $1 that are due for $3 seconds; whoever asks meanwhile gets others.
-- `now()` is stable, so the index ends where the future begins; a volatile clock would walk all of it.
-- One row of what time it is and when the next one is due, then a row for each that was taken.
with ready as materialized (
    select stream from due
    where aggregate = $1 and visible_at <= now()
    order by visible_at limit $2
    for update skip locked
),
taken as (
    update due d set visible_at = now() + $3 * interval '1 second'
    from ready r where d.stream = r.stream
    returning d.stream, d.at
)
select null as stream, now() as at, (
    select extract(epoch from min(visible_at) - now())::float8 from due
    where aggregate = $1 and stream not in (select stream from ready)
) as next_in_s
union all
select stream, at, null from taken

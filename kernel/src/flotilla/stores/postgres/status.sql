-- Where a log stands, from the table and by this server's clock.
select
    coalesce((select max("offset") from event_outbox where log = $1 and "offset" is not null), 0)
        as last_offset,
    (select count(*) from event_outbox where log = $1 and "offset" is null) as waiting,
    coalesce((
        select extract(epoch from clock_timestamp() - e.recorded_at)
        from event_outbox o join event e on e.stream = o.stream and e.version = o.version
        where o.log = $1 and o."offset" is null
        order by o.position limit 1
    ), 0)::float8 as oldest_waiting_s

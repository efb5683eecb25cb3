-- Give offsets to positions, all or none. What has its offset already is left alone.
with
v as materialized (select * from unnest($1::bigint[], $2::bigint[]) as v (position, "offset")),
already as materialized (
    select 1 from event_outbox o join v using (position) where o."offset" = v."offset"
),
given as (
    update event_outbox o set "offset" = v."offset"
    from v
    where o.position = v.position and o."offset" is null
    returning 1
)
select case
    when (select count(*) from already) + (select count(*) from given) = (select count(*) from v)
    then null::integer[]
    else torn()
end

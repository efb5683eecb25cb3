-- Give offsets to positions, all or none, and only while lease $3 has token $4 (null: nobody asks). What
-- has its offset already is left alone. The lock keeps others from acquiring the lease meanwhile: they
-- would go on from a ledger that lacks this. Returns whether the lease was held.
with
held as materialized (
    select 1 from lease where name = $3 and token = $4 for share
),
allowed as materialized (
    select 1 where $3::text is null or exists (select 1 from held)
),
v as materialized (select * from unnest($1::bigint[], $2::bigint[]) as v (position, "offset")),
already as materialized (
    select 1 from event_outbox o join v using (position) where o."offset" = v."offset"
),
given as (
    update event_outbox o set "offset" = v."offset"
    from v
    where o.position = v.position and o."offset" is null and exists (select 1 from allowed)
    returning 1
)
select exists (select 1 from allowed) as is_allowed, case
    when not exists (select 1 from allowed) then null::integer[]
    when (select count(*) from already) + (select count(*) from given) = (select count(*) from v)
    then null::integer[]
    else torn()
end

-- Put into commit.sql before its verdict, when something is to be woken: $6 says when, or never again.
, w as materialized (
    select * from json_to_recordset($6::json) as w (
        chain int, stream text, aggregate text, at timestamptz
    )
    where chain not in (select chain from lost)
),
woken as (
    insert into due as d (stream, aggregate, at, visible_at)
    select stream, aggregate, at, at from w where at is not null order by stream
    on conflict (stream) do update set at = excluded.at, visible_at = excluded.visible_at
),
asleep as (
    delete from due d using (select stream from w where at is null order by stream) w
    where d.stream = w.stream
)

-- Which of these streams somebody else holds a lock on now, without waiting for it.
with free as materialized (
    select stream from aggregate where stream = any($1::text[]) for no key update skip locked
)
select g.stream from aggregate g
where g.stream = any($1::text[]) and g.stream not in (select stream from free)

-- How many entries of a log have no offset, and when the oldest of them was recorded.
select
    (select count(*) from event_outbox where log = ?1 and "offset" is null),
    (
        select recorded_at from outbox_entry
        where log = ?1 and "offset" is null order by position limit 1
    )

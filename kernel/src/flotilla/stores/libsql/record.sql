-- Give [[position, offset] …]. The caller looked at each position, in this transaction; the unique
-- ledger refuses an offset that is taken.
update event_outbox set "offset" = k.value ->> 1 from json_each(?1) as k
where position = k.value ->> 0

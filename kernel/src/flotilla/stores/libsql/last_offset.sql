select coalesce(max("offset"), 0) from event_outbox where log = ?1 and "offset" is not null

-- Put [[stream, version] …] of log ?2 into the outbox, in this order: positions follow it.
insert into event_outbox (stream, version, log)
select value ->> 0, value ->> 1, ?2 from json_each(?1) order by key

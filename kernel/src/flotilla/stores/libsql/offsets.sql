-- Which offsets the positions of [[position, offset] …] have in log ?2.
select position, "offset" from event_outbox
where log = ?2 and position in (select value ->> 0 from json_each(?1))

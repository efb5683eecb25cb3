select * from outbox_entry where log = $1 and "offset" is null order by position limit $2

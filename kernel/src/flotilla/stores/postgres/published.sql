select * from outbox_entry where log = $1 and "offset" > $2 order by "offset" limit $3

-- Where these streams stand; unknown ones are at 0 and not here.
select stream, version from aggregate where stream in (select value from json_each(?1))

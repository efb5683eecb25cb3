-- Remember [[tenant, scope, key, fingerprint in hex, reply in hex, expires_at] …]. What is there
-- already has expired: the caller looked, in this transaction.
insert into idempotency (tenant, scope, key, fingerprint, reply, expires_at)
select
    value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3), unhex(value ->> 4), value ->> 5
from json_each(?1) where true
on conflict (tenant, scope, key) do update
set fingerprint = excluded.fingerprint, reply = excluded.reply, expires_at = excluded.expires_at

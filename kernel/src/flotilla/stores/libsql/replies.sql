-- What these keys [[tenant, scope, key] …] stand for at ?2.
select i.tenant, i.scope, i.key, i.fingerprint, i.reply
from json_each(?1) as k
cross join idempotency as i
    on i.tenant = k.value ->> 0 and i.scope = k.value ->> 1 and i.key = k.value ->> 2
where i.expires_at > ?2

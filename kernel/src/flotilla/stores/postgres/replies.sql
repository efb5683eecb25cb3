-- What these keys stand for, for units that were lost to them.
select k.n, i.fingerprint, i.reply
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as k (tenant, scope, key, n)
join idempotency i using (tenant, scope, key)
where i.expires_at > now()

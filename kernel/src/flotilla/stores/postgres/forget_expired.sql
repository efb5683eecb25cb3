with expired as (
    select tenant, scope, key from idempotency
    where expires_at <= now()
    limit $1
    for update skip locked
),
forgotten as (
    delete from idempotency i using expired e
    where i.tenant = e.tenant and i.scope = e.scope and i.key = e.key
    returning 1
)
select count(*) from forgotten

delete from idempotency where rowid in (
    select rowid from idempotency where expires_at <= ?1 order by expires_at limit ?2
)

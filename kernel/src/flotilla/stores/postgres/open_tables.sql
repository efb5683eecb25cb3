-- Tables of this schema that are not closed to who says nothing: see isolation.py.
select
    quote_ident(c.relname) as name,
    array(
        select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) as columns
from pg_class c
where c.relnamespace = to_regnamespace(quote_ident(current_schema()))
    and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> all($1::text[])
    and not (
        c.relrowsecurity and c.relforcerowsecurity
        and exists (select from pg_policy p where p.polrelid = c.oid and p.polname = 'every_tenant_1')
    )
order by c.relname

-- Generated from platform-model by `flotilla model generate --write`; change the model instead.

grant usage on schema "counter" to "outbox_relay";
grant usage on schema "tenant" to "outbox_relay";
grant usage on schema "counter" to "projector";
grant usage on schema "tenant" to "projector";

-- Runs as whoever has just created something, and grants what is its own to grant.
create schema if not exists access;
grant usage on schema access to public;
create or replace function access.grant_shares() returns event_trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    share record;
    shares cursor for select * from (values
        ('counter', 'select', 'schema_migration', 'outbox_relay'),
        ('counter', 'select', 'event', 'outbox_relay'),
        ('counter', 'select', 'event_outbox', 'outbox_relay'),
        ('counter', 'select', 'outbox_entry', 'outbox_relay'),
        ('counter', 'select', 'log_reader', 'outbox_relay'),
        ('counter', 'update ("offset"), delete', 'event_outbox', 'outbox_relay'),
        ('counter', 'select, insert, update', 'lease', 'outbox_relay'),
        ('counter', 'execute', 'torn()', 'outbox_relay'),
        ('tenant', 'select', 'schema_migration', 'outbox_relay'),
        ('tenant', 'select', 'event', 'outbox_relay'),
        ('tenant', 'select', 'event_outbox', 'outbox_relay'),
        ('tenant', 'select', 'outbox_entry', 'outbox_relay'),
        ('tenant', 'select', 'log_reader', 'outbox_relay'),
        ('tenant', 'update ("offset"), delete', 'event_outbox', 'outbox_relay'),
        ('tenant', 'select, insert, update', 'lease', 'outbox_relay'),
        ('tenant', 'execute', 'torn()', 'outbox_relay'),
        ('counter', 'select', 'schema_migration', 'projector'),
        ('counter', 'select', 'event', 'projector'),
        ('counter', 'select', 'event_outbox', 'projector'),
        ('counter', 'select', 'outbox_entry', 'projector'),
        ('counter', 'select', 'log_reader', 'projector'),
        ('counter', 'insert, update', 'log_reader', 'projector'),
        ('tenant', 'select', 'schema_migration', 'projector'),
        ('tenant', 'select', 'event', 'projector'),
        ('tenant', 'select', 'event_outbox', 'projector'),
        ('tenant', 'select', 'outbox_entry', 'projector'),
        ('tenant', 'select', 'log_reader', 'projector'),
        ('tenant', 'insert, update', 'log_reader', 'projector')
    ) as v (schema, privileges, what, grantee)
    where case when what like '%()'
        then pg_has_role((select proowner from pg_proc
            where oid = to_regprocedure(format('%I.%s', schema, what))), 'usage')
        else pg_has_role((select relowner from pg_class
            where oid = to_regclass(format('%I.%I', schema, what))), 'usage')
    end;
begin
    for share in shares loop
        execute format(
            'grant %s on %s %I.%s to %I', share.privileges,
            case when share.what like '%()' then 'function' else 'table' end,
            share.schema, share.what, share.grantee);
    end loop;
end
$$;
drop event trigger if exists grant_shares;
create event trigger grant_shares on ddl_command_end
    when tag in ('CREATE TABLE', 'CREATE VIEW', 'CREATE FUNCTION')
    execute function access.grant_shares();

-- And now, of what is there already: by creating something.
create or replace view access.shares_granted as select now() as at;
drop view access.shares_granted;

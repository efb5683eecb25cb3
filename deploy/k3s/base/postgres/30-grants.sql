-- Generated from platform-model by `flotilla model generate --write`; change the model instead.

grant usage on schema "counter" to "outbox_relay";
grant usage on schema "scheduler" to "outbox_relay";
grant usage on schema "tenant" to "outbox_relay";
grant usage on schema "workflow" to "outbox_relay";
grant usage on schema "counter" to "projector";
grant usage on schema "scheduler" to "projector";
grant usage on schema "tenant" to "projector";
grant usage on schema "workflow" to "projector";
grant usage on schema "counter" to "workflow";
grant usage on schema "scheduler" to "workflow";
grant usage on schema "tenant" to "workflow";

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
        ('scheduler', 'select', 'schema_migration', 'outbox_relay'),
        ('scheduler', 'select', 'event', 'outbox_relay'),
        ('scheduler', 'select', 'event_outbox', 'outbox_relay'),
        ('scheduler', 'select', 'outbox_entry', 'outbox_relay'),
        ('scheduler', 'select', 'log_reader', 'outbox_relay'),
        ('scheduler', 'update ("offset"), delete', 'event_outbox', 'outbox_relay'),
        ('scheduler', 'select, insert, update', 'lease', 'outbox_relay'),
        ('scheduler', 'execute', 'torn()', 'outbox_relay'),
        ('tenant', 'select', 'schema_migration', 'outbox_relay'),
        ('tenant', 'select', 'event', 'outbox_relay'),
        ('tenant', 'select', 'event_outbox', 'outbox_relay'),
        ('tenant', 'select', 'outbox_entry', 'outbox_relay'),
        ('tenant', 'select', 'log_reader', 'outbox_relay'),
        ('tenant', 'update ("offset"), delete', 'event_outbox', 'outbox_relay'),
        ('tenant', 'select, insert, update', 'lease', 'outbox_relay'),
        ('tenant', 'execute', 'torn()', 'outbox_relay'),
        ('workflow', 'select', 'schema_migration', 'outbox_relay'),
        ('workflow', 'select', 'event', 'outbox_relay'),
        ('workflow', 'select', 'event_outbox', 'outbox_relay'),
        ('workflow', 'select', 'outbox_entry', 'outbox_relay'),
        ('workflow', 'select', 'log_reader', 'outbox_relay'),
        ('workflow', 'update ("offset"), delete', 'event_outbox', 'outbox_relay'),
        ('workflow', 'select, insert, update', 'lease', 'outbox_relay'),
        ('workflow', 'execute', 'torn()', 'outbox_relay'),
        ('counter', 'select', 'schema_migration', 'projector'),
        ('counter', 'select', 'event', 'projector'),
        ('counter', 'select', 'event_outbox', 'projector'),
        ('counter', 'select', 'outbox_entry', 'projector'),
        ('counter', 'select', 'log_reader', 'projector'),
        ('counter', 'insert, update', 'log_reader', 'projector'),
        ('scheduler', 'select', 'schema_migration', 'projector'),
        ('scheduler', 'select', 'event', 'projector'),
        ('scheduler', 'select', 'event_outbox', 'projector'),
        ('scheduler', 'select', 'outbox_entry', 'projector'),
        ('scheduler', 'select', 'log_reader', 'projector'),
        ('scheduler', 'insert, update', 'log_reader', 'projector'),
        ('tenant', 'select', 'schema_migration', 'projector'),
        ('tenant', 'select', 'event', 'projector'),
        ('tenant', 'select', 'event_outbox', 'projector'),
        ('tenant', 'select', 'outbox_entry', 'projector'),
        ('tenant', 'select', 'log_reader', 'projector'),
        ('tenant', 'insert, update', 'log_reader', 'projector'),
        ('workflow', 'select', 'schema_migration', 'projector'),
        ('workflow', 'select', 'event', 'projector'),
        ('workflow', 'select', 'event_outbox', 'projector'),
        ('workflow', 'select', 'outbox_entry', 'projector'),
        ('workflow', 'select', 'log_reader', 'projector'),
        ('workflow', 'insert, update', 'log_reader', 'projector'),
        ('counter', 'select', 'schema_migration', 'workflow'),
        ('counter', 'select', 'event', 'workflow'),
        ('counter', 'select', 'event_outbox', 'workflow'),
        ('counter', 'select', 'outbox_entry', 'workflow'),
        ('counter', 'select', 'log_reader', 'workflow'),
        ('counter', 'insert, update', 'log_reader', 'workflow'),
        ('scheduler', 'select', 'schema_migration', 'workflow'),
        ('scheduler', 'select', 'event', 'workflow'),
        ('scheduler', 'select', 'event_outbox', 'workflow'),
        ('scheduler', 'select', 'outbox_entry', 'workflow'),
        ('scheduler', 'select', 'log_reader', 'workflow'),
        ('scheduler', 'insert, update', 'log_reader', 'workflow'),
        ('tenant', 'select', 'schema_migration', 'workflow'),
        ('tenant', 'select', 'event', 'workflow'),
        ('tenant', 'select', 'event_outbox', 'workflow'),
        ('tenant', 'select', 'outbox_entry', 'workflow'),
        ('tenant', 'select', 'log_reader', 'workflow'),
        ('tenant', 'insert, update', 'log_reader', 'workflow')
    ) as v (schema, privileges, what, grantee)
    where case when what like '%()'
        then exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where n.nspname = schema and p.proname || '()' = what
                and pg_has_role(p.proowner, 'usage'))
        else exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = schema and c.relname = what
                and pg_has_role(c.relowner, 'usage'))
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

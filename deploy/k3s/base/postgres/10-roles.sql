-- Generated from platform-model by `flotilla model generate --write`; change the model instead.

revoke all on database "flotilla" from public;
revoke all on schema public from public;

do $$ begin if not exists (select from pg_roles where rolname = 'counter') then create role "counter"; end if; end $$;
alter role "counter" login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 30;
grant connect on database "flotilla" to "counter";
alter role "counter" set lock_timeout = '2s';
alter role "counter" set statement_timeout = '10s';
alter role "counter" set idle_in_transaction_session_timeout = '5s';
alter role "counter" set transaction_timeout = '60s';

do $$ begin if not exists (select from pg_roles where rolname = 'outbox_relay') then create role "outbox_relay"; end if; end $$;
alter role "outbox_relay" login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 80;
grant connect on database "flotilla" to "outbox_relay";
alter role "outbox_relay" set lock_timeout = '2s';
alter role "outbox_relay" set statement_timeout = '10s';
alter role "outbox_relay" set idle_in_transaction_session_timeout = '5s';
alter role "outbox_relay" set transaction_timeout = '60s';

do $$ begin if not exists (select from pg_roles where rolname = 'projector') then create role "projector"; end if; end $$;
alter role "projector" login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 100;
grant connect on database "flotilla" to "projector";
alter role "projector" set lock_timeout = '2s';
alter role "projector" set statement_timeout = '10s';
alter role "projector" set idle_in_transaction_session_timeout = '5s';
alter role "projector" set transaction_timeout = '60s';

do $$ begin if not exists (select from pg_roles where rolname = 'tenant') then create role "tenant"; end if; end $$;
alter role "tenant" login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 28;
grant connect on database "flotilla" to "tenant";
alter role "tenant" set lock_timeout = '2s';
alter role "tenant" set statement_timeout = '10s';
alter role "tenant" set idle_in_transaction_session_timeout = '5s';
alter role "tenant" set transaction_timeout = '60s';

do $$ begin if not exists (select from pg_roles where rolname = 'workflow') then create role "workflow"; end if; end $$;
alter role "workflow" login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 140;
grant connect on database "flotilla" to "workflow";
alter role "workflow" set lock_timeout = '2s';
alter role "workflow" set statement_timeout = '10s';
alter role "workflow" set idle_in_transaction_session_timeout = '5s';
alter role "workflow" set transaction_timeout = '60s';

do $$ begin if not exists (select from pg_roles where rolname = 'operator') then create role "operator"; end if; end $$;
alter role "operator" login nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 40;
grant connect on database "flotilla" to "operator";
alter role "operator" set lock_timeout = '2s';
alter role "operator" set statement_timeout = '10s';
alter role "operator" set idle_in_transaction_session_timeout = '5s';
alter role "operator" set transaction_timeout = '60s';

-- Who looks at a fleet reads everything, and writes nothing.
grant pg_read_all_data, pg_read_all_stats to "operator";
alter role "operator" set default_transaction_read_only = on;

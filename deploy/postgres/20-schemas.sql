-- Generated from platform-model by `flotilla model generate --write`; change the model instead.

create schema if not exists "counter" authorization "counter";
alter schema "counter" owner to "counter";
do $$ declare item record; begin
    for item in select relname from pg_class
        where relnamespace = '"counter"'::regnamespace
            and relkind in ('r', 'p', 'v') and relowner <> '"counter"'::regrole
    loop execute format('alter table %I.%I owner to %I', 'counter', item.relname, 'counter'); end loop;
    for item in select oid::regprocedure as signature from pg_proc
        where pronamespace = '"counter"'::regnamespace
            and proowner <> '"counter"'::regrole
    loop execute format('alter function %s owner to %I', item.signature, 'counter'); end loop;
end $$;
alter default privileges for role "counter" revoke execute on functions from public;

create schema if not exists "projector" authorization "projector";
alter schema "projector" owner to "projector";
do $$ declare item record; begin
    for item in select relname from pg_class
        where relnamespace = '"projector"'::regnamespace
            and relkind in ('r', 'p', 'v') and relowner <> '"projector"'::regrole
    loop execute format('alter table %I.%I owner to %I', 'projector', item.relname, 'projector'); end loop;
    for item in select oid::regprocedure as signature from pg_proc
        where pronamespace = '"projector"'::regnamespace
            and proowner <> '"projector"'::regrole
    loop execute format('alter function %s owner to %I', item.signature, 'projector'); end loop;
end $$;
alter default privileges for role "projector" revoke execute on functions from public;
-- Its read models are made again in schemas beside it.
grant create on database "flotilla" to "projector";

create schema if not exists "tenant" authorization "tenant";
alter schema "tenant" owner to "tenant";
do $$ declare item record; begin
    for item in select relname from pg_class
        where relnamespace = '"tenant"'::regnamespace
            and relkind in ('r', 'p', 'v') and relowner <> '"tenant"'::regrole
    loop execute format('alter table %I.%I owner to %I', 'tenant', item.relname, 'tenant'); end loop;
    for item in select oid::regprocedure as signature from pg_proc
        where pronamespace = '"tenant"'::regnamespace
            and proowner <> '"tenant"'::regrole
    loop execute format('alter function %s owner to %I', item.signature, 'tenant'); end loop;
end $$;
alter default privileges for role "tenant" revoke execute on functions from public;

create schema if not exists "keys" authorization "tenant";
alter schema "keys" owner to "tenant";
do $$ declare item record; begin
    for item in select relname from pg_class
        where relnamespace = '"keys"'::regnamespace
            and relkind in ('r', 'p', 'v') and relowner <> '"tenant"'::regrole
    loop execute format('alter table %I.%I owner to %I', 'keys', item.relname, 'tenant'); end loop;
    for item in select oid::regprocedure as signature from pg_proc
        where pronamespace = '"keys"'::regnamespace
            and proowner <> '"tenant"'::regrole
    loop execute format('alter function %s owner to %I', item.signature, 'tenant'); end loop;
end $$;

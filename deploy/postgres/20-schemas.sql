-- Generated from platform-model by `flotilla model generate --write`; change the model instead.

create schema if not exists "counter" authorization "counter";
alter schema "counter" owner to "counter";
alter default privileges for role "counter" revoke execute on functions from public;

create schema if not exists "projector" authorization "projector";
alter schema "projector" owner to "projector";
alter default privileges for role "projector" revoke execute on functions from public;
-- Its read models are made again in schemas beside it.
grant create on database "flotilla" to "projector";

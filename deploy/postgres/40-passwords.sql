-- Generated from platform-model by `flotilla model generate --write`; change the model instead.

-- For psql alone, on the machine with the files: `psql --file 40-passwords.sql`.
-- Another folder: `psql --set folder=/etc/flotilla/secrets …`.
\if :{?folder}
\else
\set folder /run/secrets
\endif
set log_statement = 'none';
\set file :folder/postgres-counter
\set password `cat ":file"`
alter role "counter" password :'password';
\set file :folder/postgres-outbox-relay
\set password `cat ":file"`
alter role "outbox_relay" password :'password';
\set file :folder/postgres-projector
\set password `cat ":file"`
alter role "projector" password :'password';
\set file :folder/postgres-tenant
\set password `cat ":file"`
alter role "tenant" password :'password';
\set file :folder/postgres-operator
\set password `cat ":file"`
alter role "operator" password :'password';

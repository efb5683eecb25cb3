"""The store: a role and a schema a service, and what others may do in it. Nobody else may anything.

    10-roles.sql      who may connect, how often, and for how long it may hold what
    20-schemas.sql    a schema a service that keeps something, owned by its role: it migrates itself
    30-grants.sql     what relays and readers of logs may do in the schema of the log
    40-passwords.sql  for psql: sets the roles' passwords from files

Tables come with the owner's migrations, later than these files. So grants are made by an event
trigger: whenever an owner has created something, it grants of it what is listed, exactly. All files
may be run again at any time, as superuser, in this order; what they say is then so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flotilla_platform.generating.artifact import NOTICE, Artifacts, Generator
from flotilla_platform.generating.running import (
    DATABASE,
    Runs,
    logs,
    running,
    schema_of,
)
from flotilla_platform.generating.writing import comment
from flotilla_platform.model import KEYS_SCHEMA, OPERATOR, Platform, Service

POOL_CONNECTIONS = 10
"""What a process opens at most for one store or view, its leases included."""
KEYS_CONNECTIONS = 4
"""What a process opens at most for data keys."""
OPERATOR_CONNECTIONS = 40
TIMEOUTS = {
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",
    "transaction_timeout": "60s",
}
"""What the services ask for themselves; so whoever else uses the role has it too."""
PASSWORDS = "/run/secrets"

_READS = (
    ("select", "schema_migration"),
    ("select", "event"),
    ("select", "event_outbox"),
    ("select", "outbox_entry"),
    ("select", "log_reader"),
)
READER = (*_READS, ("insert, update", "log_reader"))
"""Who folds a log: it reads published events, and notes how far it is."""
RELAY = (
    *_READS,
    ('update ("offset"), delete', "event_outbox"),
    ("select, insert, update", "lease"),
    ("execute", "torn()"),
)
"""Who gives offsets: it records them, forgets old ones, leads by lease. It writes no events."""

KEY_USER = (
    ("select", "schema_migration"),
    ("select, insert, update", "data_key"),
)
"""Who seals and opens, beside the owner of the keys. Nobody deletes a tombstone."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do with something in a schema that belongs to another."""

    schema: str
    privileges: str
    what: str
    grantee: str


def grants(platform: Platform) -> tuple[Grant, ...]:
    """Return who may do what in whose schema."""
    found: dict[Grant, None] = {}
    for one in running(platform):
        for service in one.services:
            for log, privileges in _shares(platform, service):
                schema = schema_of(log.name)
                if schema != one.role:
                    for allowed, what in privileges:
                        found[Grant(schema, allowed, what, one.role)] = None
    for one in _keepers_of_keys(platform)[1:]:
        for allowed, what in KEY_USER:
            found[Grant(KEYS_SCHEMA, allowed, what, one.role)] = None
    return tuple(found)


def _shares(
    platform: Platform, service: Service
) -> Iterator[tuple[Service, Sequence[tuple[str, str]]]]:
    """Yield what a service needs of each log: it folds those of its projections, or reads or relays all.

    Who keeps something of its own, and has no projections, reads: its checkpoints are what it keeps.
    """
    folded = {log for projection in service.projections for log in projection.logs}
    for log in logs(platform):
        if log.name in folded:
            yield log, READER
        elif service.follows_logs and not service.projections:
            yield log, READER if service.keeps else RELAY


def _keepers_of_keys(platform: Platform) -> tuple[Runs, ...]:
    """Return who uses the data keys; the first owns their schema: one that writes, if there is one."""
    users = [one for one in running(platform) if one.uses_keys]
    return tuple(sorted(users, key=lambda one: "store" not in one.needs))


def connections_max(one: Runs, logs_count: int) -> int:
    """Return how many connections all processes of a deployable may have together."""
    needs = [need for service in one.services for need in service.needs]
    pools = needs.count("store") + needs.count("views") + needs.count("logs") * logs_count
    keys = needs.count("keys") * KEYS_CONNECTIONS
    return one.replicas_max * (pools * POOL_CONNECTIONS + keys)


def roles(platform: Platform) -> tuple[Runs, ...]:
    """Return the deployables that have a role."""
    return tuple(one for one in running(platform) if one.uses_store)


def generate(platform: Platform) -> Artifacts:
    """Return the SQL that makes a fresh or an older database what the model says."""
    known = roles(platform)
    files = {
        "10-roles.sql": _roles(known, len(logs(platform))),
        "20-schemas.sql": [*_schemas(known), *_schema_of_keys(_keepers_of_keys(platform))],
        "30-grants.sql": _grants(grants(platform)),
        "40-passwords.sql": _passwords(known),
    }
    return {
        f"postgres/{name}": f"{comment(NOTICE, '--')}\n{chr(10).join(lines)}\n"
        for name, lines in files.items()
    }


def _roles(known: Sequence[Runs], logs_count: int) -> list[str]:
    limits = {one.role: connections_max(one, logs_count) for one in known}
    lines = [f"revoke all on database {_name(DATABASE)} from public;"]
    lines += ["revoke all on schema public from public;", ""]
    for role, limit in (limits | {OPERATOR: OPERATOR_CONNECTIONS}).items():
        lines += [
            _unless_there("pg_roles", "rolname", role, f"create role {_name(role)}"),
            (
                f"alter role {_name(role)} login nosuperuser nocreatedb nocreaterole noreplication"
                f" nobypassrls connection limit {limit};"
            ),
            f"grant connect on database {_name(DATABASE)} to {_name(role)};",
        ]
        lines += [f"alter role {_name(role)} set {k} = {_text(v)};" for k, v in TIMEOUTS.items()]
        lines.append("")
    lines += [
        "-- Who looks at a fleet reads everything, and writes nothing.",
        f"grant pg_read_all_data, pg_read_all_stats to {_name(OPERATOR)};",
        f"alter role {_name(OPERATOR)} set default_transaction_read_only = on;",
    ]
    return lines


def _schemas(known: Sequence[Runs]) -> list[str]:
    lines: list[str] = []
    for one in known:
        role = _name(one.role)
        for service in one.services:
            if not service.keeps:
                continue
            schema = _name(schema_of(service.name))
            lines += [
                f"create schema if not exists {schema} authorization {role};",
                f"alter schema {schema} owner to {role};",
                *_take_over(schema_of(service.name), one.role),
                f"alter default privileges for role {role} revoke execute on functions from public;",
            ]
            if service.read_models:
                lines += [
                    "-- Its read models are made again in schemas beside it.",
                    f"grant create on database {_name(DATABASE)} to {role};",
                ]
            lines.append("")
    return lines[:-1]


def _schema_of_keys(users: Sequence[Runs]) -> list[str]:
    """Return what makes the schema of data keys, apart from all that they protect."""
    if not users:
        return []
    role = users[0].role
    return [
        "",
        f"create schema if not exists {_name(KEYS_SCHEMA)} authorization {_name(role)};",
        f"alter schema {_name(KEYS_SCHEMA)} owner to {_name(role)};",
        *_take_over(KEYS_SCHEMA, role),
    ]


def _take_over(schema: str, role: str) -> list[str]:
    """Return what gives an owner what somebody else made there: a superuser, before it was here."""
    return [
        "do $$ declare item record; begin",
        "    for item in select relname from pg_class",
        f"        where relnamespace = {_text(_name(schema))}::regnamespace",
        f"            and relkind in ('r', 'p', 'v') and relowner <> {_text(_name(role))}::regrole",
        (
            f"    loop execute format('alter table %I.%I owner to %I', {_text(schema)}, item.relname,"
            f" {_text(role)}); end loop;"
        ),
        "    for item in select oid::regprocedure as signature from pg_proc",
        f"        where pronamespace = {_text(_name(schema))}::regnamespace",
        f"            and proowner <> {_text(_name(role))}::regrole",
        (
            "    loop execute format('alter function %s owner to %I', item.signature,"
            f" {_text(role)}); end loop;"
        ),
        "end $$;",
    ]


def _grants(wanted: Sequence[Grant]) -> list[str]:
    pairs = dict.fromkeys((grant.schema, grant.grantee) for grant in wanted)
    lines = [f"grant usage on schema {_name(s)} to {_name(g)};" for s, g in pairs]
    rows = [
        f"        ({_text(g.schema)}, {_text(g.privileges)}, {_text(g.what)}, {_text(g.grantee)})"
        for g in wanted
    ]
    if not rows:
        return ["-- Nobody reads what is another's."]
    body = ",\n".join(rows)
    return [
        *lines,
        "",
        "-- Runs as whoever has just created something, and grants what is its own to grant.",
        "create schema if not exists access;",
        "grant usage on schema access to public;",
        "create or replace function access.grant_shares() returns event_trigger",
        "language plpgsql set search_path = pg_catalog, pg_temp as $$",
        "declare",
        "    share record;",
        "    shares cursor for select * from (values",
        body,
        "    ) as v (schema, privileges, what, grantee)",
        # Not to_regclass: it fails for whoever may not look into the schema.
        "    where case when what like '%()'",
        "        then exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace",
        "            where n.nspname = schema and p.proname || '()' = what",
        "                and pg_has_role(p.proowner, 'usage'))",
        "        else exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace",
        "            where n.nspname = schema and c.relname = what",
        "                and pg_has_role(c.relowner, 'usage'))",
        "    end;",
        "begin",
        "    for share in shares loop",
        "        execute format(",
        "            'grant %s on %s %I.%s to %I', share.privileges,",
        "            case when share.what like '%()' then 'function' else 'table' end,",
        "            share.schema, share.what, share.grantee);",
        "    end loop;",
        "end",
        "$$;",
        "drop event trigger if exists grant_shares;",
        "create event trigger grant_shares on ddl_command_end",
        "    when tag in ('CREATE TABLE', 'CREATE VIEW', 'CREATE FUNCTION')",
        "    execute function access.grant_shares();",
        "",
        "-- And now, of what is there already: by creating something.",
        "create or replace view access.shares_granted as select now() as at;",
        "drop view access.shares_granted;",
    ]


def _passwords(known: Sequence[Runs]) -> list[str]:
    lines = [
        "-- For psql alone, on the machine with the files: `psql --file 40-passwords.sql`.",
        "-- Another folder: `psql --set folder=/etc/flotilla/secrets …`.",
        "\\if :{?folder}",
        "\\else",
        f"\\set folder {PASSWORDS}",
        "\\endif",
        "set log_statement = 'none';",
    ]
    for role in [*(one.role for one in known), OPERATOR]:
        lines += [
            f"\\set file :folder/postgres-{role.replace('_', '-')}",
            '\\set password `cat ":file"`',
            f"alter role {_name(role)} password :'password';",
        ]
    return lines


def _unless_there(catalog: str, column: str, name: str, statement: str) -> str:
    return (
        f"do $$ begin if not exists (select from {catalog} where {column} = {_text(name)})"
        f" then {statement}; end if; end $$;"
    )


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


POSTGRES = Generator("postgres", "roles, schemas and grants of the store", ("postgres",), generate)

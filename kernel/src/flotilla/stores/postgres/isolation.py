"""Row-level security: who says for which tenants it works sees those, and who says nothing sees nothing.

    a tenant's work    `tenants_1`: rows of the tenants that the statement itself names, in its own
                       transaction; a connection is lent with nothing said
    every tenant's     `every_tenant_1`: connections of their own, opened with `EVERY_TENANT`, and lent
                       to nobody else: relays, folds, migrations, moves, operators

Every table of a service's schema is closed, owners included (FORCE), when the schema is migrated: by
its column `tenant`, else by the first part of its `stream`, and one that has neither to all tenants.
So a table that nobody thought of is closed, and not open. Only `OF_NOBODY` holds no tenant's rows.

Only built-in functions in the policies: a table moves between schemas with them. The settings are read
once a statement, not once a row. A change of a policy takes the next number: see `closing`.
"""

from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

from flotilla.store import StreamId, tenant_of

EVERY_TENANT = {"flotilla.every_tenant": "on"}
"""Settings of a connection that works for every tenant."""
OF_NOBODY = (
    "schema_migration",
    "lease",
    "log_reader",
    "projection_checkpoint",
    "projection_heartbeat",
)
"""Tables of ours without a tenant's rows."""
OPEN_TABLES = resources.files(__package__).joinpath("open_tables.sql").read_text(encoding="utf-8")
"""A query: the name of each table of this schema that is not closed, and its columns; $1 `OF_NOBODY`."""
_EVERY = "(select current_setting('flotilla.every_tenant', true)) = 'on'"
_SAID = "(select nullif(current_setting('flotilla.tenants', true), '')::text[])"


def closing(name: str, columns: Iterable[str]) -> str:
    """Return what closes a table; `name` is quoted."""
    mine = {
        column: f"array_position({_SAID}, {value}) is not null"
        for column, value in (("tenant", "tenant"), ("stream", "split_part(stream, '/', 1)"))
    }  # not `= any`: of that the planner believes that it leaves few rows, and sorts those
    owned = next((mine[column] for column in mine if column in columns), None)
    statements = [
        f"alter table {name} enable row level security",
        f"alter table {name} force row level security",
        f"drop policy if exists every_tenant_1 on {name}",
        f"drop policy if exists tenants_1 on {name}",
        f"create policy every_tenant_1 on {name} using ({_EVERY})",
    ]
    if owned and name.rsplit(".", maxsplit=1)[-1] == "event_outbox":
        # Numbers of the whole log: a tenant adds to it, but neither reads it nor gives an offset,
        # for a number that is refused would tell of others.
        added = f'for insert with check ("offset" is null and {owned})'
        statements.append(f"create policy tenants_1 on {name} {added}")
    elif owned:
        statements.append(f"create policy tenants_1 on {name} using ({owned})")
    return ";\n".join(statements)


@lru_cache(maxsize=256)
def of_tenants(sql: str, parameters: int) -> str:
    """Return a query for some tenants: their array is the parameter after its own.

    The query is joined sideways to the setting of its tenants, and needs it: so no row of a table is
    looked at before they are set. One statement, one round trip, and over with its transaction.
    """
    return (
        "with said as materialized (select set_config('flotilla.tenants',"  # noqa: S608 - our own text
        f" ${parameters + 1}::text[]::text, true) as tenants)\n"
        f"select asked.* from said cross join lateral (select * from ({sql}\n) as sought"
        " where said.tenants is not null offset 0) as asked"
    )


def tenants_of(streams: Iterable[StreamId]) -> set[str]:
    """Return whose streams these are."""
    return {tenant_of(stream) for stream in streams}

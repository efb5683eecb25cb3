"""Everything that a service keeps, taken from one database to another, whatever their kinds.

    source, one snapshot ──▶ is it whole? ──▶ each table, in the order of its key ──▶ target
                                                     │                  one transaction
                                                     └─▶ read back, counted and hashed there
                                                         the same: commit. Not: nothing was written

Nobody lists the tables: they are those that the source's catalog has, and the target must have been
made by the same migrations. So a table that is new is moved too, or refused by name, and never
forgotten. Rows travel as SQLite holds them: integers, floats, text, bytes, null; moments are
microseconds since 1970. Dying at any point leaves a target with nothing in it, or all of it, and the
source as it was; moving again what was moved is a no-op.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flotilla.errors import Corrupt, Rejected, Unavailable
from flotilla.projection import Row
from flotilla.stores.comparison import Table

PAGE_ROWS_MAX = 5000
LEDGER_OF_MIGRATIONS = "schema_migration"
"""The one table that is not moved: the target's own migrations wrote theirs."""

_EVENT_STORE = {"event", "aggregate", "event_outbox"}
_HOLES = {
    "ledger of {}: offsets {} to {}, and {} entries": """
select log, min("offset"), max("offset"), count(*) from event_outbox where "offset" is not null
group by log having count(*) <> max("offset") - min("offset") + 1 limit 1
""",
    "stream {}: {} events up to version {}": """
select stream, count(*), max(version) from event
group by stream having count(*) <> max(version) limit 1
""",
    "stream {} is said to be at version {}, and its events are not": """
select a.stream, a.version from aggregate a
left join (select stream, max(version) as version from event group by stream) e
    on e.stream = a.stream
where a.version <> coalesce(e.version, 0) limit 1
""",
    "stream {} has events and no version": """
select e.stream from event e left join aggregate a on a.stream = e.stream
where e.version = 1 and a.stream is null limit 1
""",
    "outbox entry {} is of {}, version {}, which is no event": """
select o.position, o.stream, o.version from event_outbox o
left join event e on e.stream = o.stream and e.version = o.version
where e.stream is null limit 1
""",
}
"""What a store that is whole has none of, by how it is told."""


class MoveRefused(Rejected):
    """What is there cannot be moved to here. Nothing was written."""

    default_code = "move-refused"


class NotTheSame(Corrupt):
    """The target does not give back what it was given. Nothing of it was committed."""

    default_code = "move-different"


class Kept(Protocol):
    """What a service keeps in one database, in one transaction; a source is only read.

    Adapters: `flotilla.stores.open_kept`. Every method raises `Unavailable` when the database does
    not answer.
    """

    async def components(self) -> Mapping[str, int]:
        """Return the schema version of each component; nothing where there is no schema."""
        ...

    async def tables(self) -> Sequence[Table]:
        """Return all tables but `LEDGER_OF_MIGRATIONS`, by name.

        Raises `MoveRefused` for one with a column of a type that does not travel.
        """
        ...

    async def fetch(self, sql: str) -> Sequence[Row]:
        """Return the rows of a query that both databases understand."""
        ...

    def pages(self, table: Table) -> AsyncIterator[Sequence[Row]]:
        """Yield all rows in the order of the key, text by code point."""
        ...

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows. Raises `MoveRefused` when the database does not take one."""
        ...

    async def go_on(self, table: Table) -> None:
        """Let the numbers that the database itself gives in `table` go on after the greatest."""
        ...


@dataclass(frozen=True, slots=True)
class TableMoved:
    """A table on both sides: rows, and the SHA-256 of all of them in the order of their keys."""

    table: str
    source_rows: int
    target_rows: int
    source_sha256: str
    target_sha256: str

    @property
    def same(self) -> bool:
        """Whether both sides have the same rows."""
        return self.source_sha256 == self.target_sha256


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of it."""

    tables: tuple[TableMoved, ...]
    already: bool
    """It was there before, the same in every row; nothing was written."""


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """How far it is: `rows` of `target`, reading back included."""

    table: str
    rows: int
    target: int


@dataclass(slots=True)
class _Tally:
    """Rows that passed, counted and hashed."""

    rows: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, page: Sequence[Row]) -> None:
        self.rows += len(page)
        self.digest.update("".join(f"{tuple(row)!r}\n" for row in page).encode(errors="replace"))


async def check_source(source: Kept) -> None:
    """Refuse what is not whole: nobody should find that out after the move.

    Raises:
        Unavailable: it has no schema (`schema-missing`).
        Corrupt: its ledger or a stream has a hole (`store-has-holes`).

    """
    if not await source.components():
        raise Unavailable("nothing was ever kept here: look at the address", code="schema-missing")
    if not {table.name for table in await source.tables()} >= _EVENT_STORE:
        return
    for words, sql in _HOLES.items():
        for row in await source.fetch(sql):
            raise Corrupt(
                f"{words.format(*row)}: restore a backup, see docs/runbooks/restore.md",
                code="store-has-holes",
            )


async def move(source: Kept, target: Kept, report: Callable[[MoveProgress], None]) -> Moved:
    """Copy every table, and compare what both sides have then.

    Raises:
        MoveRefused: the target is of other migrations, or is not empty and not the same.
        NotTheSame: it does not give back what it was given.
        Unavailable, Corrupt: see `check_source`.

    """
    await check_source(source)
    tables = await _tables_of_both(source, target)
    filled = [table.name for table in tables if await _count(target, table)]
    counts = {table.name: await _count(source, table) for table in tables}
    progress, told = 2 * sum(counts.values()), 0

    def tell(table: Table, rows: int) -> None:
        nonlocal told
        told += rows
        report(MoveProgress(table.name, told, progress))

    moved = []
    for table in tables:
        ours, theirs = _Tally(), _Tally()
        async for page in source.pages(table):
            ours.add(page)
            if not filled:
                await target.write(table, page)
            tell(table, len(page))
        if not filled:
            await target.go_on(table)
        async for page in target.pages(table):
            theirs.add(page)
            tell(table, len(page))
        digests = ours.digest.hexdigest(), theirs.digest.hexdigest()
        moved.append(TableMoved(table.name, ours.rows, theirs.rows, *digests))
    _check_same(moved, filled)
    return Moved(tuple(moved), already=bool(filled))


def _check_same(moved: Sequence[TableMoved], filled: Sequence[str]) -> None:
    different = [
        f"{table.table} ({table.source_rows} rows here, {table.target_rows} there)"
        for table in moved
        if not table.same
    ]
    if different and filled:
        raise MoveRefused(
            f"the target is not empty ({', '.join(filled)}): move to a new one",
            code="target-not-empty",
        )
    if different:
        raise NotTheSame(f"not the same after the move: {', '.join(different)}")


async def _tables_of_both(source: Kept, target: Kept) -> list[Table]:
    """Return the source's tables; refuses those that the target has not, or not like that."""
    here, there = await source.components(), await target.components()
    for component, version in here.items():
        if version != there.get(component):
            raise MoveRefused(_other_schema(component, version, there.get(component)))
    targets = {table.name: table for table in await target.tables()}
    found = []
    for table in await source.tables():
        like = targets.get(table.name)
        if like is None or set(like.columns) != set(table.columns) or like.key != table.key:
            raise MoveRefused(
                f"the table {table.name} of the source is not, or is another one, in the target:"
                " only what migrations made can be moved; see docs/runbooks/move.md",
                code="table-unknown",
            )
        found.append(table)
    return found


def _other_schema(component: str, version: int, known: int | None) -> str:
    if known is None:
        return (
            f"the source keeps {component}, which this release does not have: move with the release"
            " that wrote it, or see docs/runbooks/move.md"
        )
    if version > known:
        return (
            f"{component} of the source is at schema version {version} and this release knows {known}:"
            " move with the newer release"
        )
    return (
        f"{component} of the source is at schema version {version} and this release writes {known}:"
        " start the fleet of the source once with this release, stop it, and move then"
    )


async def _count(kept: Kept, table: Table) -> int:
    [(rows,)] = await kept.fetch(f'select count(*) from "{table.name}"')  # noqa: S608 - from the catalog
    return int(rows)

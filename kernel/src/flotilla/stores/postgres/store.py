"""The event store and its outbox on Postgres: every commit is one statement."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Self

import asyncpg

from flotilla.errors import Rejected, Unavailable
from flotilla.store import (
    EMPTY,
    ClaimKey,
    Committed,
    Conflicted,
    Failed,
    Loaded,
    Outcome,
    RecordedEvent,
    Replayed,
    Reused,
    StreamId,
    Unit,
    Version,
)
from flotilla.stores.gather import Gather
from flotilla.stores.migrations import read_migrations
from flotilla.stores.postgres.connection import Connections, prepare, read_sql, schema_of
from flotilla.stores.postgres.due import DUE_TABLE, PostgresDue, wakes
from flotilla.stores.postgres.isolation import of_tenants, tenants_of
from flotilla.stores.postgres.leases import COMPONENT, TABLE
from flotilla.stores.postgres.outbox import OVERTAKEN, TORN_TRIES_MAX
from flotilla.stores.postgres.rows import LoadRequest, documents, loaded, recorded
from flotilla.stores.rounds import Chain, plan_rounds
from flotilla.stores.storable import (
    Unstorable,
    check_storable,
    is_storable,
    of_tenant,
    unit_tenant,
)

CONNECTIONS_MAX = 5
"""For tenants' commits and loads."""
EVERY_TENANT_CONNECTIONS_MAX = 3
"""For the outbox and what is due, which are every tenant's."""

_COMMIT, _LOAD, _REPLIES, _FORGET = map(read_sql, ("commit", "load", "replies", "forget_expired"))
_LOCKED = read_sql("locked")
_VERDICT = "select case\n"
_COMMIT_AND_WAKE = _COMMIT.replace(_VERDICT, read_sql("wake") + _VERDICT)
"""A statement of its own: whoever wakes nothing pays nothing for it."""
_READ = """
select stream, version, event_id, type, payload, metadata, recorded_at from event
where stream = $1 and version > $2 order by version limit $3
"""

_UNSTORABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.CardinalityViolationError,
    asyncpg.InterfaceError,
    ValueError,
)
"""The database refuses what is in a unit. Anything else is about the database, or a bug."""


class PostgresStore(PostgresDue):
    """One service's events on Postgres. Open it with `PostgresStore.open`."""

    flights_max: int = 2

    def __init__(self, connections: Connections, every_tenant: Connections, *, log: str) -> None:
        super().__init__(every_tenant, log=log)
        self._of_tenants = connections
        self._loads = Gather(self._load_many)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str, migrate: bool = True) -> AsyncIterator[Self]:
        """Yield the store of `service`, in a schema of its own, migrated; or only to be read."""
        schema = schema_of(service)
        connections, every_tenant = (
            Connections(
                url, schema=schema, size_max=most, every_tenant=every, read_only=not migrate
            )
            for most, every in ((CONNECTIONS_MAX, False), (EVERY_TENANT_CONNECTIONS_MAX, True))
        )
        try:
            steps = read_migrations("flotilla.stores.postgres")
            await prepare(every_tenant, "event_store", steps, schema=schema, write=migrate)
            if migrate:  # `record` looks at the lease on the log
                await prepare(every_tenant, COMPONENT, [TABLE], schema=schema, write=True)
            await prepare(every_tenant, "due", [DUE_TABLE], schema=schema, write=migrate)
            yield cls(connections, every_tenant, log=service)
        finally:
            await connections.close()
            await every_tenant.close()

    async def load(
        self,
        stream: StreamId,
        *,
        snapshot_schema: int | None = None,
        claims: Sequence[ClaimKey] = (),
    ) -> Loaded:
        """Return the stream, from its snapshot on, and the replies that `claims` stand for."""
        if not is_storable(stream):
            return Loaded(EMPTY)
        # One question that the database does not understand would fail all that go out with it.
        sound = [c for c in of_tenant(stream, claims) if is_storable(c.scope, c.key)]
        return await self._loads.answer((stream, snapshot_schema, sound))

    async def commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        """Commit each unit as if they came one after the other, in as few statements as that takes."""
        outcomes: dict[int, Outcome] = {}
        phantoms: set[int] = set()
        broken: set[StreamId] = set()
        for i, unit in enumerate(units):
            if refused := _refusal(unit):
                outcomes[i] = refused
            elif broken & _streams(unit):
                phantoms.add(i)
            else:
                continue
            broken |= _streams(unit)
        storable = [i for i in range(len(units)) if i not in outcomes]
        broken.clear()
        for chains in plan_rounds([units[i] for i in storable]):
            round_ = [[storable[n] for n in chain] for chain in chains]
            phantoms |= {i for chain in round_ for i in chain if broken & _streams(units[i])}
            standing = [[i for i in chain if i not in phantoms] for chain in round_]
            lost = [i for chain in round_ for i in chain if i in phantoms]
            news = await self._commit_around_locks(units, [chain for chain in standing if chain])
            news |= await self._why_lost(units, lost)  # now: a later unit may use the same key
            broken |= {s for i, o in news.items() if o != Committed() for s in _streams(units[i])}
            outcomes |= news
        return [outcomes[i] for i in range(len(units))]

    async def read(
        self, stream: StreamId, *, after: Version = EMPTY, limit: int = 1000
    ) -> Sequence[RecordedEvent]:
        """Return up to `limit` events with versions greater than `after`."""
        if not is_storable(stream):
            return []
        rows = await self._ask([stream], _READ, stream, after, limit)
        return [recorded(stream, row) for row in rows]

    async def forget_expired(self, *, limit: int = 10_000) -> int:
        """Delete up to `limit` expired idempotency records."""
        return int((await self._fetch(_FORGET, limit))[0][0])

    async def _load_many(self, asked: Sequence[LoadRequest]) -> Sequence[Loaded]:
        claims = list({claim for _, _, wanted in asked for claim in wanted})
        rows = await self._ask(
            [stream for stream, _, _ in asked],
            _LOAD,
            list(range(len(asked))),
            [stream for stream, _, _ in asked],
            [schema for _, schema, _ in asked],
            *([getattr(claim, part) for claim in claims] for part in ("tenant", "scope", "key")),
        )
        return loaded(asked, rows)

    async def _commit_round(
        self, units: Sequence[Unit], chains: Sequence[Chain]
    ) -> dict[int, Outcome]:
        """Commit chains that share nothing; take a chain apart when it cannot commit as a whole."""
        if not chains:
            return {}
        try:
            lost = await self._commit_chains(units, chains)
        except _UNSTORABLE as error:
            if len(chains) == len(chains[0]) == 1:
                return {chains[0][0]: _failed(error)}
            return await self._one_by_one(units, [i for chain in chains for i in chain])
        if lost is None:
            if len(chains) == 1:
                return dict.fromkeys(chains[0], Conflicted())
            return await self._one_by_one(units, [i for chain in chains for i in chain])
        outcomes: dict[int, Outcome] = {}
        alone: list[int] = []
        for n, chain in enumerate(chains):
            if n not in lost:
                outcomes |= dict.fromkeys(chain, Committed())
            elif len(chain) == 1:
                alone += chain
            else:
                outcomes |= await self._one_by_one(units, chain)
        return outcomes | await self._why_lost(units, alone)

    async def _commit_around_locks(
        self, units: Sequence[Unit], chains: Sequence[Chain]
    ) -> dict[int, Outcome]:
        """Commit chains; when somebody sits on some of their streams, the others, once more.

        Waiting for a lock again and again would only make everybody late.
        """
        try:
            return await self._commit_round(units, chains)
        except Unavailable as error:
            if not isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                raise
            late = error
        streams = {s for chain in chains for i in chain for s in _streams(units[i])}
        held = {StreamId(row[0]) for row in await self._ask(streams, _LOCKED, list(streams))}
        free = [c for c in chains if not any(held & _streams(units[i]) for i in c)]
        if not held or not free:
            raise late
        outcomes = await self._commit_round(units, free)
        waiting = {i for chain in chains for i in chain} - outcomes.keys()
        return outcomes | {i: Failed(Unavailable(str(late))) for i in waiting}

    async def _one_by_one(self, units: Sequence[Unit], indices: Chain) -> dict[int, Outcome]:
        """Commit units alone, in order; what follows one that fails in its streams is lost."""
        outcomes: dict[int, Outcome] = {}
        broken: set[StreamId] = set()
        for i in indices:
            if broken & _streams(units[i]):
                outcomes |= await self._why_lost(units, [i])
            else:
                outcomes |= await self._commit_round(units, [[i]])
            if outcomes[i] != Committed():
                broken |= _streams(units[i])
        return outcomes

    async def _commit_chains(
        self, units: Sequence[Unit], chains: Sequence[Chain]
    ) -> set[int] | None:
        """Return which chains could not commit; None when others were always faster."""
        tenants = {unit_tenant(units[i]) for chain in chains for i in chain}
        rows = [self._log, *documents(units, chains), sorted(tenants)]
        woken = wakes(units, chains)
        statement = (_COMMIT_AND_WAKE, *rows, woken) if woken else (_COMMIT, *rows)
        for _ in range(TORN_TRIES_MAX):
            try:
                async with self._of_tenants.use() as connection:
                    [row] = await connection.fetch(*statement)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in OVERTAKEN:
                    raise
                await asyncio.sleep(0)  # whoever was faster is done; see what they left
            else:
                return set(row[0])
        return None

    async def _why_lost(self, units: Sequence[Unit], alone: Sequence[int]) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = dict.fromkeys(alone, Conflicted())
        asked = [(i, record) for i in alone if (record := units[i].record)]
        if asked:
            claims = [record.claim for _, record in asked]
            keys = [[getattr(c, part) for c in claims] for part in ("tenant", "scope", "key")]
            for row in await self._ask_for(keys[0], _REPLIES, *keys):
                i, record = asked[row["n"] - 1]
                same = row["fingerprint"] == record.fingerprint
                outcomes[i] = Replayed(row["reply"]) if same else Reused()
        return outcomes

    async def _ask(
        self, streams: Iterable[StreamId], sql: str, *arguments: object
    ) -> list[asyncpg.Record]:
        """Return the rows of a query about some streams: it sees those of their tenants."""
        return await self._ask_for(tenants_of(streams), sql, *arguments)

    async def _ask_for(
        self, tenants: Iterable[str], sql: str, *arguments: object
    ) -> list[asyncpg.Record]:
        async with self._of_tenants.use() as connection:
            question = of_tenants(sql, len(arguments))
            rows: list[asyncpg.Record] = await connection.fetch(
                question, *arguments, sorted(set(tenants))
            )
            return rows


def _streams(unit: Unit) -> set[StreamId]:
    return {append.stream for append in unit.appends}


def _refusal(unit: Unit) -> Outcome | None:
    try:
        check_storable(unit)
    except Rejected as error:
        return Failed(error)
    return None


def _failed(error: Exception) -> Failed:
    failed = Failed(Unstorable(f"the database cannot store this: {error}"))
    failed.error.__cause__ = error
    return failed

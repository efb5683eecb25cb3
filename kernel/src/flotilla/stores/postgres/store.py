"""The event store and its outbox on Postgres: every commit is one statement."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg

from flotilla.errors import Corrupt
from flotilla.outbox import START, LogStatus, Offset, OutboxEntry
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
from flotilla.stores.postgres.connection import Connections, migrate, read_sql, schema_of
from flotilla.stores.postgres.rows import (
    LoadRequest,
    append_arrays,
    claim_arrays,
    entry,
    event_arrays,
    loaded,
    recorded,
)
from flotilla.stores.rounds import Chain, plan_rounds
from flotilla.stores.storable import Unstorable, check_storable, is_storable

CONNECTIONS_MAX = 8
TORN_TRIES_MAX = 10
"""Each try is lost to somebody who committed, so somebody always makes progress."""

_COMMIT, _LOAD, _REPLIES, _FORGET = map(read_sql, ("commit", "load", "replies", "forget_expired"))
_PENDING, _PUBLISHED, _FIND = map(read_sql, ("pending", "published", "find"))
_RECORD, _STATUS = map(read_sql, ("record", "status"))
_READ = """
select stream, version, event_id, type, payload, metadata, recorded_at from event
where stream = $1 and version > $2 order by version limit $3
"""

_LAST_OFFSET = """
select max("offset") from event_outbox where log = $1 and "offset" is not null
"""

_OVERTAKEN = {"FT001", "23505", "40001", "40P01"}
"""Somebody was faster: torn, unique violation, serialisation failure, deadlock. Nothing was written."""

_UNSTORABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.CardinalityViolationError,
    asyncpg.InterfaceError,
    ValueError,
)
"""The database refuses what is in a unit. Anything else is about the database, or a bug."""


class PostgresStore:
    """One service's events on Postgres. Open it with `PostgresStore.open`."""

    flights_max: int = 2

    def __init__(self, connections: Connections, *, log: str) -> None:
        self._connections = connections
        self._log = log
        self._loads = Gather(self._load_many)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, service: str) -> AsyncIterator[Self]:
        """Yield the store of `service`, in a schema of its own, migrated."""
        schema = schema_of(service)
        connections = Connections(url, schema=schema, size_max=CONNECTIONS_MAX)
        try:
            steps = read_migrations("flotilla.stores.postgres")
            await migrate(connections, schema, "event_store", steps)
            yield cls(connections, log=service)
        finally:
            await connections.close()

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
        sound = [c for c in claims if is_storable(c.tenant, c.scope, c.key)]
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
            news = await self._commit_round(units, [chain for chain in standing if chain])
            news |= await self._why_lost(units, lost)  # now: a later unit may use the same key
            broken |= {s for i, o in news.items() if o != Committed() for s in _streams(units[i])}
            outcomes |= news
        return [outcomes[i] for i in range(len(units))]

    async def read(
        self, stream: StreamId, *, after: Version = EMPTY, limit: int = 1000
    ) -> Sequence[RecordedEvent]:
        """Return up to `limit` events with versions greater than `after`."""
        return [recorded(stream, row) for row in await self._fetch(_READ, stream, after, limit)]

    async def forget_expired(self, *, limit: int = 10_000) -> int:
        """Delete up to `limit` expired idempotency records."""
        return int((await self._fetch(_FORGET, limit))[0][0])

    async def pending(self, *, limit: int) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries without an offset, by position."""
        return [entry(row) for row in await self._fetch(_PENDING, self._log, limit)]

    async def published(self, *, after: Offset, limit: int) -> Sequence[OutboxEntry]:
        """Return up to `limit` entries with an offset greater than `after`, by offset."""
        return [entry(row) for row in await self._fetch(_PUBLISHED, self._log, after, limit)]

    async def find(self, events: Sequence[tuple[StreamId, Version]]) -> Sequence[OutboxEntry]:
        """Return the entries of these events."""
        streams, versions = [s for s, _ in events], [v for _, v in events]
        return [entry(row) for row in await self._fetch(_FIND, self._log, streams, versions)]

    async def record(self, offsets: Sequence[tuple[int, Offset]]) -> None:
        """Give offsets to positions, all or none."""
        for _ in range(TORN_TRIES_MAX):
            try:
                await self._fetch(_RECORD, [p for p, _ in offsets], [o for _, o in offsets])
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _OVERTAKEN:
                    raise
                contradiction = error  # or somebody records the same at this moment: look again
            else:
                return
        raise Corrupt(
            f"{self._log}: offsets {offsets[:3]}… contradict the ledger"
        ) from contradiction

    async def last_offset(self) -> Offset:
        """Return the last offset given."""
        return Offset((await self._fetch(_LAST_OFFSET, self._log))[0][0] or START)

    async def status(self) -> LogStatus:
        """Return where the log stands."""
        [row] = await self._fetch(_STATUS, self._log)
        last, waiting = row["last_offset"] or START, row["waiting"]
        return LogStatus(last + waiting, Offset(last), waiting, max(0.0, row["oldest_waiting_s"]))

    async def _load_many(self, asked: Sequence[LoadRequest]) -> Sequence[Loaded]:
        claims = list({claim for _, _, wanted in asked for claim in wanted})
        rows = await self._fetch(
            _LOAD,
            list(range(len(asked))),
            [stream for stream, _, _ in asked],
            [schema for _, schema, _ in asked],
            *([getattr(claim, part) for claim in claims] for part in ("tenant", "scope", "key")),
        )
        return loaded(asked, rows)

    async def _fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._connections.use() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows

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
        arrays: list[list[Any]] = [
            *append_arrays(units, chains),
            *claim_arrays(units, chains),
            *event_arrays(units, chains),
        ]
        for _ in range(TORN_TRIES_MAX):
            try:
                [row] = await self._fetch(_COMMIT, self._log, *arrays)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _OVERTAKEN:
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
            for row in await self._fetch(_REPLIES, *keys):
                i, record = asked[row["n"] - 1]
                same = row["fingerprint"] == record.fingerprint
                outcomes[i] = Replayed(row["reply"]) if same else Reused()
        return outcomes


def _streams(unit: Unit) -> set[StreamId]:
    return {append.stream for append in unit.appends}


def _refusal(unit: Unit) -> Outcome | None:
    try:
        check_storable(unit)
    except Unstorable as error:
        return Failed(error)
    return None


def _failed(error: Exception) -> Failed:
    failed = Failed(Unstorable(f"the database cannot store this: {error}"))
    failed.error.__cause__ = error
    return failed

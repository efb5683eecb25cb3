"""A view's shadow on Postgres: a schema of its own, swapped by moving tables between schemas.

    <service>                        live: what readers find in their search_path
    <service>__shadow__<projection>  the same names: the same SQL, on connections that look there
    <service>__old__<projection>     what was live

    swap:  lock the checkpoint ─▶ fold the last events into the shadow ─▶ lock the tables
           ─▶ SET SCHEMA of each, indexes go along ─▶ checkpoint ─▶ commit

The projector waits from the first lock on, readers from the second. Whoever waits for a lock makes
others wait behind it, so the wait for the tables is short, and tried again. If anything fails, or the
process dies, the transaction never happened.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Self

import asyncpg

from flotilla.clock import Clock
from flotilla.errors import Rejected, Unavailable
from flotilla.outbox import START
from flotilla.partition import Marks, all_at
from flotilla.projection import Checkpoint, Projection, ViewStore
from flotilla.shadow import (
    Amend,
    CatchUp,
    Claimed,
    Comparison,
    Difference,
    NoSuchPlace,
    Place,
    Standing,
    Swapped,
)
from flotilla.stores.comparison import compare_table, incomparable
from flotilla.stores.postgres.connection import Connections, close_tables, schema_of
from flotilla.stores.postgres.places import Connected
from flotilla.stores.postgres.views import PostgresSession, PostgresViews

CONNECTIONS_MAX = 3
TABLE_LOCK_WAIT_MS = 50
"""How long a swap waits for all of the tables, and readers behind it."""
SWAP_TRIES_MAX = 60
SWAP_PAUSE_S = 0.05
NAME_BYTES_MAX = 62
"""Postgres cuts off what is longer than 63, and two schemas would be one."""


@dataclass(frozen=True)
class PostgresShadows:
    """The places of one projection's view. Open it with `PostgresShadows.open`."""

    live: PostgresViews
    _url: str
    _service: str
    _projection: Projection
    _connections: Connections
    _clock: Clock

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, service: str, projection: Projection, clock: Clock
    ) -> AsyncIterator[Self]:
        """Yield the places of `projection` among the views of `service`."""
        async with AsyncExitStack() as stack:
            views = await stack.enter_async_context(PostgresViews.open(url, service=service))
            connections = Connections(
                url, schema=schema_of(service), size_max=CONNECTIONS_MAX, every_tenant=True
            )
            stack.push_async_callback(connections.close)
            yield cls(views, url, service, projection, connections, clock)

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[None]:
        """Hold a lock of a session of its own, which ends with its process."""
        name = self._schema("shadow")
        async with self._connections.use() as connection:
            if not await connection.fetchval(
                "select pg_try_advisory_lock(hashtextextended($1, 0))", name
            ):
                raise Claimed(
                    f"somebody else rebuilds {self._projection.name} just now: let one end"
                )
            try:
                yield
            finally:
                if not connection.is_closed():
                    await connection.execute("select pg_advisory_unlock_all()")

    @asynccontextmanager
    async def shadow(self) -> AsyncIterator[ViewStore]:
        """Yield the shadow, with the projection's tables."""
        async with PostgresViews.open(self._url, service=self._schema("shadow")) as views:
            await views.migrate(self._projection.name, self._projection.tables)
            yield views

    async def standing(self) -> Standing:
        """Return where each place is in the log."""
        async with self._connected() as at:
            live = await at.checkpoint(self._schema())
            shadow = await at.checkpoint(self._schema("shadow"))
            old = await at.checkpoint(self._schema("old"))
        return Standing(live or Checkpoint(START), shadow, old)

    async def compare(self, catch_up: CatchUp, *, differences_max: int) -> Comparison:
        """Bring the shadow to where the live view is, and compare both in one snapshot."""
        live, shadow = self._schema(), self._schema("shadow")
        async with (
            self._connected() as at,
            at.connection.transaction(isolation="repeatable_read"),
        ):
            await at.connection.execute("set local statement_timeout = '60s'")
            wanted = await at.marks(live) or Marks({})
            reached = await self._catch_up(at, catch_up, wanted.slowest)
            histories = await at.history(live), await at.history(shadow)
            if reason := incomparable(wanted, reached, *histories):
                return Comparison(reached, reason=reason)
            compared, different, shown = [], 0, list[Difference]()
            for table, order in await at.tables(shadow):
                rows, count, differences = await compare_table(
                    table,
                    at.pages(live, table, order),
                    at.pages(shadow, table, order),
                    differences_max=differences_max - len(shown),
                )
                compared.append(rows)
                different += count
                shown += differences
        return Comparison(reached, tuple(compared), different, tuple(shown))

    async def swap(self, catch_up: CatchUp, *, partitions: int | None = None) -> Swapped:
        """Make the shadow live, in one transaction."""
        shadow = self._schema("shadow")
        async with self._connected() as at:
            await self._require(at, "shadow")
            for table, _ in await at.tables(shadow):  # or its first readers would be badly planned
                await at.connection.execute(f'analyze "{shadow}"."{table.name}"')
        return await self._exchange("shadow", catch_up, partitions)

    async def roll_back(self) -> Swapped:
        """Exchange live and old, each with its checkpoint."""
        return await self._exchange("old", None, None)

    async def forget(self, place: Place) -> bool:
        """Drop a place."""
        schema = self._schema(place)
        async with self._connected() as at:
            found = await at.checkpoint(schema) is not None
            await at.connection.execute(f'drop schema if exists "{schema}" cascade')
        return found

    async def amend(self, change: Amend) -> None:
        """Change the live view's rows while its checkpoint is locked."""
        async with self._connected() as at, at.connection.transaction():
            marks = await at.lock(self._schema())
            await change(PostgresSession(at.connection), marks)
            if marks.slowest.offset == START:
                await at.put(self._schema(), marks)

    def _schema(self, place: Place | None = None) -> str:
        live = schema_of(self._service)
        name = f"{live}__{place}__{schema_of(self._projection.name)}" if place else live
        if len(name.encode()) > NAME_BYTES_MAX:
            raise Rejected(
                f"{name!r} is longer than {NAME_BYTES_MAX} bytes: shorten the projection's name",
                code="projection-not-rebuildable",
            )
        return name

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connected]:
        async with self._connections.use() as connection:
            yield Connected(connection, self._projection.name, self._projection.log)

    async def _require(self, at: Connected, place: Place) -> Checkpoint:
        checkpoint = await at.checkpoint(self._schema(place))
        if checkpoint is None:
            raise NoSuchPlace(f"{self._projection.name} has no {place} view")
        return checkpoint

    async def _catch_up(self, at: Connected, catch_up: CatchUp, to: Checkpoint) -> Checkpoint:
        """Fold into the shadow, inside the caller's transaction, what it lacks."""
        await self._require(at, "shadow")
        since = (await at.lock(self._schema("shadow"))).slowest
        if since.offset >= to.offset:
            reached = since
        else:
            await at.connection.execute(f'set local search_path = "{self._schema("shadow")}"')
            reached = await catch_up(PostgresSession(at.connection), since, to)
            await at.connection.execute(f'set local search_path = "{self._schema()}"')
        await at.put(self._schema("shadow"), Marks({self._projection.name: reached}))
        return reached

    async def _exchange(
        self, place: Place, catch_up: CatchUp | None, partitions: int | None
    ) -> Swapped:
        """Try until there is a moment in which nobody reads."""
        for _ in range(SWAP_TRIES_MAX):
            async with self._connected() as at:
                try:
                    return await self._exchange_now(at, place, catch_up, partitions)
                except asyncpg.LockNotAvailableError:
                    pass  # and everything was taken back
            await self._clock.sleep(SWAP_PAUSE_S)
        raise Unavailable(
            f"{self._projection.name}: somebody reads its tables without a pause, a long query or an"
            " open transaction; nothing was swapped, try again when it has ended"
        )

    async def _exchange_now(
        self, at: Connected, place: Place, catch_up: CatchUp | None, partitions: int | None
    ) -> Swapped:
        """Exchange live and `place`; a shadow becomes live in so many partitions, or as many as live."""
        live, source, aside = self._schema(), self._schema(place), f"{self._schema('old')}_"
        now_s = self._clock.monotonic_s
        async with at.connection.transaction():
            begun = await self._require(at, place)
            if place == "shadow":
                await at.connection.execute(
                    f'drop schema if exists "{self._schema("old")}" cascade'
                )
            await at.make_place(aside, live)
            was, locked_s = await at.lock(live), now_s()
            new = await at.marks(source) or Marks({})
            if catch_up:
                reached = await self._catch_up(at, catch_up, was.fastest)
                new = all_at(self._projection, partitions or was.count, reached)
            tables = [table for table, _ in await at.tables(source)]
            wait_ms = max(
                1, TABLE_LOCK_WAIT_MS // max(1, len(tables))
            )  # for each, one after the other
            await at.connection.execute(f"set local lock_timeout = '{wait_ms}ms'")
            tables_s = now_s()
            await at.lock_tables(tables, live)
            await at.move(tables, live, aside)
            await at.move(tables, source, live)
            await close_tables(at.connection)  # those of an old place may be of an older release
            await at.put(aside, was)
            await at.put(live, new)
            await at.exchange_parked(live, source, aside)
            await at.take_history(live, source)
            await at.connection.execute(f'drop schema "{source}" cascade')
            await at.connection.execute(f'alter schema "{aside}" rename to "{self._schema("old")}"')
        return Swapped(
            new.slowest,
            new.slowest.offset - begun.offset,
            1e3 * (now_s() - locked_s),
            1e3 * (now_s() - tables_s),
        )

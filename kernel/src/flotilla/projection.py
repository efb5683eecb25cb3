"""Read models: a fold over a log into tables, with its checkpoint in the same transaction.

A projection is one module: tables, apply, queries, and the staleness it allows itself. Adapters of
`ViewStore` live in `flotilla.stores` and pass `flotilla.testing.ViewStoreContract`.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from flotilla.errors import Conflict
from flotilla.outbox import LogEvent, Offset

_ABOUT_ONE_TENANT = re.compile(r"\btenant\s*=\s*\$1(?!\d)", re.IGNORECASE)

type Row = tuple[Any, ...]
"""A row of a query, or of parameters: what the SQL says."""


type Fetch = Callable[..., Awaitable[Sequence[Row]]]
"""What returns the rows of a query: `(sql, *parameters)`."""


class Fenced(Conflict):
    """Another instance moved this checkpoint: stop, and start again from where it is now."""

    default_code = "projection-fenced"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a projection has folded a log. `recorded_at` is that of the event at `offset`."""

    offset: Offset
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LockWait:
    """A connection of ours that waits for a lock, and who holds it, in words for an operator."""

    waits_s: float
    holder: str


class ViewSession(Protocol):
    """A transaction on the views, of every tenant: a batch has events of many.

    SQL is common to Postgres and SQLite, with `$1, $2 …` in order.
    """

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        ...

    async def execute_many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement once for each row of parameters."""
        ...


class Projection(Protocol):
    """One read model."""

    @property
    def name(self) -> str:
        """Return its name, which is also that of its checkpoint."""
        ...

    @property
    def log(self) -> str:
        """Return the service whose log it folds."""
        ...

    @property
    def tables(self) -> Sequence[str]:
        """Return its DDL as versioned migrations, oldest first. Never edit one that was released."""
        ...

    @property
    def staleness_budget_s(self) -> float:
        """Return how old it may become before somebody must know."""
        ...

    async def apply(self, view: ViewSession, batch: Sequence[LogEvent]) -> None:
        """Fold a batch, set-wise. Events of other types than its own are none of its business."""
        ...


def about_one_tenant(sql: str) -> str:
    """Return a query that asks for `tenant = $1`; `ValueError` for one that does not."""
    if not _ABOUT_ONE_TENANT.search(sql):
        raise ValueError(f"a query about one tenant asks for `tenant = $1`: {sql}")
    return sql


class ViewStore(Protocol):
    """Tables of read models, and their checkpoints. Raises `Unavailable` when it does not answer."""

    async def migrate(self, projection: str, tables: Sequence[str]) -> None:
        """Apply those of `tables` (versions 1, 2, 3 …) that are not applied yet, under a lock.

        Raises `Corrupt` when one was changed after it was applied, or more were applied than are known.
        """
        ...

    async def checkpoint(self, projection: str, log: str) -> Checkpoint:
        """Return how far `projection` is in `log`; offset 0 when it has not begun."""
        ...

    async def advance(
        self,
        projection: str,
        log: str,
        step: tuple[Offset, Checkpoint],
        apply: Callable[[ViewSession], Awaitable[None]],
    ) -> None:
        """Run `apply` and move the checkpoint from `step[0]` to `step[1]`, in one transaction.

        From `START` to `START` a projection begins: it has a checkpoint before there is an event.
        Raises `Fenced`, with nothing written, when the checkpoint is not at `step[0]`.
        """
        ...

    async def transact(self, apply: Callable[[ViewSession], Awaitable[None]]) -> None:
        """Run `apply` in one transaction that moves no checkpoint."""
        ...

    async def fetch_of(self, tenant: str, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about one tenant, outside of any transaction.

        The tenant is its `$1`; `parameters` are the others. What belongs to other tenants is not
        seen, where the database can hold that (Postgres); a query that does not ask for
        `tenant = $1` is refused (`ValueError`) everywhere.
        """
        ...

    async def fetch_across(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about every tenant: for operators, and directories by user.

        Say at the call why no tenant may see them by it.
        """
        ...

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query about nobody's rows, outside of any transaction.

        For checkpoints and the like: what belongs to a tenant is not seen, where the database can
        hold that.
        """
        ...

    async def checkpoints(self) -> Sequence[tuple[str, str, Checkpoint]]:
        """Return (projection, log, checkpoint) of every projection that has begun, by name."""
        ...

    async def lock_waits(self) -> Sequence[LockWait]:
        """Return who waits for a lock on these tables at the moment; nothing where none can be seen."""
        ...

"""Threads that own a libSQL connection each, and what its errors mean.

    await write(job) ─▶ Lane (one thread, one connection) ─▶ BEGIN IMMEDIATE … COMMIT
    await read(job)  ─▶ Lane (one thread, one connection, query_only)

The binding (libsql 0.1.11) is synchronous and raises `ValueError` for everything. It holds the GIL
through every call, fsyncs and SQLite's busy handler included: a busy timeout would stop the whole
process, its event loop and time limits too. So that timeout is 0, and waiting for another writer
happens here, in Python, where others can run. Also: an unfetched cursor keeps its table locked, so
rows are always fetched; a closed connection panics, so closing is its thread's last job.

A caller that is cancelled, or gave up, never interrupts its job: it runs to its end in the thread,
or was not begun. A transaction is whole or absent.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

import libsql

from flotilla.errors import Corrupt, KernelError, Unavailable
from flotilla.projection import Row

LOCK_WAIT_S = 5.0
"""How long to wait for another process to end its transaction."""
CALL_LIMIT_S = 10.0
"""How long a caller waits for its job. Longer than `LOCK_WAIT_S`: the nearer cause speaks first."""

_PANIC = "PanicException"  # of pyo3: no Exception, not importable; raised for text beyond UTF-8
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.0005, 0.05
_SETTINGS = (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 0))


class Locked(Unavailable):
    """Another process is writing, and did not end its transaction in time. Nothing was written."""

    default_code = "store-locked"


class Refused(ValueError):
    """The database does not take this row: a constraint, a type, a size. It was not written."""


_MEANINGS: tuple[tuple[str, type[KernelError], str], ...] = (
    ("is locked", Locked, "somebody else is writing and did not end in time"),
    ("disk is full", Unavailable, "make room on its disk"),
    ("disk i/o error", Unavailable, "look at its disk"),
    ("unable to open", Unavailable, "its directory must exist, and this user must own it"),
    ("not a database", Corrupt, "no libSQL file, or damaged: restore a backup"),
    ("disk image is malformed", Corrupt, "it is damaged: restore a backup"),
    ("malformed database schema", Corrupt, "it is damaged: restore a backup"),
)
_REFUSALS = ("constraint failed", "unsupported parameter", "too big", "cannot store")


def meaning(error: ValueError, path: str) -> Exception:
    """Return what an error of the binding stands for; itself when it is a bug."""
    text = str(error).lower()
    for fragment, family, cure in _MEANINGS:
        if fragment in text:
            return family(f"{path}: {error} ({cure})")
    if any(fragment in text for fragment in _REFUSALS):
        return Refused(str(error))
    return error


def path_of(url: str) -> str:
    """Return the file that `libsql:///absolute/path.db` names, taken literally.

    Raises `ValueError` for anything else; a remote database (`libsql://host`) is not supported yet.
    """
    scheme, _, path = url.partition("://")
    if scheme != "libsql" or not path.startswith("/") or set("?#\0") & set(path):
        raise ValueError(
            f"not a libSQL file: {url!r}; write libsql:///absolute/path.db, without options"
            " (remote databases, libsql://host, are not supported)"
        )
    return path


def read_sql(name: str) -> str:
    """Return the statement in `<name>.sql` beside this module."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


class Connection:
    """One connection, used by one thread only."""

    def __init__(
        self, path: str, *, lock_wait_s: float, query_only: bool, set_up: bool = True
    ) -> None:
        self._path = path
        self._lock_wait_s = lock_wait_s
        try:
            self._libsql: Any = libsql.connect(path, isolation_level=None)
        except ValueError as error:
            raise meaning(error, path) from None
        if set_up:
            self.patiently(self._set_up)
        if query_only:
            self.run("pragma query_only = on")

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """Run a statement and return its rows."""
        try:
            return self._libsql.execute(sql, parameters).fetchall() or []
        except ValueError as error:
            raise meaning(error, self._path) from None
        except BaseException as error:
            if type(error).__name__ != _PANIC:
                raise
            raise Corrupt(f"{self._path}: not readable, restore a backup: {error}") from None

    def pages(self, sql: str, page_rows_max: int) -> Iterator[list[Row]]:
        """Run a statement and return its rows in pages; its tables stay locked until the last."""
        try:
            cursor = self._libsql.execute(sql)
            while page := cursor.fetchmany(page_rows_max):
                yield page
        except ValueError as error:
            raise meaning(error, self._path) from None

    def run(self, sql: str, *parameters: object) -> int:
        """Run a statement and return how many rows it changed."""
        try:
            changed: int = self._libsql.execute(sql, parameters).rowcount
        except ValueError as error:
            raise meaning(error, self._path) from None
        return changed

    def begin(self) -> None:
        """Take the write lock, waiting for others."""
        self.patiently(lambda: self.run("begin immediate"))

    def commit(self) -> None:
        """Make the transaction durable."""
        self.run("commit")

    def rollback(self) -> None:
        """Take everything back, if SQLite has not done so itself."""
        if self._libsql.in_transaction:
            self.run("rollback")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write something as a whole."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Write something that may be refused, inside a transaction that goes on without it."""
        self.run("savepoint attempt")
        try:
            yield
        except (ValueError, Corrupt):
            self.run("rollback to attempt")
            raise
        finally:
            if self._libsql.in_transaction:  # SQLite itself rolls back when the disk is full
                self.run("release attempt")

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Read several things as of one moment."""
        self.run("begin")
        try:
            yield
        finally:
            self.rollback()

    def patiently[T](self, action: Callable[[], T]) -> T:
        """Try until nobody else holds the lock, at most `lock_wait_s`."""
        give_up_s = time.monotonic() + self._lock_wait_s
        pause_s = _PAUSE_MIN_S
        while True:
            try:
                return action()
            except Locked:
                if time.monotonic() >= give_up_s:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def close(self) -> None:
        """Let go of the file."""
        self._libsql.close()

    def _set_up(self) -> None:
        for name, wanted in _SETTINGS:
            self.rows(f"pragma {name} = {wanted}")
            [(found,)] = self.rows(f"pragma {name}")
            if found != wanted:
                raise Unavailable(
                    f"{self._path}: {name} is {found}, not {wanted}: commits would not be safe;"
                    " put the file on a local disk",
                    code="store-not-durable",
                )


class Lane:
    """One thread with a connection of its own. Jobs run one after the other, each to its end."""

    def __init__(self, thread: ThreadPoolExecutor, connection: Connection, path: str) -> None:
        self._thread = thread
        self._connection = connection
        self._path = path

    @classmethod
    async def open(
        cls, path: str, *, lock_wait_s: float, query_only: bool, set_up: bool = True
    ) -> Self:
        """Start the thread and let it connect."""
        thread = ThreadPoolExecutor(1, f"libsql-{'read' if query_only else 'write'}")
        connect = thread.submit(
            Connection, path, lock_wait_s=lock_wait_s, query_only=query_only, set_up=set_up
        )
        try:
            return cls(thread, await asyncio.wrap_future(connect), path)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def run[T](self, job: Callable[[Connection], T], *, limit_s: float = CALL_LIMIT_S) -> T:
        """Return what `job` returns.

        Raises `Unavailable` after `limit_s`: then the job was not begun, or goes on.
        """
        try:
            future = asyncio.wrap_future(self._thread.submit(job, self._connection))
        except RuntimeError as error:
            raise Unavailable(f"{self._path} is closed") from error
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Unavailable(f"{self._path} did not answer within {limit_s} s") from error

    def post(self, job: Callable[[Connection], object]) -> None:
        """Run `job` before any later one, without waiting for it; when closed, nothing is open."""
        with suppress(RuntimeError):
            self._thread.submit(job, self._connection)

    async def close(self) -> None:
        """Finish what was begun, and disconnect."""
        closed = self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closed))


@dataclass(frozen=True, slots=True)
class Database:
    """A lane that writes and one that reads."""

    writer: Lane
    reader: Lane

    async def write[T](self, job: Callable[[Connection], T]) -> T:
        """Run a job that takes its own transaction."""
        return await self.writer.run(job)

    async def read[T](self, job: Callable[[Connection], T]) -> T:
        """Run a job that only reads; it is repeated while another process recovers the file."""
        return await self.reader.run(lambda c: c.patiently(lambda: job(c)))

    async def rows(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a query."""
        return await self.read(lambda connection: connection.rows(sql, *parameters))


@asynccontextmanager
async def open_database(url: str, *, lock_wait_s: float = LOCK_WAIT_S) -> AsyncIterator[Database]:
    """Yield the database at `url`, made if it is not there, with WAL and FULL in force."""
    path = path_of(url)
    writer = await Lane.open(path, lock_wait_s=lock_wait_s, query_only=False)
    try:
        reader = await Lane.open(path, lock_wait_s=lock_wait_s, query_only=True)
        try:
            yield Database(writer, reader)
        finally:
            await reader.close()
    finally:
        await writer.close()


@asynccontextmanager
async def open_read_only(url: str, *, lock_wait_s: float = LOCK_WAIT_S) -> AsyncIterator[Database]:
    """Yield the database at `url` for reading. Raises `Unavailable` when there is none; makes none."""
    path = path_of(url)
    if not await asyncio.to_thread(Path(path).is_file):
        raise Unavailable(
            f"{path} does not exist: start its service once, or look at the address",
            code="schema-missing",
        )
    lane = await Lane.open(path, lock_wait_s=lock_wait_s, query_only=True, set_up=False)
    try:
        yield Database(writer=lane, reader=lane)
    finally:
        await lane.close()

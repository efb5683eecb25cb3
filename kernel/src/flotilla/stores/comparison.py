"""Two copies of a table, row by row in the order of their keys: the half that knows no database."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from flotilla.outbox import START
from flotilla.partition import Marks
from flotilla.projection import Checkpoint, Row
from flotilla.shadow import Difference, TableComparison

PAGE_ROWS_MAX = 5000

Pages = AsyncIterator[Sequence[Row]]
"""All rows of a table in the order of its key, in pages. Keys order as Python orders them."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's columns, and which of them are its key: all, when it has no primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def key_of(self, row: Row) -> Row:
        """Return what tells this row from all others."""
        return tuple(row[self.columns.index(name)] for name in self.key)


@dataclass(slots=True)
class _Side:
    """One copy being read: the row it stands at, and the hash of those it passed."""

    table: Table
    pages: Pages
    row: Row | None = None
    key: Row = ()
    rows: int = 0
    page: Sequence[Row] = ()
    at: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    async def advance(self) -> None:
        """Go to the next row; `row` is None after the last."""
        while self.at >= len(self.page):
            page = await anext(self.pages, None)
            if page is None:
                self.row = None
                return
            self.page, self.at = page, 0
        self.row = self.page[self.at]
        self.key = self.table.key_of(self.row)
        self.at += 1
        self.rows += 1
        self.digest.update(repr(self.row).encode())
        self.digest.update(b"\n")


async def compare_table(
    table: Table, live: Pages, shadow: Pages, *, differences_max: int
) -> tuple[TableComparison, int, list[Difference]]:
    """Return both copies' counts and hashes, how many rows differ, and the first of those."""
    ours, theirs = _Side(table, live), _Side(table, shadow)
    different, shown = 0, list[Difference]()
    await ours.advance()
    await theirs.advance()
    while ours.row is not None or theirs.row is not None:
        both = ours.row is not None and theirs.row is not None
        here = ours.row is not None and (not both or _place(ours.key) <= _place(theirs.key))
        there = theirs.row is not None and (not both or _place(theirs.key) <= _place(ours.key))
        old, new = ours.row if here else None, theirs.row if there else None
        if old != new:
            different += 1
            if len(shown) < differences_max:
                key = ours.key if here else theirs.key
                shown.append(Difference(table.name, key, table.columns, old, new))
        if here:
            await ours.advance()
        if there:
            await theirs.advance()
    counts = (ours.rows, theirs.rows, ours.digest.hexdigest(), theirs.digest.hexdigest())
    return TableComparison(table.name, *counts), different, shown


def _place(key: Row) -> tuple[tuple[bool, object], ...]:
    """Return what a key is ordered by; null comes last, as databases are asked to have it."""
    return tuple((value is None, 0 if value is None else value) for value in key)


def incomparable(
    marks: Marks,
    shadow: Checkpoint,
    live_history: Sequence[tuple[int, str]],
    shadow_history: Sequence[tuple[int, str]],
) -> str | None:
    """Return why two views cannot be compared; None when they can."""
    live = marks.slowest
    if live.offset == START:
        return "the live view has not begun"
    if live.offset != marks.fastest.offset:
        return f"its partitions stand at offsets {live.offset} to {marks.fastest.offset}: try again"
    if live.offset != shadow.offset:
        behind = "behind" if live.offset < shadow.offset else "ahead of"
        return f"the live view is at {live.offset}, {behind} the shadow at {shadow.offset}"
    if live_history != shadow_history:
        return "the projection's tables have changed"
    return None

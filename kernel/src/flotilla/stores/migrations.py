"""Which migrations a database still needs: the pure half of every adapter's runner.

A migration is a file `NNNN_name.sql` beside its adapter, or an element of a projection's `tables`.
Once released it is never edited: its checksum is recorded with it. The adapter's half takes its
lock, reads what was applied, asks `plan`, and applies the answer in the same transaction.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from flotilla.errors import Corrupt, Unavailable

FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of a component's schema. Versions are 1, 2, 3 … without gaps."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Return what tells this text from any other."""
        return checksum(self.sql)


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """What a database remembers of a migration."""

    version: int
    checksum: str


def checksum(sql: str) -> str:
    """Return the SHA-256 of a migration's text in hex; line ends do not count."""
    return hashlib.sha256(sql.replace("\r\n", "\n").encode()).hexdigest()


def read_migrations(package: str) -> list[Migration]:
    """Return what is in `migrations/*.sql` of a package, by version.

    Raises `ValueError` when a name is not `NNNN_name.sql` or a version is missing or there twice.
    """
    found: list[Migration] = []
    for file in resources.files(package).joinpath("migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            raise ValueError(f"{package}: a migration is called NNNN_name.sql, not {file.name}")
        found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return _in_order(package, found)


def table_migrations(projection: str, tables: Sequence[str]) -> tuple[str, list[Migration]]:
    """Return the component and the migrations that a projection's `tables` stand for."""
    return f"projection:{projection}", numbered(tables)


def numbered(tables: Sequence[str]) -> list[Migration]:
    """Return DDL, oldest first, as its migrations, versions 1, 2, 3 and so on."""
    return [Migration(n, f"table_{n}", sql) for n, sql in enumerate(tables, start=1)]


def plan(
    component: str, available: Sequence[Migration], applied: Sequence[AppliedMigration]
) -> list[Migration]:
    """Return those of `available` that are still to be applied, in order.

    Raises:
        Corrupt: the database is newer than this code, a migration was changed after it was applied,
            or one in the middle was never applied.

    """
    known = {migration.version: migration for migration in _in_order(component, available)}
    done = {a.version: a for a in applied}
    newest = max(done, default=0)
    if newest > len(known):
        raise Corrupt(
            f"{component} is at schema version {newest} and this code knows {len(known)}:"
            " start the newer release, or restore a backup from before its migration",
            code="schema-newer",
        )
    for version in range(1, newest + 1):
        if version not in done:
            raise Corrupt(
                f"{component} lacks migration {version} although {newest} was applied:"
                " schema_migration was edited by hand; restore it from a backup",
                code="schema-incomplete",
            )
        if done[version].checksum != known[version].checksum:
            raise Corrupt(
                f"{component}: migration {version} ({known[version].name}) was changed after it was"
                " applied: restore its text and put the change into a new migration",
                code="schema-changed",
            )
    return [known[version] for version in range(newest + 1, len(known) + 1)]


def require(
    component: str, available: Sequence[Migration], applied: Sequence[AppliedMigration]
) -> None:
    """Check that a database is exactly what this code reads. Changes nothing.

    Raises:
        Unavailable: its schema is missing (`schema-missing`) or older (`schema-older`).
        Corrupt: it is newer, or damaged; see `plan`.

    """
    missing = plan(component, available, applied)
    if missing and not applied:
        raise Unavailable(
            f"{component} has no schema here: nothing was opened for writing yet; start its service"
            " once, or look at the address",
            code="schema-missing",
        )
    if missing:
        raise Unavailable(
            f"{component} is at schema version {missing[0].version - 1} and this code reads"
            f" {len(available)}: ask with the release that wrote it, or start the newer service, which"
            " migrates it",
            code="schema-older",
        )


def _in_order(component: str, migrations: Sequence[Migration]) -> list[Migration]:
    ordered = sorted(migrations, key=lambda migration: migration.version)
    versions = [migration.version for migration in ordered]
    if versions != list(range(1, len(ordered) + 1)):
        raise ValueError(f"{component}: versions are 1, 2, 3 … without gaps, not {versions}")
    return ordered

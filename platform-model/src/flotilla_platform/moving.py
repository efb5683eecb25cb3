"""The command `flotilla move`: all that a fleet keeps, from one store to another."""

import asyncio
import json as jsons
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from flotilla import telemetry
from flotilla.clock import Clock, SystemClock
from flotilla.errors import Unavailable
from flotilla.stores import open_kept, open_leases, open_store, open_views
from flotilla.stores.moving import Moved, MoveProgress, check_source
from flotilla.stores.moving import move as move_rows
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.folding import import_models
from flotilla_platform.model import Platform, Service
from flotilla_platform.moving_keys import move_keys
from flotilla_platform.options import (
    DebugOption,
    FromDataOption,
    FromStoreOption,
    JsonLinesOption,
    ModelOption,
    ToDataOption,
    ToStoreOption,
    ToTopologyOption,
    data_directory,
)
from flotilla_platform.places import DataPlace, Place, data_place, database_place, held
from flotilla_platform.planning import find_topology
from flotilla_platform.progress import Report, Words, reporting
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.showing import make_console, plain, table_of

MOVE_EXAMPLES = (
    "flotilla move --from-data .flotilla/single --topology single-postgres",
    "flotilla move --from-data /srv/old --topology vps --to-data /srv/new",
    "FLOTILLA_TO_STORE=postgresql://… flotilla move --from-data .flotilla/single -t compose",
    "flotilla move --from-data .flotilla/single-postgres -t single      and back",
    "flotilla move … --json | tail -1 | jq '.tables[] | {service, table, rows}'",
)


class _Step(NamedTuple):
    phase: str
    offset: int
    target: int


_WORDS = Words(subject="service", place="rows", counted="rows")


def move(
    *,
    from_data: FromDataOption = None,
    from_store: FromStoreOption = None,
    topology: ToTopologyOption = None,
    to_data: ToDataOption = None,
    to_store: ToStoreOption = None,
    model: ModelOption = None,
    json: JsonLinesOption = False,
    debug: DebugOption = False,
) -> None:
    """Take what a fleet keeps to another store: libSQL files to PostgreSQL, or back.

    Both fleets are stopped, and the target is new: what runs or has data is refused.
    Events, versions, snapshots, idempotency keys, offsets, readers, checkpoints, views
    and parked events: every table, read back and compared row by row before it counts.
    The source is only read. The broker's stream is made again from the ledger.

    A service is moved in one transaction: after Ctrl-C or a crash, the same command
    goes on with those that are not there yet.

    Exit status: 0 when all is there, 15 when source or target is refused, 13 when the
    target gave back something else, 4 when a directory is in use or the source damaged.
    """

    def run() -> ExitCode:
        platform = read_platform(model or find_model())
        source = _source(platform, from_data, from_store)
        target = _target(platform, topology, to_data, to_store)
        if _are_one(source, target):
            raise Failure(ExitCode.USAGE, "source and target are the same: name a new place")
        services = _services(platform, source, target, topology)
        telemetry.configure("flotilla-move", log_level="error")
        clock = SystemClock()
        started_s = clock.monotonic_s()
        try:
            moved = asyncio.run(_move(source, target, services, clock, json=json))
        except KeyboardInterrupt:
            raise Failure(
                ExitCode.INTERRUPTED,
                "stopped: the source is as it was, a service is in the target as a whole or not at"
                " all; the same command goes on",
            ) from None
        _tell(moved, clock.monotonic_s() - started_s, json=json)
        return ExitCode.OK

    finish(run, debug=debug)


def _source(platform: Platform, data: Path | None, store: str | None) -> Place:
    if (data is None) == (store is None):
        raise Failure(ExitCode.USAGE, "say where from: --from-data or --from-store, one of them")
    if data is None:
        return database_place(store or "", "--from-store")
    try:
        return data_place(platform, data, None)
    except Failure as failure:
        if failure.code != ExitCode.USAGE or (data.is_dir() and any(data.iterdir())):
            raise
        raise Failure(
            ExitCode.NOT_FOUND, f"there is no data in {data}: name the directory of a fleet"
        ) from None


def _target(
    platform: Platform, topology: str | None, data: Path | None, store: str | None
) -> Place:
    if store is not None and data is not None:
        raise Failure(ExitCode.USAGE, "say where to: --to-data or --to-store, one of them")
    if topology is not None:
        find_topology(platform, topology)
    if store is not None:
        return database_place(store, "--to-store")
    if topology is None and data is None:
        raise Failure(ExitCode.USAGE, "say where to: --topology, --to-data or --to-store")
    return data_place(platform, data_directory(data, topology or ""), topology)


def _are_one(source: Place, target: Place) -> bool:
    if isinstance(source, DataPlace) and isinstance(target, DataPlace):
        return source.path == target.path
    return source == target


def _services(
    platform: Platform, source: Place, target: Place, topology: str | None
) -> Sequence[Service]:
    """Return who keeps something in the source, those that write events first."""
    if isinstance(source, DataPlace):
        kept = source.services
    elif isinstance(target, DataPlace):
        kept = target.services
    elif topology is not None:
        kept = [s for s in find_topology(platform, topology).members if s.keeps]
    else:
        raise Failure(ExitCode.USAGE, "say with --topology whose stores these are")
    if isinstance(target, DataPlace):
        known = {service.name for service in target.services}
        if lost := [service.name for service in kept if service.name not in known]:
            raise Failure(
                ExitCode.USAGE,
                f"{target.topology.name!r} does not run {', '.join(lost)}, whose data is here",
            )
    return sorted(kept, key=lambda service: "store" not in service.needs)


async def _move(
    source: Place, target: Place, services: Sequence[Service], clock: Clock, *, json: bool
) -> Mapping[str, Moved]:
    moved = {}
    async with held(source, services) as here:
        for service in services:  # before anything is made for it
            async with open_kept(here[service.name], service=service.name, write=False) as kept:
                await check_source(kept)
        async with held(target, services) as there:
            keys = any("keys" in service.needs for service in services)
            if left := await move_keys(source, target, here, there) if keys else "":
                typer.echo(f"personal data: {left}", err=True)
            for service in services:
                name = service.name
                with reporting(name, clock, as_json=json, words=_WORDS) as report:
                    moved[name] = await _move_one(service, here[name], there[name], report)
    return moved


async def _move_one(service: Service, source: str, target: str, report: Report) -> Moved:
    def tell(progress: MoveProgress) -> None:
        report(_Step(progress.table, progress.rows, progress.target))

    if await _is_empty(target, service.name):
        await _make_schema(target, service)
    async with (
        open_kept(source, service=service.name, write=False) as here,
        open_kept(target, service=service.name, write=True) as there,
    ):
        return await move_rows(here, there, tell)


async def _is_empty(url: str, service: str) -> bool:
    """Return whether nothing is kept there: only then its schema is ours to make."""
    try:
        async with open_kept(url, service=service, write=False) as kept:
            names = [table.name for table in await kept.tables()]
            return not any([await kept.fetch(f'select 1 from "{n}" limit 1') for n in names])  # noqa: S608 - from the catalog
    except Unavailable as error:
        if error.code != "schema-missing":
            raise
        return True


async def _make_schema(url: str, service: Service) -> None:
    """Make every table that the service makes when it starts, by the same migrations."""
    name = service.name
    if "store" in service.needs:
        async with open_store(url, service=name):
            pass
    async with open_leases(url, service=name):
        pass
    if "views" in service.needs:
        async with open_views(url, service=name) as views:
            models = import_models(name, service.read_models) if service.read_models else None
            for projection in models.projections if models else ():
                await views.migrate(projection.name, projection.tables)


def _tell(moved: Mapping[str, Moved], took_s: float, *, json: bool) -> None:
    rows = [(service, one) for service, result in moved.items() for one in result.tables]
    if json:
        tables = [
            {"service": service, "table": one.table, "rows": one.source_rows}
            | {"already_there": moved[service].already}
            | {"source_sha256": one.source_sha256, "target_sha256": one.target_sha256}
            for service, one in rows
        ]
        document = {"kind": "moved", "took_s": round(took_s, 3), "tables": tables}
        typer.echo(jsons.dumps(document))
        return
    table = table_of("service", "table", "rows", "sha256 of both sides", "")
    for service, one in rows:
        said = "was there already" if moved[service].already else "moved"
        cells = (plain(service), plain(one.table), str(one.source_rows))
        table.add_row(*cells, one.source_sha256[:16], said)
    console = make_console()
    console.print(table)
    total = sum(one.source_rows for _, one in rows)
    console.print(
        f"{total} rows in {took_s:.1f} s, the same on both sides; the source is as it was:"
        " keep it until you have seen the new fleet, then remove it"
    )

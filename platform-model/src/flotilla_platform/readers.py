"""The commands `flotilla readers …`: who reads the logs, and holds what the relay may prune of them."""

import asyncio
from collections.abc import Callable
from typing import Literal

import typer
from pydantic import BaseModel, ConfigDict

from flotilla import telemetry
from flotilla.stores import open_store
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.showing import make_console, plain, table_of

READERS_HELP = (
    "Who reads the logs, and how far it said it was.\n\n"
    "A ledger is pruned only behind all of its readers, and one that fell silent holds it: only you "
    "know whether it comes back. `forget` one that is gone for good, such as the partitions of a "
    "projection that is folded in another number of them now."
)
LIST_EXAMPLES = (
    "flotilla readers list",
    "flotilla readers list --json | jq -r '.readers | min_by(.offset) | .reader'",
)
FORGET_EXAMPLES = ("flotilla readers forget counter projection:projector:counters/0of2",)
_STORE_TIMEOUT_S = 10.0


class ReaderRow(BaseModel):
    """One reader of a log."""

    model_config = ConfigDict(frozen=True)

    log: str
    reader: str
    offset: int
    """It has everything up to here."""
    seen_s: float
    """How long ago it said so."""


class Readers(BaseModel):
    """What `flotilla readers list --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    readers: tuple[ReaderRow, ...]


async def read_readers(runtime: Runtime) -> Readers:
    """Return all readers, by log and name."""
    rows: list[ReaderRow] = []
    for log in runtime.logs:
        async with (
            asyncio.timeout(_STORE_TIMEOUT_S),
            open_store(runtime.stores[log], service=log, migrate=False) as store,
        ):
            rows += [
                ReaderRow(log=log, reader=r.reader, offset=r.offset, seen_s=round(r.seen_s, 1))
                for r in await store.readers()
            ]
    return Readers(readers=tuple(rows))


async def forget_reader(runtime: Runtime, log: str, reader: str) -> None:
    """Forget a reader. Raises `Failure` when there is no such log or reader."""
    if log not in runtime.logs:
        known = ", ".join(runtime.logs)
        raise Failure(ExitCode.NOT_FOUND, f"nobody here publishes {log!r}; there are {known}")
    async with (
        asyncio.timeout(_STORE_TIMEOUT_S),
        open_store(runtime.stores[log], service=log) as store,
    ):
        if not await store.forget_reader(reader):
            raise Failure(
                ExitCode.NOT_FOUND,
                f"{reader!r} reads nothing of {log!r}: see `flotilla readers list`",
            )


def _list(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List who reads which log, and how far it is.

    Exit status: 0, whether there are any or none; 7 when nothing is running.
    """

    def run() -> ExitCode:
        telemetry.configure("flotilla-readers", log_level="error")
        found = asyncio.run(read_readers(find_running(data_directory(data, topology))))
        if json:
            typer.echo(found.model_dump_json())
            return ExitCode.OK
        table = table_of("log", "reader", "offset", "seen s ago")
        for row in found.readers:
            table.add_row(plain(row.log), plain(row.reader), str(row.offset), f"{row.seen_s:.1f}")
        make_console().print(table)
        return ExitCode.OK

    finish(run, debug=debug)


def _forget(
    log: str,
    reader: str,
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    debug: DebugOption = False,
) -> None:
    """Forget a reader that is gone for good: what it has not read may be pruned.

    One that is alive says again where it is, within seconds.
    Exit status: 0 when it is forgotten, 11 when there is none, 7 when nothing is running.
    """

    def run() -> ExitCode:
        telemetry.configure("flotilla-readers", log_level="error")
        asyncio.run(forget_reader(find_running(data_directory(data, topology)), log, reader))
        typer.echo(f"{reader} does not hold the ledger of {log} any more")
        return ExitCode.OK

    finish(run, debug=debug)


def readers_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla readers`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=READERS_HELP, no_args_is_help=True, rich_markup_mode="rich")
    commands.command("list", epilog=make(*LIST_EXAMPLES))(_list)
    commands.command("forget", epilog=make(*FORGET_EXAMPLES))(_forget)
    return commands

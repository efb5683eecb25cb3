"""The commands `flotilla keys …`: how many data keys there are, and a new master key for them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import typer
from pydantic import BaseModel, ConfigDict

from flotilla import telemetry
from flotilla.clock import SystemClock
from flotilla.keys import KeyStatus
from flotilla.privacy import Rotated, Vault
from flotilla.service import KeysBinding
from flotilla.stores import open_keys
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.key_places import bind_keys
from flotilla_platform.options import (
    TOPOLOGY,
    DataOption,
    DebugOption,
    JsonOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.runtime import find_running
from flotilla_platform.settings import read_key_places
from flotilla_platform.showing import make_console, plain, table_of

KEYS_HELP = (
    "The keys of personal data: how many there are, and which master key wraps them.\n\n"
    "Where they are is in FLOTILLA_KEYS_URL or else FLOTILLA_STORE_URL; without either, it is the "
    "fleet that runs in --data. What unwraps them is in FLOTILLA_MASTER_KEY."
)
STATUS_EXAMPLES = ("flotilla keys status", "flotilla keys status --json | jq .wrapped_by")
ROTATE_EXAMPLES = (
    "FLOTILLA_MASTER_KEY=<new>,<old> flotilla keys rotate",
    "FLOTILLA_MASTER_KEY_FILE=/run/secrets/master-key flotilla keys rotate --json",
)
_STATUS_TIMEOUT_S = 10.0
_ROTATE_TIMEOUT_S = 3600.0


class KeysFound(BaseModel):
    """What `flotilla keys status --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    alive: int
    destroyed: int
    master_id: str
    """The master key that wraps what is new."""
    wrapped_by: dict[str, int]
    """How many of those that are alive each master key wraps."""
    missing: tuple[str, ...]
    """Master keys that are needed and not in FLOTILLA_MASTER_KEY."""


class KeysRotated(BaseModel):
    """What `flotilla keys rotate --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    master_id: str
    rewrapped: int
    remains: tuple[str, ...]
    """Where copies may still be that an older master key wraps."""


def find_keys(data: Path) -> KeysBinding:
    """Return where the data keys are: as the environment says, else of what runs in `data`.

    Raises `Failure`: nothing runs there, no service of it keeps personal data, or a setting is wrong.
    """
    places = read_key_places()
    if url := places.keys_place:
        if places.master is None:
            raise Failure(
                ExitCode.SETTING_INVALID,
                "FLOTILLA_MASTER_KEY is missing: set it, or FLOTILLA_MASTER_KEY_FILE to a file that"
                " holds it",
            )
        return KeysBinding(url, places.master)
    runtime = find_running(data)
    if runtime.keys is None:
        raise Failure(ExitCode.NOT_FOUND, f"no service of {runtime.topology} keeps personal data")
    return KeysBinding(runtime.keys, bind_keys(Path(runtime.data), None, make=False).master)


async def read_status(keys: KeysBinding) -> KeysFound:
    """Count the keys, and change nothing."""
    async with asyncio.timeout(_STATUS_TIMEOUT_S), open_keys(keys.url, migrate=False) as store:
        status: KeyStatus = await store.status()
    return KeysFound(
        alive=status.alive,
        destroyed=status.destroyed,
        master_id=keys.master.current,
        wrapped_by=dict(sorted(status.wrapped_by.items())),
        missing=tuple(sorted(set(status.wrapped_by) - set(keys.master.ids))),
    )


async def rotate_keys(keys: KeysBinding) -> Rotated:
    """Wrap every key by the current master key. Raises `Corrupt` when an older one is missing."""
    async with asyncio.timeout(_ROTATE_TIMEOUT_S), open_keys(keys.url) as store:
        vault = Vault(store, keys.master, SystemClock())
        await vault.check()
        return await vault.rotate()


def _status(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Count the data keys, by the master key that wraps them.

    Exit status: 0 when all of them can be unwrapped, 8 when a master key is
    missing, 7 when nothing is running.
    """

    def run() -> ExitCode:
        telemetry.configure("flotilla-keys", log_level="error")
        found = asyncio.run(read_status(find_keys(data_directory(data, topology))))
        if json:
            typer.echo(found.model_dump_json())
        else:
            table = table_of("master key", "keys", "")
            for master_id, count in found.wrapped_by.items():
                told = {found.master_id: "wraps what is new"}.get(master_id, "to be rotated")
                told = "missing: nobody can open these" if master_id in found.missing else told
                table.add_row(plain(master_id), str(count), told)
            make_console().print(table)
            typer.echo(f"{found.alive} alive, {found.destroyed} destroyed")
        return ExitCode.UNHEALTHY if found.missing else ExitCode.OK

    finish(run, debug=debug)


def _rotate(
    *,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Wrap every data key by the first of the master keys; no event is touched.

    Give every process `<new>,<old>` first, then run this, then take the old one
    away. Safe while the fleet runs; when it was interrupted, run it again.
    Exit status: 0 when all are wrapped, 4 when an older master key is missing.
    """

    def run() -> ExitCode:
        telemetry.configure("flotilla-keys", log_level="error")
        done = asyncio.run(rotate_keys(find_keys(data_directory(data, topology))))
        if json:
            typer.echo(
                KeysRotated(
                    master_id=done.master_id, rewrapped=done.rewrapped, remains=done.remains
                ).model_dump_json()
            )
            return ExitCode.OK
        typer.echo(f"{done.rewrapped} keys are wrapped by the master key {done.master_id} now")
        for words in done.remains:
            typer.echo(f"still there: {words}")
        return ExitCode.OK

    finish(run, debug=debug)


def keys_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla keys`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=KEYS_HELP, no_args_is_help=True, rich_markup_mode="rich")
    commands.command("status", epilog=make(*STATUS_EXAMPLES))(_status)
    commands.command("rotate", epilog=make(*ROTATE_EXAMPLES))(_rotate)
    return commands

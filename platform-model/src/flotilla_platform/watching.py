"""How `flotilla status` shows what it found: once, or again and again."""

import asyncio
import sys
from collections.abc import Callable

import typer
from rich.live import Live

from flotilla.clock import Clock
from flotilla_platform.showing import make_console, show_status
from flotilla_platform.status import Status

WATCH_INTERVAL_S = 1.0


def show(found: Status, *, json: bool) -> None:
    """Print a status, for people or for programs."""
    if json:
        typer.echo(found.model_dump_json())
    else:
        make_console().print(show_status(found))


def keep_showing(read: Callable[[], Status], clock: Clock, *, json: bool) -> None:
    """Show the status every second; Ctrl-C is how it ends, and no error."""
    console = make_console()
    try:
        if json or not console.is_terminal:
            while True:
                show(read(), json=json)
                sys.stdout.flush()
                asyncio.run(clock.sleep(WATCH_INTERVAL_S))
        with Live(show_status(read()), console=console, auto_refresh=False) as live:
            while True:
                asyncio.run(clock.sleep(WATCH_INTERVAL_S))
                live.update(show_status(read()), refresh=True)
    except KeyboardInterrupt:
        return

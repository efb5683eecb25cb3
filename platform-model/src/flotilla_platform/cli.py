"""The command `flotilla`: options in, one result or one clear line out, and a status that means it.

Everything that can be asked of a command is answered by the modules beside this one; here options
are read (flags, then environment, then defaults) and errors become a line and an exit status.
"""

import asyncio
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from flotilla import telemetry
from flotilla.clock import SystemClock
from flotilla.service import HttpBinding
from flotilla_platform.doctor import examine
from flotilla_platform.exit_codes import ExitCode, failure_of
from flotilla_platform.launch import run_fleet
from flotilla_platform.planning import Plan, find_topology, make_plan
from flotilla_platform.reading import Platform, find_model, read_platform
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.showing import (
    make_console,
    show_diagnosis,
    show_runtime,
    show_status,
    show_topologies,
)
from flotilla_platform.status import LAG_MAX_S, Status, read_status

PROGRAM = "flotilla"
TOPOLOGY = "single"
PORT = 8080

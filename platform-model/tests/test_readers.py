"""`flotilla readers`: who holds the ledger of a log, and letting go of one that is gone for good."""

import asyncio
import json
import subprocess
from collections.abc import Callable

from flotilla.outbox import Offset
from flotilla.stores import open_store
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.runtime import Runtime
from flotilla_platform.testing import Fleet

Up = Callable[..., Fleet]
Run = Callable[..., subprocess.CompletedProcess[str]]


async def read_up_to(runtime: Runtime, reader: str, offset: int) -> None:
    async with open_store(runtime.stores["keeps"], service="keeps") as store:
        await store.read_by(reader, Offset(offset))


def listed(run: Run) -> list[tuple[str, str, int]]:
    result = run("readers", "list", "--json")
    assert result.returncode == ExitCode.OK, result.stderr
    rows = json.loads(result.stdout)["readers"]
    return [(row["log"], row["reader"], row["offset"]) for row in rows]


def test_a_reader_is_listed_until_it_is_forgotten(up: Up, run: Run) -> None:
    runtime = up("keeps", "relays", "folds", folds="tiny_services:projects").runtime()
    asyncio.run(read_up_to(runtime, "projection:gone:view", 2))
    assert listed(run) == [("keeps", "projection:gone:view", 2)]

    forgotten = run("readers", "forget", "keeps", "projection:gone:view")

    assert (forgotten.returncode, listed(run)) == (ExitCode.OK, [])
    for log, told in (("keeps", "see `flotilla readers list`"), ("kept", "there are keeps")):
        again = run("readers", "forget", log, "projection:gone:view")
        assert again.returncode == ExitCode.NOT_FOUND
        assert told in again.stderr

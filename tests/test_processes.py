"""A fleet of processes, some of which go: politely, which nobody may notice, or by kill -9."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio
from fleet import FLOTILLA, Fleet, count, exact_copy, read, settled
from load import LIMIT_S, Load, total

from flotilla.testing.servers import open_folder
from flotilla_platform.model import KINDS
from flotilla_platform.reading import find_model


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two_counters() -> AsyncIterator[Fleet]:
    """The topology `vps`, with two replicas of the counter."""
    with open_folder() as folder:
        model = folder / "model"
        for kind in KINDS.values():
            if (find_model() / kind.folder).is_dir():
                shutil.copytree(find_model() / kind.folder, model / kind.folder)
        topology = model / "topologies" / "vps.yaml"
        topology.write_text(
            topology.read_text().replace(
                "{ deployable: counter }", "{ deployable: counter, replicas: 2 }"
            )
        )
        fleet = Fleet("vps", folder, FLOTILLA_MODEL=str(model))
        await fleet.start()
        try:
            yield fleet
        finally:
            assert await fleet.stop() == 0, fleet.tail()


def process(fleet: Fleet, name: str) -> dict[str, Any]:
    deployable, replica = name.split("/")
    [found] = [
        each
        for each in fleet.runtime["processes"]
        if (each["deployable"], each["replica"]) == (deployable, int(replica))
    ]
    return dict(found)


async def restarted(fleet: Fleet, name: str, before: dict[str, Any]) -> dict[str, Any]:
    """Return the process once it runs again."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            now = process(fleet, name)
            if now["state"] == "running" and now["restarts"] > before["restarts"]:
                return now
            await asyncio.sleep(0.05)


async def test_a_replica_that_is_asked_to_go_takes_no_request_with_it(
    two_counters: Fleet, tenant: str
) -> None:
    fleet = two_counters
    async with Load(fleet, f"{tenant}-term", retries=False) as load:
        for name in ("counter/1", "counter/2"):
            before = process(fleet, name)
            os.kill(before["pid"], signal.SIGTERM)
            after = await restarted(fleet, name, before)
            assert 0 == after["last_exit"], fleet.tail()
            await load.more()

    failed = [(a.status_code, a.text) for a in load.answers if a.status_code != 200]
    assert [] == failed
    assert len(load.answers) == await total(fleet, f"{tenant}-term")


async def test_a_replica_that_is_killed_costs_retries_and_nothing_else(
    two_counters: Fleet, tenant: str
) -> None:
    fleet = two_counters
    async with Load(fleet, f"{tenant}-kill", retries=True) as load:
        before = process(fleet, "counter/1")
        os.kill(before["pid"], signal.SIGKILL)
        await load.more()
        after = await restarted(fleet, "counter/1", before)
        assert -signal.SIGKILL == after["last_exit"]

    assert {200} == {a.status_code for a in load.answers}
    assert len(load.answers) == await total(fleet, f"{tenant}-kill")
    await exact_copy(fleet)


async def test_a_relay_and_a_projector_that_are_killed_go_on_where_they_were(
    two_counters: Fleet, tenant: str
) -> None:
    fleet = two_counters
    async with Load(fleet, f"{tenant}-fold", retries=False) as load:
        for name in ("outbox-relay/1", "projector/1"):
            before = process(fleet, name)
            os.kill(before["pid"], signal.SIGKILL)
            await load.more()
            await restarted(fleet, name, before)

    assert {200} == {a.status_code for a in load.answers}
    assert len(load.answers) == await total(fleet, f"{tenant}-fold")
    await exact_copy(fleet)


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("why-late", "counters"),
        ("events", "{tenant}/counter/c"),
        ("rebuild", "counters", "--check"),
        ("rebuild", "counters"),
        ("replay", "counters", "--tenant", "{tenant}"),
        ("parked", "list"),
    ],
    ids=" ".join,
)
async def test_the_commands_for_operators_work_on_processes_too(
    two_counters: Fleet, tenant: str, command: tuple[str, ...]
) -> None:
    fleet = two_counters
    async with fleet.client(tenant) as client:
        await count(client, "c", key="k")
    await settled(fleet)

    code, said = await ran(fleet, *(part.format(tenant=tenant) for part in command))

    assert 0 == code, said


async def ran(fleet: Fleet, *arguments: str) -> tuple[int | None, str]:
    """Run a command beside the fleet; return its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        FLOTILLA,
        *(*arguments, "--data", str(fleet.data)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(LIMIT_S):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_the_http_server_finishes_what_is_under_way_and_is_unready_first(
    two_counters: Fleet, tenant: str
) -> None:
    fleet = two_counters
    before = process(fleet, "web-bff/1")
    connection = await nats.connect(fleet.runtime["nats_url"])
    try:
        queries = await connection.subscribe("qry.projector.get-counter")
        await connection.flush()
        async with fleet.client(tenant) as client:
            await count(client, "c", key="k")
            # Nobody has made version 3 yet: whoever asks for it waits.
            waiting = asyncio.create_task(read(client, "c", f"{tenant}/counter/c@3"))
            await queries.next_msg(timeout=LIMIT_S)

            os.kill(before["pid"], signal.SIGTERM)
            assert (503, ["it is stopping"]) == await unready(before["admin"])
            assert not waiting.done()
            headers = {"flotilla-tenant": tenant, "flotilla-idempotency-key": "k2"}
            body = b'{"counter_id": "c", "by": 3}'
            await connection.request("cmd.counter.increment", body, timeout=5, headers=headers)

            found = await waiting
    finally:
        await connection.close()
    assert (200, 4) == (found.status_code, found.json()["value"])
    after = await restarted(fleet, "web-bff/1", before)
    assert 0 == after["last_exit"], fleet.tail()
    await fleet.until_ready()


async def unready(admin: str) -> tuple[int, list[str]]:
    """Return what the pages of a process say as soon as it is not ready."""
    async with httpx.AsyncClient() as operator, asyncio.timeout(LIMIT_S):
        while (ready := await operator.get(f"{admin}/readyz")).status_code == 200:
            await asyncio.sleep(0.01)
    return ready.status_code, ready.json()["missing"]

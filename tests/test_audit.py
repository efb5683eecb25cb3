"""`flotilla audit`: what a tenant's history is, its head, and what is told when something is changed."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flotilla import Offset, StreamId, Version, ViewSession
from flotilla.store import Append, Committed, NewEvent, Unit
from flotilla.stores import open_store, open_views
from flotilla_platform import audit_command
from flotilla_platform.audit_command import audit_app
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.runtime import Runtime
from svc_projector.audit import AuditView
from svc_projector.projector import Projector

EVENTS = [
    ("tenant.created.v1", {"tenant_id": "acme", "name": "Acme", "actor_id": "ann"}),
    ("tenant.member-added.v1", {"user_id": "ann", "role": "owner", "actor_id": "ann"}),
    ("tenant.activated.v1", {"actor_id": "system"}),
    ("tenant.renamed.v1", {"name": "Acme Inc", "previous_name": "Acme", "actor_id": "ann"}),
]

Run = Callable[..., Result]


async def _kept(runtime: Runtime) -> None:
    """Record a history of two tenants, and fold it."""
    view = AuditView()
    async with (
        open_store(runtime.stores["tenant"], service="tenant") as store,
        open_views(runtime.stores["projector"], service="projector") as views,
    ):
        for tenant in ("acme", "rival"):
            events = tuple(
                NewEvent(f"{tenant}-{n}", kind, json.dumps(said), {})
                for n, (kind, said) in enumerate(EVENTS)
            )
            stream = StreamId(f"{tenant}/tenant/{tenant}")
            unit = Unit((Append(stream, Version(0), events),))
            assert [Committed()] == await store.commit([unit])
        waiting = await store.pending(limit=100)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(waiting, start=1)])
        await views.migrate(view.name, view.tables)
        projector = Projector(view, views, store)
        await projector.begin()
        await projector.start()
        await projector.project(await store.events(after=Offset(0), limit=100))


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """What a fleet with a tenant service says of itself, and what it keeps."""
    runtime = Runtime(
        pid=1,
        topology="single",
        data=str(tmp_path),
        api=None,
        docs=None,
        nats_url="nats://127.0.0.1:1",
        stores={name: f"libsql://{tmp_path}/{name}.db" for name in ("tenant", "projector")},
        logs=("tenant",),
        views=("projector",),
        read_models={"projector": "svc_projector.read_models:read_models"},
        started_at=datetime(2026, 5, 17, tzinfo=UTC),
    )
    asyncio.run(_kept(runtime))
    return runtime


@pytest.fixture
def run(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(audit_command, "find_running", lambda _: runtime)
    app = audit_app(lambda *lines: "\n".join(lines))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def change(runtime: Runtime, sql: str, *parameters: object) -> None:
    """Change the view behind everybody's back."""

    async def work() -> None:
        async def apply(view: ViewSession) -> None:
            await view.execute_many(sql, [parameters])

        async with open_views(runtime.stores["projector"], service="projector") as views:
            await views.transact(apply)

    asyncio.run(work())


def lines(result: Result) -> Sequence[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_history_is_shown_with_its_head(run: Run) -> None:
    entries = lines(run("show", "--tenant", "acme", "--json"))
    assert [kind for kind, _ in EVENTS] == [entry["type"] for entry in entries]
    assert (["ann", "ann", "system", "ann"], "ann") == (
        [entry["actor_id"] for entry in entries],
        entries[1]["about"],
    )
    assert "tenant.renamed.v1" in run("show", "--tenant", "acme").stdout
    [rest] = lines(run("show", "--tenant", "acme", "--after", "3", "--json"))
    assert entries[-1] == rest

    [head] = lines(run("head", "--tenant", "acme", "--json"))
    assert (4, entries[-1]["hash"]) == (head["entries"], head["hash"])
    for asked in ("show", "head"):
        assert ExitCode.NOT_FOUND == run(asked, "--tenant", "nobody").exit_code


def test_what_is_sound_is_verified_with_a_head_from_before(run: Run) -> None:
    [head] = lines(run("head", "--tenant", "acme", "--json"))

    result = run("verify", "--json")
    *progress, verified = lines(result)
    assert (ExitCode.OK, 8, True) == (result.exit_code, verified["entries"], verified["sound"])
    assert all("eta_s" in line and "entries_per_s" in line for line in progress)
    told = run("verify", "--tenant", "acme", "--head", str(head["hash"]))
    assert (ExitCode.OK, True) == (told.exit_code, "is at offset 4" in told.stdout)

    other = run("verify", "--tenant", "rival", "--head", str(head["hash"]))
    assert (ExitCode.AUDIT_BROKEN, True) == (other.exit_code, "kept elsewhere" in other.stdout)
    for wrong in (("--head", str(head["hash"])), ("--tenant", "acme", "--head", "abc")):
        assert ExitCode.USAGE == run("verify", *wrong).exit_code


def test_the_first_wrong_entry_is_named(run: Run, runtime: Runtime) -> None:
    change(runtime, "update audit_entry set actor_id = $1 where log_offset = 2", "eve")
    result = run("verify")
    assert ExitCode.AUDIT_BROKEN == result.exit_code
    assert "BROKEN at offset 2: changed in the view (actor_id)" in result.stdout
    assert "by ann" in result.stdout
    assert "by eve" in result.stdout

    change(runtime, "delete from audit_entry where log_offset = $1", 2)
    verified = lines(run("verify", "--json"))[-1]
    assert {"kind": "missing", "place": "view", "offset": 2} == {
        name: verified["difference"][name]  # type: ignore[index] # JSON
        for name in ("kind", "place", "offset")
    }
    assert ExitCode.OK == run("verify", "--tenant", "rival").exit_code

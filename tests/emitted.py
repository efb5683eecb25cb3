"""All services in one process, asked everything once: the bytes that they really send.

.venv/bin/python tests/emitted.py      write contracts/emitted/ again
"""

import asyncio
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from added_services import ADDED, ASKED
from scheduling import use_schedules
from tenancy import use_tenants
from workflow_plays import EVERYTHING, SIMPLE, Unheard, use_workflows

from flotilla import Bindings, Bus, Context, Request, SystemClock, uuid7
from flotilla.buses.local import LocalBus
from flotilla.embedded.nats import run_nats
from flotilla.master_key import MasterKeys, new_master_key
from flotilla.nats import connected
from flotilla.service import Compose, HttpBinding, KeysBinding
from flotilla.testing.emitted import RecordingBus, Sent, distinct, steady
from flotilla_contracts.catalog import ASKS, COMMANDS
from flotilla_contracts.envelope import Envelope
from flotilla_contracts.generate import ROOT
from flotilla_contracts.wire import event_stream
from svc_counter.main import compose as counter
from svc_outbox_relay.main import compose as outbox_relay
from svc_projector.main import compose as projector
from svc_scheduler.main import compose as scheduler
from svc_tenant.main import compose as tenant
from svc_web_bff.main import compose as web_bff
from svc_workflow.main import compose as workflow

FOLDER = ROOT / "emitted"
LIMIT_S = 60.0
LOGS = ("counter", "scheduler", "tenant", "workflow", *ADDED)
SERVICES: dict[str, Compose] = {
    "counter": counter,
    "outbox-relay": outbox_relay,
    "projector": projector,
    "scheduler": scheduler,
    "tenant": tenant,
    **ADDED,
    "web-bff": web_bff,
}


async def emit(folder: Path) -> dict[str, str]:
    """Run a fleet in `folder`, use all of it, and return the files of the corpus by their paths."""
    sent: list[Sent] = []
    async with asyncio.timeout(LIMIT_S), AsyncExitStack() as stack:
        server = await stack.enter_async_context(run_nats(folder))
        bindings = Bindings(
            stores={name: f"libsql://{folder}/{name}.db" for name in (*SERVICES, "workflow")},
            nats_url=server.url,
            bus=RecordingBus(Unheard(LocalBus()), sent),
            clock=SystemClock(),
            ids=uuid7,
            chance=random.Random(1),
            services=tuple(SERVICES),
            logs=LOGS,
            http=HttpBinding("127.0.0.1", 0),
            keys=KeysBinding(
                f"libsql://{folder}/keys.db", MasterKeys.parse(new_master_key(b"k" * 32))
            ),
            workflows={"everything.yaml": EVERYTHING, "simple.yaml": SIMPLE},
        )
        running = [await stack.enter_async_context(run(bindings)) for run in SERVICES.values()]
        problems = await _use(str(running[-1].address))
        await stack.enter_async_context(workflow(bindings))  # it hears of nothing before it runs
        await use_workflows(bindings.bus)
        await use_schedules(bindings.bus)
        await use_tenants(bindings.bus)
        await _use_added(bindings.bus)
        published = [
            message for log in bindings.logs for message in await _published(server.url, log)
        ]
    bodies: dict[str, list[str]] = {"problem": problems, "envelope": []}
    for name, body in _named(sent):
        bodies.setdefault(name, []).append(body)
    for headers, payload in published:
        envelope = Envelope.from_headers(headers)
        bodies.setdefault(f"events/{envelope.type}", []).append(steady(payload))
        names = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
        bodies["envelope"].append(steady(json.dumps(names).encode()))
    return {
        f"{name}.json": json.dumps(distinct(texts), indent=2, ensure_ascii=False) + "\n"
        for name, texts in sorted(bodies.items())
    }


async def _use(api: str) -> list[str]:
    """Use every route, and return the problems that were answered."""
    headers = {"X-Tenant-Id": "acme"}
    async with httpx.AsyncClient(base_url=api, headers=headers, timeout=10.0) as client:
        for number, (verb, body) in enumerate(
            [("increment", {"by": 5}), ("decrement", {"by": 2}), ("reset", {})]
        ):
            answer = await client.post(
                f"/v1/counters/visits/{verb}", json=body, headers={"Idempotency-Key": str(number)}
            )
            assert answer.status_code == httpx.codes.OK, answer.text
        token = {"X-Consistency-Token": answer.headers["X-Consistency-Token"]}
        for path in ("/v1/counters/visits", "/v1/counters"):
            assert (await client.get(path, headers=token)).status_code == httpx.codes.OK
        for path in ("/v1/counters/visits/history", "/v1/totals", "/v1/activity", "/readyz"):
            await _until_full(client, path)
        wrong = [
            await client.get("/v1/counters/nobody"),
            await client.post("/v1/counters/visits/increment", json={"by": 0}),
            await client.post(
                "/v1/counters/visits/increment", json={"bye": 1}, headers={"Idempotency-Key": "x"}
            ),
        ]
    return [steady(answer.content) for answer in wrong]


async def _use_added(bus: Bus) -> None:
    for number, (subject, body) in enumerate(ASKED):
        context = Context(tenant="acme", correlation_id="added", idempotency_key=f"added-{number}")
        await bus.request(Request(subject, body.encode(), context))


async def _until_full(client: httpx.AsyncClient, path: str) -> None:
    """Ask until all events have arrived there; whoever calls has a limit."""
    while True:
        answer = await client.get(path)
        said = answer.json()
        if answer.status_code == httpx.codes.OK and (
            len(said.get("items", ())) == 4 or said.get("events") == 4 or said.get("ready")
        ):
            return
        await asyncio.sleep(0.02)


async def _published(url: str, log: str) -> list[tuple[dict[str, str], bytes]]:
    async with connected(url, name="emitted") as nats:
        stream = nats.jetstream()
        last = (await stream.stream_info(event_stream(log))).state.last_seq
        messages = [await stream.get_msg(event_stream(log), n + 1) for n in range(last)]
    return [(dict(message.headers or {}), message.data or b"") for message in messages]


def _named(sent: list[Sent]) -> Iterator[tuple[str, str]]:
    """Yield the name of the contract of everything that was sent; `unknown/…` where none is."""
    asks = {ask.subject: ask for ask in ASKS}
    settled = {(one.subject, one.is_answer): one for one in sent}  # the last: all had arrived
    for one in settled.values():
        ask = asks.get(one.subject)
        if ask is None:
            is_health = one.subject.endswith(".get-health")
            if is_health and not one.is_answer:
                continue  # it has no fields: `{}`
            yield "replies/HealthReply" if is_health else f"unknown/{one.subject}", _still(one.body)
        elif one.is_answer:
            yield f"replies/{ask.reply.__name__}", steady(one.body)
        else:
            kind = "commands" if ask in COMMANDS else "queries"
            yield f"{kind}/{ask.__name__}", steady(one.body)


def _still(body: bytes) -> str:
    """Return a health without how far behind it happened to be."""
    said = json.loads(body)
    if said.get("missing"):  # it was starting
        said |= {"ready": True, "missing": []}
    for lag in (said.get("lag") or {}).values():
        lag.update(events=0, seconds=0.0)
    return json.dumps(said, sort_keys=True)


def main() -> None:
    """Write the corpus again."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = asyncio.run(emit(Path(folder)))
    for old in FOLDER.rglob("*.json"):
        old.unlink()
    for name, text in fresh.items():
        file = FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

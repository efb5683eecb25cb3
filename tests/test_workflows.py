"""Workflows over real services in one process: two replicas, every kind of step, on both stores."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio
from workflow_plays import OF_IT, Play, counting, resetting

from flotilla import Answer, Bindings, Handler, Rejected, Request, SystemClock, Unavailable, uuid7
from flotilla.buses.local import LocalBus
from flotilla.embedded import run_nats, run_postgres
from flotilla.settings import StartRefused
from flotilla.testing import eventually
from flotilla.testing.servers import open_folder
from flotilla_contracts.catalog import COMMANDS
from flotilla_contracts.counter import CounterId, CounterReply, Step
from flotilla_contracts.message import Command, Reply
from flotilla_contracts.workflow import WorkflowReply
from svc_counter.main import compose as counter
from svc_outbox_relay.main import compose as outbox_relay
from svc_projector.main import compose as projector
from svc_workflow.main import compose as workflow

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVICES = ("counter", "projector", "workflow")
MANY, AT_ONCE, MANY_MAX_S = 1000, 50, 90.0


class Give(Command):
    """Move from one counter to another."""

    subject: ClassVar[str] = "cmd.workflow.give"
    reply: ClassVar[type[Reply]] = WorkflowReply

    gift: CounterId
    source: CounterId
    target: CounterId
    by: Step


class Await(Command):
    """Wait for everything that can be waited for."""

    subject: ClassVar[str] = "cmd.workflow.await"
    reply: ClassVar[type[Reply]] = WorkflowReply

    counter_id: CounterId


class Later(Command):
    """Count a moment later."""

    subject: ClassVar[str] = "cmd.workflow.later"
    reply: ClassVar[type[Reply]] = WorkflowReply

    number: int
    counter_id: CounterId


def started_by(command: str, key: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": command,
        "version": 1,
        "trigger": {"command": {"service": "workflow", "command": command}},
        "idempotency_key": key,
        "steps": list(steps),
    }


def moved(verb: str, counter_id: str) -> dict[str, Any]:
    parameters = {"counter_id": f"${{trigger.{counter_id}}}", "by": "${trigger.by}"}
    return {"service": "counter", "command": verb, "parameters": parameters}


QUICKLY = {"attempts_max": 3, "backoff_first_s": 0.05}
GIVE = started_by(
    "give",
    "${trigger.gift}",
    {
        "name": "give",
        "call": moved("increment", "target"),
        "compensation": moved("decrement", "target"),
    },
    {
        "name": "take",
        "call": moved("decrement", "source"),
        "compensation": moved("increment", "source"),
        "retries": QUICKLY,
        "depends_on": ["give"],
    },
    {"name": "note", "call": counting("gifts"), "compensation": None, "depends_on": ["take"]},
)
AWAIT = started_by(
    "await",
    "${trigger.counter_id}",
    {"name": "pause", "timer_s": 0.05},
    {
        "name": "seen",
        "wait_for": {"event": "counter.reset.v1", "where": OF_IT},
        "depends_on": ["pause"],
    },
    {"name": "agreed", "approval": {"by": "fleet-team"}, "depends_on": ["seen"]},
    {
        "name": "last",
        "call": counting("sum", "${steps.seen.result.previous_value}"),
        "compensation": resetting("sum"),
        "depends_on": ["agreed"],
    },
)
LATER = started_by(
    "later",
    "${trigger.number}",
    {"name": "pause", "timer_s": 3},
    {
        "name": "count",
        "call": counting("${trigger.counter_id}"),
        "compensation": None,
        "depends_on": ["pause"],
    },
)


@dataclass
class Replica:
    """A bus of one replica's own: some answers never come, some come never more."""

    fleet: LocalBus
    own: LocalBus = field(default_factory=LocalBus)
    deaf: bool = False
    lost: set[str] = field(default_factory=set)

    async def serve(self, subject: str, handler: Handler) -> None:
        await self.own.serve(subject, handler)

    async def request(self, request: Request) -> Answer:
        if self.own.serves(request.subject):
            return await self.own.request(request)
        answer = await self.fleet.request(request)
        key = request.context.idempotency_key or ""
        if request.context.tenant == "lost" and "/take/" in key and key not in self.lost:
            self.lost.add(key)
            raise Unavailable("the answer is lost, on purpose")
        if self.deaf and "/" in key and request.context.tenant == "dead":
            await asyncio.Event().wait()
        return answer


@dataclass
class World:
    """Counters, relay, projector; and workflows, which a test may start as often as it likes."""

    bindings: Bindings
    bus: LocalBus

    @asynccontextmanager
    async def replica(self, **more: Any) -> AsyncIterator[Replica]:
        bus = Replica(self.bus)
        async with workflow(replace(self.bindings, bus=bus, **more)):
            yield bus

    async def value(self, tenant: str, counter_id: str) -> int:
        play = Play(self.bus, tenant)
        found = await play.ask("qry.projector.get-counter", counter_id=counter_id)
        return CounterReply.model_validate_json(found.body).value

    async def stands(self, tenant: str, **values: int) -> None:
        """Wait until counters stand there."""

        async def they_do() -> bool:
            try:
                return all([v == await self.value(tenant, name) for name, v in values.items()])
            except Rejected:
                return False

        await eventually(they_do, within_s=20, what=f"{tenant}: {values}")


@pytest.fixture(scope="module")
def catalog() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        known = (*COMMANDS, Give, Await, Later)
        patch.setattr("svc_workflow.definitions.COMMANDS", known)
        patch.setenv("FLOTILLA_COUNTER_LOWER_BOUND", "0")
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["libsql", "postgres"])
async def world(
    request: pytest.FixtureRequest,
    catalog: None,  # noqa: ARG001 - what is patched stays so for as long as this world
) -> AsyncIterator[World]:
    with open_folder() as folder:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            server = await enter(run_nats(folder))
            stores = {name: f"libsql://{folder}/{name}.db" for name in SERVICES}
            if request.param == "postgres":
                stores = dict.fromkeys(SERVICES, (await enter(run_postgres(Path(folder)))).dsn)
            bus = LocalBus()
            bindings = Bindings(
                stores=stores,
                nats_url=server.url,
                bus=bus,
                clock=SystemClock(),
                ids=uuid7,
                chance=random.Random(1),
                services=SERVICES,
                logs=("counter", "workflow"),
                workflows={"give.yaml": GIVE, "await.yaml": AWAIT, "later.yaml": LATER},
            )
            for compose in (counter, outbox_relay, projector):
                await enter(compose(bindings))
            yield World(bindings, bus)


async def test_what_is_refused_is_taken_back_and_a_lost_answer_changes_nothing(
    world: World,
) -> None:
    async with world.replica() as bus:
        for tenant in ("happy", "lost", "poor"):
            play = Play(bus, tenant)
            if tenant != "poor":
                await play.count("increment", "a", by=7)
            gift = {"gift": "g", "source": "a", "target": "b", "by": 5}
            await play.ask(Give.subject, **gift)
            again = await play.ask(Give.subject, **gift)
            assert again.replayed, "the same key is the same workflow"
            with pytest.raises(Rejected, match="another input"):
                await play.ask(Give.subject, **gift | {"by": 6})
        for tenant in ("happy", "lost"):
            await Play(bus, tenant).until("give:g", "completed")
            await world.stands(tenant, a=2, b=5, gifts=1)
        assert 1 == len(bus.lost)
        poor = await Play(bus, "poor").until("give:g", "compensated")
        assert "take: 0 - 5 would pass 0" == poor.reason
        await world.stands("poor", b=0)


async def test_timers_events_and_people_let_it_go_on(world: World) -> None:
    async with world.replica() as one, world.replica() as other:
        play = Play(one, "waits")
        await play.count("increment", "c", by=4)
        await play.ask(Await.subject, counter_id="c")
        await play.until("await:c", "now", step="seen")
        await play.count("reset", "c")
        await play.until("await:c", "now", step="agreed")
        elsewhere = Play(other, "waits")
        with pytest.raises(Rejected, match="does not wait for an approval"):
            await elsewhere.tell("answer", "await:c", step="seen", approved=True)
        await elsewhere.tell("answer", "await:c", step="agreed", approved=True)
        await play.until("await:c", "completed")
        await world.stands("waits", sum=4)
        with pytest.raises(Rejected, match="there is nothing to cancel"):
            await play.tell("cancel", "await:c", reason="too late")
        with pytest.raises(Rejected, match="no version 9: there are 1"):
            await play.tell("fork-from", "await:c", step="last", version=9)
        with pytest.raises(Rejected, match="there is no workflow"):
            await play.show("await:nobody")


async def test_another_replica_takes_over_what_a_dead_one_was_doing(world: World) -> None:
    async with world.replica() as alive:
        async with world.replica() as dying:
            dying.deaf = True
            play = Play(dying, "dead")
            await play.count("increment", "a", by=7)
            await play.ask(Give.subject, gift="g", source="a", target="b", by=5)
            await world.stands("dead", b=5)  # it was done; nobody will ever hear of it
        done = await Play(alive, "dead").until("give:g", "completed")
        assert ["done", "done", "done"] == [step.standing for step in done.steps]
        await world.stands("dead", a=2, b=5, gifts=1)


async def test_a_thousand_are_in_flight_at_once_and_each_counts_once(world: World) -> None:
    names = [f"c{n}" for n in range(10)]
    async with world.replica() as one, world.replica() as other, asyncio.timeout(MANY_MAX_S):
        limit = asyncio.Semaphore(AT_ONCE)

        async def start(n: int) -> None:
            async with limit:
                play = Play(one if n % 2 else other, "many")
                await play.ask(Later.subject, number=n, counter_id=names[n % len(names)])

        await asyncio.gather(*(start(n) for n in range(MANY)))
        each = dict.fromkeys(names, MANY // len(names))
        async with asyncio.timeout(MANY_MAX_S):
            while not await _all_over(Play(world.bus, "many")):
                await asyncio.sleep(0.1)
        await world.stands("many", **each)


async def _all_over(play: Play) -> bool:
    left = await play.ask("qry.projector.list-workflows", status="running", limit=1)
    done = await play.ask("qry.projector.list-workflows", status="completed", limit=200)
    return b'"items":[]' in left.body and b'"next_cursor":"' in done.body


async def test_the_list_is_paged_and_chosen_from(world: World) -> None:
    async with world.replica() as bus:
        play = Play(bus, "paged")
        for n in range(5):
            await play.ask(Await.subject, counter_id=f"c{n}")
        await play.until("await:c4", "now", step="seen")
        seen, after = list[str](), None
        while True:
            answer = await play.ask("qry.projector.list-workflows", limit=2, after=after)
            page = play.page(answer)
            seen += [row.instance for row in page.items]
            if (after := page.next_cursor) is None:
                break
        assert [f"await:c{n}" for n in (4, 3, 2, 1, 0)] == seen
        none = await play.ask("qry.projector.list-workflows", workflow="give")
        assert () == play.page(none).items
        everybody = await play.ask(
            "qry.projector.list-workflows", every_tenant=True, workflow="give"
        )
        assert {"happy", "poor"} <= {row.tenant for row in play.page(everybody).items}
        future = await play.ask("qry.projector.list-workflows", since="2100-01-01T00:00:00Z")
        assert () == play.page(future).items
        with pytest.raises(Rejected, match="no cursor of ours"):
            await play.ask("qry.projector.list-workflows", after="?")


async def test_a_wrong_definition_refuses_the_start(world: World) -> None:
    wrong = {"give.yaml": GIVE | {"idempotency_key": "${trigger.gift_id}"}}
    with pytest.raises(StartRefused, match="there is no field of Give 'gift_id'"):
        async with world.replica(workflows=wrong):
            pass
    changed = {"give.yaml": GIVE | {"idempotency_key": "x-${trigger.gift}"}}
    with pytest.raises(StartRefused, match="write version 2"):
        async with world.replica(workflows=changed):
            pass

"""Workflows over the counters' real commands, and ways to play them: for the corpus and for tests."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from flotilla import Answer, Bus, Context, Handler, Request, Unavailable, uuid7
from flotilla_contracts.workflow import ListWorkflows, WorkflowDetail, WorkflowPage

LIMIT_S = 20.0


def counting(counter_id: str, by: Any = 1) -> dict[str, Any]:
    """Return a call that counts up."""
    parameters = {"counter_id": counter_id, "by": by}
    return {"service": "counter", "command": "increment", "parameters": parameters}


def resetting(counter_id: str) -> dict[str, Any]:
    """Return a call that takes all counting back."""
    parameters = {"counter_id": counter_id}
    return {"service": "counter", "command": "reset", "parameters": parameters}


OF_IT = {"counter_id": "${trigger.counter_id}"}
EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "version": 1,
    "owner": "workflows-team",
    "trigger": {"event": "counter.decremented.v1"},
    "idempotency_key": "${trigger.counter_id}",
    "steps": [
        {"name": "first", "call": counting("total"), "compensation": resetting("total")},
        {"name": "pause", "timer_s": 0.01, "depends_on": ["first"]},
        {
            "name": "seen",
            "wait_for": {"event": "counter.reset.v1", "where": OF_IT},
            "depends_on": ["pause"],
        },
        {"name": "agreed", "approval": {"by": "fleet-team"}, "depends_on": ["seen"]},
        {
            "name": "last",
            "call": counting("last", "${steps.seen.result.previous_value}"),
            "retries": {"attempts_max": 2, "backoff_first_s": 0.01},
            "compensation": None,
            "depends_on": ["agreed"],
        },
    ],
}
"""A step of each kind; `Unheard` loses the answers of the last."""
SIMPLE: dict[str, Any] = {
    "name": "simple",
    "version": 1,
    "trigger": {"event": "counter.reset.v1"},
    "idempotency_key": "${trigger.counter_id}",
    "steps": [{"name": "only", "call": counting("seen"), "compensation": None}],
}


@dataclass(frozen=True, slots=True)
class Unheard:
    """A bus that loses every answer to steps called `last`."""

    bus: Bus

    async def serve(self, subject: str, handler: Handler) -> None:
        """Answer requests."""
        await self.bus.serve(subject, handler)

    async def request(self, request: Request) -> Answer:
        """Return the answer, unless it is lost."""
        answer = await self.bus.request(request)
        if "/last/" in (request.context.idempotency_key or ""):
            raise Unavailable("no answer, on purpose")
        return answer


@dataclass(frozen=True, slots=True)
class Play:
    """One tenant's counters and workflows, on a bus."""

    bus: Bus
    tenant: str

    async def ask(self, subject: str, **body: Any) -> Answer:
        """Ask with a key of its own."""
        context = Context(self.tenant, "play", idempotency_key=str(uuid7()))
        return await self.bus.request(Request(subject, json.dumps(body).encode(), context))

    async def count(self, verb: str, counter_id: str, **body: Any) -> Answer:
        """Tell a counter something."""
        return await self.ask(f"cmd.counter.{verb}", counter_id=counter_id, **body)

    async def tell(self, verb: str, instance: str, **body: Any) -> Answer:
        """Tell a workflow something."""
        by = {"by": "ann"}
        return await self.ask(f"cmd.workflow.{verb}", instance=instance, **body, **by)

    async def show(self, instance: str) -> WorkflowDetail:
        """Return where a workflow stands."""
        answer = await self.ask("qry.workflow.get-instance", instance=instance)
        return WorkflowDetail.model_validate_json(answer.body)

    async def until(self, instance: str, status: str, *, step: str = "") -> WorkflowDetail:
        """Return when it stands there, or with `step`: when that step does."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                rows = (await self.list()).items
                if instance in {row.instance for row in rows}:
                    detail = await self.show(instance)
                    steps = {one.name: one.standing for one in detail.steps}
                    if status == (steps[step] if step else detail.status):
                        return detail
                await asyncio.sleep(0.02)

    async def list(self) -> WorkflowPage:
        """Return the last workflows of the tenant."""
        return self.page(await self.ask(ListWorkflows.subject))

    def page(self, answer: Answer) -> WorkflowPage:
        """Return what was listed."""
        return WorkflowPage.model_validate_json(answer.body)

    async def settled(self) -> None:
        """Return when the list says that everything is over."""
        async with asyncio.timeout(LIMIT_S):
            over = {"completed", "compensated"}
            while {row.status for row in (await self.list()).items} - over:
                await asyncio.sleep(0.02)


async def use_workflows(bus: Bus) -> None:
    """Tell workflows everything that they can be told, and let everything happen to them."""
    play = Play(bus, "flow")
    await play.count("increment", "visits", by=5)
    await play.count("decrement", "visits", by=2)
    await play.until("everything:visits", "now", step="seen")
    await play.count("reset", "visits")
    await play.until("simple:visits", "completed")
    await play.until("everything:visits", "now", step="agreed")
    await play.tell("cancel", "everything:visits", reason="wait")
    await play.tell("fork-from", "everything:visits", step="agreed", version=1)
    await play.tell("cancel", "everything:visits", reason="wait again")
    await play.tell("resume", "everything:visits")
    await play.tell("answer", "everything:visits", step="agreed", approved=True, reason="fine")
    await play.until("everything:visits", "stuck")
    await play.tell("compensate", "everything:visits", reason="enough", unknown="not-done")
    await play.until("everything:visits", "compensated")
    await play.until("simple:total", "completed")

    await play.count("increment", "other", by=5)
    await play.count("decrement", "other", by=2)
    await play.until("everything:other", "now", step="seen")
    await play.count("reset", "other")
    await play.until("simple:other", "completed")
    await play.until("everything:other", "now", step="agreed")
    await play.tell("answer", "everything:other", step="agreed", approved=False, reason="no")
    await play.until("everything:other", "compensated")
    await play.settled()

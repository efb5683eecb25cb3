"""A scheduler that is asked everything once, with answers that are the same after every run."""

import asyncio
import json
from typing import Any

from flotilla.bus import Bus, Context, Request
from flotilla_contracts.message import Ask
from flotilla_contracts.scheduler import (
    ChangeSchedule,
    CreateSchedule,
    DeclareSchedules,
    DeleteSchedule,
    FireSchedule,
    GetSchedule,
    ListSchedules,
    PauseSchedule,
    PreviewOccurrences,
    ResumeSchedule,
)

LOOK_AGAIN_S = 0.05


async def use_schedules(bus: Bus) -> None:
    """Use all of it; whoever calls has a limit."""

    async def ask(kind: type[Ask], **body: Any) -> Any:
        key = f"{kind.__name__}:{body.get('schedule_id', '')}"
        context = Context("acme", "emitted", idempotency_key=key)
        answer = await bus.request(Request(kind.subject, json.dumps(body).encode(), context))
        return json.loads(answer.body)

    nightly = {"cron": "0 3 * * *", "time_zone": "Europe/Vienna"}
    await ask(CreateSchedule, schedule_id="late", every_s=1, missed="skip", grace_s=0)
    await ask(CreateSchedule, schedule_id="report", **nightly)
    await ask(ChangeSchedule, schedule_id="report", **nightly, payload={"of": "visits"})
    await ask(PauseSchedule, schedule_id="report")
    await ask(ResumeSchedule, schedule_id="report")
    await ask(FireSchedule, schedule_id="report")
    declared = {"schedule_id": "declared", "every_s": 86_400}
    await ask(DeclareSchedules, owner="workflows", schedules=[declared])
    while not (await ask(GetSchedule, schedule_id="late"))["missed"]:
        await asyncio.sleep(LOOK_AGAIN_S)
    await ask(GetSchedule, schedule_id="report")
    await ask(PreviewOccurrences, **nightly, limit=1)
    await ask(DeleteSchedule, schedule_id="late")
    await ask(DeleteSchedule, schedule_id="declared")
    while [("report", 1)] != [
        (item["schedule_id"], item["fired"]) for item in (await ask(ListSchedules))["items"]
    ]:
        await asyncio.sleep(LOOK_AGAIN_S)

"""One day of a tenant, as everybody can see it: what was answered, what is on the stream, what is shown.

.venv/bin/python tests/day.py      write tests/recordings/day.json again, from the topology `single`

Whatever topology the day is spent in, the recording is the same to the byte. What cannot be is masked:
moments, identifiers that are made up, offsets that other tenants move.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
from fleet import Fleet, count, read

from flotilla.testing.servers import open_folder

RECORDING = Path(__file__).with_name("recordings") / "day.json"
SHOWN_HEADERS = ("content-type", "etag", "idempotency-replayed", "x-consistency-token")
EVENTS = 7
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:\d\d)"), "<moment>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<trace>"),
    (re.compile(r'(?<="offset": )\d+'), "0"),
)


async def spend(fleet: Fleet, tenant: str) -> str:
    """Spend the day as a new tenant; return its recording."""
    seen: list[dict[str, Any]] = []

    def told(answer: httpx.Response) -> httpx.Response:
        headers = {name: answer.headers[name] for name in SHOWN_HEADERS if name in answer.headers}
        seen.append(
            {
                "asked": f"{answer.request.method} {answer.request.url.raw_path.decode()}",
                "status": answer.status_code,
                "headers": headers,
                "body": answer.json() if answer.content else None,
            }
        )
        return answer

    async with fleet.client(tenant) as client:
        opened = told(await count(client, "visits", 5, key="k1"))
        told(await count(client, "visits", 5, key="k1"))
        told(await count(client, "visits", 6, key="k1"))
        told(await count(client, "visits", 2, key="k2", verb="decrement"))
        told(await count(client, "visits", 1, key="k3", If_Match=opened.headers["etag"]))
        told(await count(client, "visits", 0, key="k4"))
        told(await count(client, "visits", key="k5", verb="reset"))
        told(await count(client, "likes", 1, key="k6"))
        last = told(await count(client, "visits", 7, key="k7"))
        token = last.headers["x-consistency-token"]
        shown = told(await read(client, "visits", token))
        same = {"If-None-Match": shown.headers["etag"]}
        told(await client.get("/v1/counters/visits", headers=same))
        told(await client.get("/v1/counters/nobodys"))
        told(await client.get("/v1/counters/visits/history", params={"limit": 2}))
        told(await client.get("/v1/counters", params={"limit": 1}))
        for page in ("/v1/totals", "/v1/activity"):
            told(await caught_up(client, page))
    text = json.dumps({"answers": seen, "events": await _events(fleet, tenant)}, indent=1)
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text.replace(tenant, "<tenant>") + "\n"


async def caught_up(client: httpx.AsyncClient, page: str) -> httpx.Response:
    """Return a page that takes no token, once it says the same twice."""
    answer = await client.get(page)
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(0.3)
            before, answer = answer, await client.get(page)
            if before.content == answer.content:
                return answer


async def _events(fleet: Fleet, tenant: str) -> list[dict[str, Any]]:
    async with fleet.broker("operator") as connection:
        subscription = await connection.jetstream().subscribe(
            f"evt.counter.{tenant}.>", stream="EVT_COUNTER", ordered_consumer=True
        )
        messages = [await subscription.next_msg(timeout=10) for _ in range(EVENTS)]
    return [
        {
            "subject": message.subject,
            "headers": {
                name: value
                for name, value in sorted((message.headers or {}).items())
                if not name.lower().startswith("nats-")  # how it was published, not what it says
            },
            "payload": json.loads(message.data),
        }
        for message in messages
    ]


async def _record() -> None:
    with open_folder() as folder:
        fleet = Fleet("single", folder)
        await fleet.start()
        try:
            recording = await spend(fleet, "somebody")
        finally:
            await fleet.stop()
    RECORDING.parent.mkdir(exist_ok=True)
    RECORDING.write_text(recording)


if __name__ == "__main__":
    asyncio.run(_record())

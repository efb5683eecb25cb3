"""A process full of callers of the command path: `python -m chaos.store_callers <dsn> <name>`.

Lanes, execute and group commit on a PostgreSQL store, as svc-counter composes them, without a bus.
Two of these are replicas of one service. It talks in JSON lines: `{"ready": …}` goes out; a round
`{"begin": <round>, "seed": n, "tenants": […], "settle_max_s": s}`, `{"over": …}` and `{"give_up": …}`
come in; whether all was settled in time, and the history, go out.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from chaos.history import Command, Heard
from chaos.load import Load, Send
from flotilla import (
    Aggregate,
    Claim,
    ContractCodec,
    Decision,
    GroupCommitter,
    Lanes,
    StreamId,
    SystemClock,
    Version,
    execute,
    uuid7,
)
from flotilla.errors import Conflict, Unavailable, VersionMismatch
from flotilla.store import ClaimKey
from flotilla.stores.postgres import PostgresStore
from flotilla_contracts.counter import (
    EVENTS,
    SERVICE,
    CounterReply,
    DecrementCounter,
    IncrementCounter,
)
from svc_counter.domain.counter import Bounds, Counter, Event, decider
from svc_counter.main import CounterSnapshots

CALLERS = 16
PACE_S = 0.004
ANSWER_MAX_S = 40.0
"""Longer than all time-outs of the store together: beyond it, a caller was forgotten."""
TTL_S = 3600
SNAPSHOT_EVERY_EVENTS = 20
BOUND = 10**15
_RULES = decider(Bounds(-BOUND, BOUND))


def _decision(command: Command) -> Decision[Counter, Event]:
    tenant, _, counter = command.stream.split("/")
    kind = IncrementCounter if command.by > 0 else DecrementCounter
    asked = kind(counter_id=counter, by=abs(command.by))

    def reply(state: Counter, version: Version) -> bytes:
        answer = CounterReply(counter_id=counter, value=state.value, version=version)
        return answer.model_dump_json().encode()

    return Decision(
        decide=partial(_RULES.decide, asked),
        reply=reply,
        metadata={"correlation": command.key},
        claim=Claim(ClaimKey(tenant, "counter", command.key), command.key.encode(), TTL_S),
        expected=None if command.expected is None else Version(command.expected),
    )


@asynccontextmanager
async def command_path(dsn: str) -> AsyncIterator[Send]:
    """Lend what sends a command down the whole path."""
    async with PostgresStore.open(dsn, service=SERVICE) as store:
        committer = GroupCommitter(store, flights_max=store.flights_max)
        aggregate = Aggregate(
            _RULES,
            ContractCodec(EVENTS),
            store,
            committer.commit,
            SystemClock(),
            uuid7,
            random.Random(),
            CounterSnapshots(SNAPSHOT_EVERY_EVENTS),
        )
        lanes: Lanes[Counter, Event] = Lanes(partial(execute, aggregate))

        async def send(command: Command) -> Heard:
            try:
                async with asyncio.timeout(ANSWER_MAX_S):
                    done = await lanes.settle(StreamId(command.stream), _decision(command))
            except (Unavailable, Conflict) as error:
                return Heard("unknown", f"{error.code}: {error}")
            except VersionMismatch as error:
                return Heard("refused", str(error))
            except TimeoutError:
                return Heard("wrong", f"no answer for {ANSWER_MAX_S:g} s")
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                return Heard("wrong", repr(error))
            told = CounterReply.model_validate_json(done.reply)
            return Heard("ok", "", told.value, told.version, done.replayed)

        yield send
        await lanes.drain()


async def serve(dsn: str, name: str) -> None:
    """Run the rounds that stdin asks for."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with command_path(dsn) as send:
        say({"ready": True})
        while line := await lines.readline():
            asked: dict[str, Any] = json.loads(line)
            load = Load(
                f"{asked['begin']}-{name}",
                tuple(asked["tenants"]),
                send,
                SystemClock(),
                random.Random(asked["seed"]),
                pace_s=PACE_S,
            )
            running = asyncio.create_task(load.run(CALLERS))
            for flag in (load.over, load.given_up):
                await lines.readline()
                flag.set()
                if flag is load.over:
                    await asyncio.wait([running], timeout=asked["settle_max_s"])
                    say({"settled": running.done()})
            await running
            say(load.history.to_json())


def say(document: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))

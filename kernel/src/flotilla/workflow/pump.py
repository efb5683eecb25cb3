"""The pump: takes what is due, asks services for what instances want, and tells them what became of it.

    claim ──▶ Wake ──▶ StepAttempted … ──▶ ask, under its key ──▶ Report ──▶ StepAttempted …
                                                                    └─ nothing more to ask: done

Whoever made a `StepAttempted` durable asks for it; so a workflow runs through in the worker that began
it, with one commit a step. Everybody who lives claims what is due: a timer that ends, a pause that is
over, a try of which nobody has heard since its `until`. That is all there is to recovery.

- dies between claim and Wake: the claim ends, somebody else wakes it;
- dies after StepAttempted, before or while asking, or before Report: `until` passes, it is asked again
  under the same key, and the service answers what it answered (or does it for the first time);
- is paused past `until`: does not ask any more; an answer that comes late is told, and accepted if
  nobody else was faster, or dropped: the version of the stream decides;
- the store is away: nothing is decided, and nothing asked.

Time is the store's: its clock was read at the last claim, and ours only says how long ago that was.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from flotilla.background import Background
from flotilla.bus import Answer, Context, Request
from flotilla.clock import Clock
from flotilla.due import Claimed, DueStore
from flotilla.errors import Conflict, KernelError, Rejected, Unavailable
from flotilla.store import StreamId, tenant_of
from flotilla.workflow.asked import Command, NotDone, Report, Succeeded, Unknown, Wake
from flotilla.workflow.events import StepAttempted
from flotilla.workflow.instances import AGGREGATE, Instances, Told
from flotilla.workflow.moving import TRY_TIMEOUT_S, call_of, parameters
from flotilla.workflow.state import wake

CONCURRENCY_MAX = 1024
"""Instances that one worker moves at a time."""
ASKING_MAX = 256
"""Commands that it asks for at a time."""
LEASE_S = 10.0
"""How long a claim hides an instance that is then not moved."""
POLL_MIN_S, POLL_MAX_S = 0.01, 0.5
RESULT_BYTES_MAX = 64 * 1024

log = structlog.get_logger()


@dataclass(slots=True)
class Pump:
    """One worker. `request` asks a service (`Bus.request`)."""

    instances: Instances
    due: DueStore
    request: Callable[[Request], Awaitable[Answer]]
    clock: Clock
    concurrency_max: int = CONCURRENCY_MAX
    lease_s: float = LEASE_S
    poll_max_s: float = POLL_MAX_S
    """How late it may hear of what others have made due."""
    _asking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ASKING_MAX))
    _working: set[asyncio.Task[None]] = field(default_factory=set)
    _told_at: tuple[datetime, float] | None = None
    _sooner: asyncio.Event = field(default_factory=asyncio.Event)
    _sleeps_until_s: float = field(default=0.0)

    async def run(self, shown: Background) -> None:
        """Move what is due, until cancelled."""
        try:
            while True:
                free = self.concurrency_max - len(self._working)
                claimed = await self._claim(free)
                for due in claimed.due:
                    self._work(self._wake(due.stream))
                shown.recovered()
                await self._pause(claimed, free)
        finally:
            await self.stop()

    async def tell(self, stream: StreamId, command: Callable[[datetime], Command]) -> Told:
        """Tell an instance something, at the store's time; what follows is asked for in the background.

        Raises:
            Unavailable: this worker has enough to do already, or the store does not answer.
            Rejected: the instance refuses.

        """
        if len(self._working) >= self.concurrency_max:
            raise Unavailable(f"{len(self._working)} workflows are moving here; back off")
        if self._told_at is None:
            await self._claim(0)
        told = await self._tell(stream, command(self.now()))
        if told.attempts:
            self._work(self._follow(stream, told))
        return told

    @property
    def moving(self) -> int:
        """How many instances are moved here at the moment."""
        return len(self._working)

    def now(self) -> datetime:
        """Return the store's time, as far as it is known here."""
        if self._told_at is None:
            raise Unavailable("the store was not asked yet what time it is")
        then, at_s = self._told_at
        return then + timedelta(seconds=self.clock.monotonic_s() - at_s)

    async def drain(self) -> None:
        """Return when nothing moves here any more."""
        while self._working:
            await asyncio.wait(self._working)

    async def stop(self) -> None:
        """Let go of everything: whoever lives takes it over when its time has come."""
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)

    async def _claim(self, limit: int) -> Claimed:
        claimed = await self.due.claim(AGGREGATE, limit=limit, lease_s=self.lease_s)
        self._told_at = (claimed.now, self.clock.monotonic_s())  # never ahead of it
        return claimed

    async def _pause(self, claimed: Claimed, free: int) -> None:
        """Wait for the next moment at which there may be something to do."""
        if len(claimed.due) >= free:
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
            return
        next_s = self.poll_max_s if claimed.next_in_s is None else claimed.next_in_s
        pause_s = min(self.poll_max_s, max(POLL_MIN_S, next_s))
        self._sleeps_until_s = self.clock.monotonic_s() + pause_s
        self._sooner.clear()
        sleeping = asyncio.ensure_future(self.clock.sleep(pause_s))
        hearing = asyncio.ensure_future(self._sooner.wait())
        try:
            await asyncio.wait([sleeping, hearing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            hearing.cancel()

    async def _tell(self, stream: StreamId, command: Command) -> Told:
        told = await self.instances.tell(stream, command)
        at = wake(told.instance).at
        if (
            at
            and (at - self.now()).total_seconds() + self.clock.monotonic_s() < self._sleeps_until_s
        ):
            self._sooner.set()
        return told

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _wake(self, stream: StreamId) -> None:
        try:
            told = await self._tell(stream, Wake(self.now()))
        except Exception as error:  # noqa: BLE001 - one instance must not stop the others
            log.warning("workflow.not_woken", stream=stream, error=repr(error))
            return  # it is due again when the claim has ended
        await self._follow(stream, told)

    async def _follow(self, stream: StreamId, told: Told) -> None:
        """Ask for what was decided, and for what follows from the answers."""
        await asyncio.gather(*(self._ask(stream, told, tried) for tried in told.attempts))

    async def _ask(self, stream: StreamId, told: Told, tried: StepAttempted) -> None:
        async with self._asking:
            outcome = await self._outcome(stream, told, tried)
        if outcome is None:
            return
        try:
            after = await self._tell(stream, Report(tried, outcome, self.now()))
        except Exception as error:  # noqa: BLE001 - nobody has heard; it will be asked again
            log.warning("workflow.not_reported", stream=stream, step=tried.step, error=repr(error))
            return
        await self._follow(stream, after)

    async def _outcome(
        self, stream: StreamId, told: Told, tried: StepAttempted
    ) -> Succeeded | NotDone | Unknown | None:
        """Ask once, and return what became of it; None when it is too late to ask."""
        left_s = (tried.until - self.now()).total_seconds()
        if left_s <= 0:
            return None
        definition = self.instances.book.by_hash(told.instance.definition)
        step = definition.by_name[tried.step]
        call = call_of(step, undo=tried.undo)
        body = json.dumps(parameters(told.instance, step, undo=tried.undo), ensure_ascii=False)
        context = Context(
            tenant_of(stream),
            correlation_id=stream,
            idempotency_key=idempotency_key(stream, tried),
            timeout_s=min(TRY_TIMEOUT_S, left_s),
        )
        asked = Request(call.subject, body.encode(), context)
        try:
            async with asyncio.timeout(left_s):
                return _answered(await self.request(asked))
        except Exception as error:  # noqa: BLE001 - whatever it was, the instance has to know
            return _not_answered(error)


def _answered(answer: Answer) -> Succeeded | Unknown:
    if len(answer.body) > RESULT_BYTES_MAX:
        return Unknown("result-too-large", f"{len(answer.body)} bytes were answered")
    return Succeeded(json.loads(answer.body or b"null"))


def _not_answered(error: Exception) -> NotDone | Unknown:
    match error:
        case Rejected():
            return NotDone(error.code, str(error), final=True)
        case Conflict():
            return NotDone(error.code, str(error), final=False)
        case KernelError():
            return Unknown(error.code, str(error))
        case _:
            return Unknown("no-answer", repr(error)[:200])


def idempotency_key(stream: StreamId, tried: StepAttempted) -> str:
    """Return what makes this attempt one: the same for each try of it, and for nothing else."""
    what = f"{tried.step}:undo" if tried.undo else tried.step
    return f"{stream.split('/', 2)[2]}/{what}/{tried.attempt}"

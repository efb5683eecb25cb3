"""One `flotilla serve` as a child: started, watched, started again, ended.

    starting --serves--> running --ends--> backing off --> starting
        |                   |                  |
        | the first time:   | stop()           | ended at once `FAILURES_MAX` times in a row,
        | ends, too slow    v                  v or for a reason that no restart cures
        v                stopping           Failure
     Failure

If we die, the kernel kills the child (Linux): its servers die with us, and everything that was
acknowledged is in the store. Its environment carries secrets; its command line none.
"""

import asyncio
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import structlog
from pydantic import ValidationError

from flotilla.clock import Clock
from flotilla.embedded.child import death_signal, exited
from flotilla_platform.answering import PROGRAM
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.lines import LINE_BYTES_MAX, Lines, lines_of
from flotilla_platform.runtime import ProcessState, Serving

START_TIMEOUT_S = 90.0
"""It gives up by itself before that, with better words."""
FAILURES_MAX = 5
STEADY_AFTER_S = 5.0
"""Who has served for that long has not failed at once."""
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
COMPLAINT_LINES_MAX = 20

_PIPES_TIMEOUT_S = 1.0
_INCURABLE = {
    ExitCode.USAGE,
    ExitCode.MODEL_INVALID,
    ExitCode.SETTING_INVALID,
}
"""What the next start would only say again."""

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class SupervisedProcess:
    """A replica of a deployable; nothing runs before `start`."""

    deployable: str
    replica: int
    listens: bool
    """Whether requests come in from outside here: it is stopped first."""
    arguments: Sequence[str]
    """Of `flotilla`; no secrets."""
    environment: Mapping[str, str]
    lines: Lines
    clock: Clock
    chance: random.Random
    changed: Callable[[], None]
    """Called whenever `state` is another one."""

    state: ProcessState = field(init=False)
    serving: Serving | None = field(default=None, init=False)
    _process: Process | None = field(default=None, init=False)
    _pipes: list[asyncio.Task[None]] = field(default_factory=list, init=False)
    _serves: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _complaint: deque[str] = field(
        default_factory=lambda: deque(maxlen=COMPLAINT_LINES_MAX), init=False
    )

    def __post_init__(self) -> None:
        self.state = ProcessState(
            deployable=self.deployable,
            replica=self.replica,
            state="starting",
            since=self.clock.now(),
            pid=None,
            admin=None,
        )

    @property
    def name(self) -> str:
        """Return what it is called in logs."""
        return self.state.name

    async def start(self) -> None:
        """Start it, and return when it serves.

        Raises:
            Failure: it ended, with its own status and words; or was not there in time.

        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if not await self._attempt():
                    raise self._failure("did not start")
        except TimeoutError:
            raise Failure(
                ExitCode.SERVICE_FAILED,
                f"the process {self.name} does not serve after {START_TIMEOUT_S:g} s",
            ) from None

    async def watch(self) -> None:
        """Start it again whenever it ends; returns only by raising.

        Raises:
            Failure: it ends at once again and again, or for a reason that no restart cures.

        """
        failures = 0
        while True:
            serves, since_s = self._serves.is_set(), self.clock.monotonic_s()
            status = await self._ended()
            steady = serves and self.clock.monotonic_s() - since_s > STEADY_AFTER_S
            failures = 1 if steady else failures + 1
            if status in _INCURABLE or failures >= FAILURES_MAX:
                raise self._failure(f"ended {failures} times in a row")
            pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (failures - 1))
            pause_s *= 0.5 + self.chance.random() / 2
            log.warning(
                "process.ended",
                process=self.name,
                status=status,
                failures=failures,
                again_in_s=round(pause_s, 3),
                said=" ".join(self._complaint),
            )
            self._show("backing-off", last_exit=status)
            await self.clock.sleep(pause_s)
            self._show("starting", restarts=self.state.restarts + 1)
            if await self._attempt():
                log.info("process.serves_again", process=self.name, pid=self.state.pid)

    async def stop(self, within_s: float) -> bool:
        """Stop it: politely, and after `within_s` by SIGKILL. Return whether it stopped politely."""
        process = self._process
        if process is None:
            return True
        self._show("stopping")
        with suppress(ProcessLookupError):
            process.terminate()
        polite = await exited(process, within_s)
        self._kill()
        await self._pipes_closed()
        return polite

    async def _attempt(self) -> bool:
        """Start it; return True when it serves, False when it ended instead."""
        self._serves.clear()
        self._complaint.clear()
        sticky = {}
        if self.serving and self.serving.api:  # where clients know it to be
            sticky["FLOTILLA_HTTP_PORT"] = str(urlsplit(self.serving.api).port)
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flotilla_platform", *self.arguments),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env={**self.environment, **sticky},
            limit=LINE_BYTES_MAX,
            start_new_session=True,  # a terminal's Ctrl-C is ours, and we stop it in its turn
            preexec_fn=death_signal(signal.SIGKILL),
        )
        self._show("starting", pid=process.pid, admin=None)
        self._pipes = [
            asyncio.create_task(self._read(pipe), name=f"{self.name} {n}")
            for n, pipe in enumerate((process.stdout, process.stderr), start=1)
            if pipe is not None
        ]
        serves = asyncio.create_task(self._serves.wait())
        ends = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({serves, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serves.cancel()
            ends.cancel()
        if not self._serves.is_set():
            await self._pipes_closed()
        return self._serves.is_set()

    async def _ended(self) -> int:
        """Return the status with which the process ended, when it has."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        status = await self._process.wait()
        await self._pipes_closed()
        return status

    async def _pipes_closed(self) -> None:
        """Wait for the last words."""
        if self._pipes:
            await asyncio.wait(self._pipes, timeout=_PIPES_TIMEOUT_S)
        for pipe in self._pipes:
            pipe.cancel()

    async def _read(self, pipe: asyncio.StreamReader) -> None:
        async for line in lines_of(pipe):
            if line.startswith(b'{"deployable"') and not self._serves.is_set():
                with suppress(ValidationError):
                    self.serving = Serving.model_validate_json(line)
                    self._show("running", admin=self.serving.admin)
                    self._serves.set()
                    continue
            text = line.decode(errors="replace")
            if text.startswith(f"{PROGRAM}: "):
                self._complaint.append(text.removeprefix(f"{PROGRAM}: "))
            self.lines.write(self.deployable, self.replica, line)

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _failure(self, what: str) -> Failure:
        status = self._process.returncode if self._process else None
        telling = set(ExitCode) - {ExitCode.OK, ExitCode.INTERRUPTED}
        code = next((code for code in telling if code == status), ExitCode.SERVICE_FAILED)
        said = "; ".join(self._complaint) or f"status {status}, it said nothing"
        return Failure(code, f"the process {self.name} {what}: {said}")

    def _show(
        self,
        state: Literal["starting", "running", "backing-off", "stopping"],
        **more: object,
    ) -> None:
        pid = {} if state in {"running", "stopping"} else {"pid": None, "admin": None}
        update = {"state": state, "since": self.clock.now(), **pid, **more}
        self.state = self.state.model_copy(update=update)
        self.changed()

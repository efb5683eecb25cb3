"""Gates, run: some at a time, the longest first, each within its limit, green ones not again.

A gate's processes are a group of their own and end with it, also when this one is interrupted.
What is green is kept by the hash of its inputs; what is red is never kept.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flotilla.clock import Clock
from flotilla_platform.harness.parts import STAGES
from flotilla_platform.harness.selecting import Gate

FOLDER = ".flotilla-gates"
TAIL_LINES = 60
END_S = 5
Outcome = Literal["green", "red", "late", "unaffected", "not-run"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a gate ended."""

    gate: Gate
    outcome: Outcome
    seconds: float = 0.0
    cached: bool = False
    why: tuple[str, ...] = ()
    log: Path | None = None

    @property
    def bad(self) -> bool:
        """Return whether nobody may go on: what did not run is not green."""
        return self.outcome in ("red", "late", "not-run")

    def tail(self) -> str:
        """Return the end of what it said."""
        if self.log is None or not self.log.is_file():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


@dataclass(slots=True)
class Runner:
    """Runs gates of the checkout at `root`, at most `jobs` at once, for `budget_s` at most."""

    root: Path
    words: Mapping[str, str]
    """What stands for `{bin}` and `{uv}`."""
    clock: Clock
    jobs: int = 2
    budget_s: float = 7200.0
    fresh: bool = False
    told: Callable[[str, Result | None], None] = lambda _name, _result: None
    """Called with a name when a gate starts, and with its result when it ended."""
    _busy: set[str] = field(default_factory=set)

    async def run(self, wanted: Sequence[tuple[Gate, str]]) -> list[Result]:
        """Run gates, each with the hash of its inputs; a stage begins when the one before ended."""
        began_s, results = self.clock.monotonic_s(), list[Result]()
        for stage in STAGES:
            pending = [one for one in wanted if one[0].stage == stage]
            pending.sort(key=lambda one: -one[0].rule.expected_s)
            async with asyncio.TaskGroup() as group:
                for _ in range(self.jobs):
                    group.create_task(self._work(pending, results, began_s))
        return results

    async def _work(
        self, pending: list[tuple[Gate, str]], results: list[Result], began_s: float
    ) -> None:
        while pending:
            free = (one for one in pending if one[0].rule.alone_with not in self._busy)
            one = next(free, None)
            if one is None:
                await asyncio.sleep(0.05)
                continue
            pending.remove(one)
            gate, inputs = one
            left_s = self.budget_s - (self.clock.monotonic_s() - began_s)
            if alone := gate.rule.alone_with:
                self._busy.add(alone)
            try:
                result = await self._one(gate, inputs, left_s)
            finally:
                self._busy.discard(alone or "")
            results.append(result)
            self.told(gate.name, result)

    async def _one(self, gate: Gate, inputs: str, left_s: float) -> Result:
        folder = self.root / FOLDER / gate.name
        folder.mkdir(parents=True, exist_ok=True)
        log, kept = folder / "log", folder / "green"
        if not self.fresh and kept.is_file() and kept.read_text(encoding="utf-8") == inputs:
            return Result(gate, "green", cached=True, log=log)
        if left_s <= 0:
            return Result(gate, "not-run")
        self.told(gate.name, None)
        kept.unlink(missing_ok=True)
        began_s = self.clock.monotonic_s()
        outcome: Outcome = "green"
        with log.open("wb") as into:
            try:
                async with asyncio.timeout(min(gate.rule.limit_s, left_s)):
                    for command in gate.run:
                        if await self._command(command, into.fileno()) != 0:
                            outcome = "red"
                            break
            except TimeoutError:
                outcome = "late"
        if outcome == "green":
            kept.write_text(inputs, encoding="utf-8")
        return Result(gate, outcome, self.clock.monotonic_s() - began_s, log=log)

    async def _command(self, command: Sequence[str], log: int) -> int:
        argv = [self._filled(part) for part in command]
        os.write(log, f"$ {' '.join(argv)}\n".encode())
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=self.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            os.write(log, f"{argv[0]}: {error.strerror}\n".encode())
            return 127
        try:
            return await process.wait()
        finally:
            await _end(process)

    def _filled(self, part: str) -> str:
        for word, value in self.words.items():
            part = part.replace(f"{{{word}}}", value)
        return part


async def _end(process: asyncio.subprocess.Process) -> None:
    """End whatever is left of a command's group; what does not go when asked is killed."""
    for how, wait_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            return
        if process.returncode is None:
            try:
                async with asyncio.timeout(wait_s):
                    await process.wait()
            except TimeoutError:
                continue

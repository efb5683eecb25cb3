"""One supervised child process that must never outlive us.

    stopped --start()--> starting --ready--> running --dies--> restarting --ready--> running
                            |                   |              |    ^   |
                            | exits, too slow   | stop()       +----+   | stop()
                            v                   v        fails: log,    v
                      EmbeddedError          stopped     wait longer   stopped

The first start fails at once and clearly; only a server that has been ready is started again, for
as long as it takes. If *we* die, the kernel signals the child (Linux), and whatever is still there
at the next start is stopped first (`stop_leftover`). Every wait has a limit.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import structlog

from flotilla.embedded.errors import EmbeddedError

STOP_TIMEOUT_S = 3.0
"""How long a server may take to stop politely; with the two harsher steps, under five seconds."""

_HARSHER_TIMEOUT_S = 0.75
_POLL_S = 0.02
_RETRY_S = 0.1
_RESTART_DELAY_FIRST_S = 0.1
_RESTART_DELAY_MAX_S = 5.0
_STEADY_AFTER_S = 10.0
_LOG_SIZE_MAX_BYTES = 16 * 1024**2
_LOG_TAIL_MAX_BYTES = 64 * 1024
_LOG_TAIL_MAX_LINES = 20
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


class Account(NamedTuple):
    """The user and group a child runs as, when not as ourselves."""

    uid: int
    gid: int


@dataclass(kw_only=True, eq=False)
class ChildProcess:
    """A server program, its log file and its supervisor; nothing runs before `start`."""

    name: str
    command: Sequence[str | Path]
    """The program and its arguments; paths are absolute."""
    is_ready: Callable[[], Awaitable[bool]]
    """Asks the server itself whether it serves; answers soon, and never raises."""
    prepare: Callable[[], None] = lambda: None
    """Called before each start."""
    log_file: Path
    stop_signal: signal.Signals
    harsher_signal: signal.Signals
    important: str
    """A pattern for the log line that says why a start failed; the first one is the cause."""
    passing: str = r"(?!)"
    """A pattern for causes that pass by themselves: try again instead of giving up."""
    cure: str = ""
    account: Account | None = None
    supervise: bool = True
    start_timeout_s: float = 60.0
    on_exit: Callable[[int], None] | None = None
    """Called with the exit status whenever the child ends without having been asked to."""

    _log_start: int = field(default=0, init=False)
    _process: Process | None = field(default=None, init=False)
    _watcher: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process id of the current child, or of the last one while none runs."""
        if self._process is None:
            message = f"{self.name} was never started"
            raise RuntimeError(message)
        return self._process.pid

    async def start(self) -> None:
        """Start the server and return when it serves; raises `EmbeddedError` and leaves nothing."""
        if self._watcher is not None and not self._watcher.done():
            return
        await self._launch()
        self._watcher = asyncio.create_task(self._watch(), name=f"watch-{self.name}")

    async def stop(self) -> None:
        """Stop the server and its supervisor: politely, then harshly; in under five seconds."""
        watcher, self._watcher = self._watcher, None
        try:
            if watcher is not None:
                watcher.cancel()
                await asyncio.wait([watcher], timeout=STOP_TIMEOUT_S)
        finally:
            await self._end()

    async def kill(self) -> None:
        """Kill the child with SIGKILL, as a crash would; the supervisor is not told."""
        process = self._process
        if process is not None:
            _send(process, signal.SIGKILL)
            await exited(process, STOP_TIMEOUT_S)

    async def _launch(self) -> None:
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while not await self._attempt():  # noqa: ASYNC110 - another process, no event
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            raise self._failure(f"was not ready within {self.start_timeout_s:g} s") from None

    async def _attempt(self) -> bool:
        """Start the program; False when it ended for a reason that passes."""
        try:
            self.prepare()
            with open_log(self.log_file) as output:
                self._log_start = output.tell()
                process = await spawn(
                    self.command, output, self.account, die_with_us=self.stop_signal
                )
            self._process = process
            while not await self.is_ready():
                if await exited(process, _POLL_S):
                    self._give_up_unless_passing(process.returncode)
                    return False
        except BaseException:  # also when cancelled: a start that is given up leaves no child
            await self._end()
            raise
        return True

    def _give_up_unless_passing(self, status: int | None) -> None:
        failure = self._failure(f"ended with status {status}")
        if not re.search(self.passing, failure.log_tail):
            raise failure

    def _failure(self, what: str) -> EmbeddedError:
        tail = log_tail(self.log_file, self._log_start)
        lines = tail.splitlines()
        causes = (i for i, line in enumerate(lines) if re.search(self.important, line))
        cause = next(causes, max(len(lines) - 1, 0))
        said = " ".join(lines[cause : cause + 3])  # a detail and a hint may follow
        return EmbeddedError(
            "server-failed",
            f"{self.name} {what}: {said or 'it said nothing'} (log: {self.log_file}){self.cure}",
            log_tail=tail,
        )

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            for number, limit_s in (
                (self.stop_signal, STOP_TIMEOUT_S),
                (self.harsher_signal, _HARSHER_TIMEOUT_S),
                (signal.SIGKILL, _HARSHER_TIMEOUT_S),
            ):
                _send(process, number)
                if await exited(process, limit_s):
                    return
            log.error("embedded.server_does_not_end", server=self.name, pid=process.pid)
        except asyncio.CancelledError:
            _send(process, self.harsher_signal)
            raise

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop()
        delay_s = _RESTART_DELAY_FIRST_S
        while self._process is not None:
            ready_at_s = clock.time()
            status = await self._process.wait()
            where = {"server": self.name, "log": str(self.log_file)}
            log.warning("embedded.server_died", status=status, restart=self.supervise, **where)
            if self.on_exit is not None:
                clock.call_soon(self.on_exit, status)  # its exceptions are not ours
            if not self.supervise:
                return
            if clock.time() - ready_at_s > _STEADY_AFTER_S:
                delay_s = _RESTART_DELAY_FIRST_S
            restarted = False
            while not restarted:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RESTART_DELAY_MAX_S)
                try:
                    await self._launch()
                    restarted = True
                except Exception as error:  # noqa: BLE001 - a supervisor must not die of anything
                    log.warning("embedded.restart_failed", error=str(error), **where)
            log.info("embedded.server_restarted", pid=self.pid, **where)


async def spawn(
    command: Sequence[str | Path],
    output: IO[bytes],
    account: Account | None,
    *,
    die_with_us: signal.Signals,
) -> Process:
    """Start a program in a session of its own, with a clean environment and both outputs in a log.

    Call it from the main thread's event loop: the kernel sends `die_with_us` when the *thread* that
    forked ends, not only when the process does. It has a session of its own so that a terminal's
    Ctrl-C reaches us alone, and the server is still there while we drain.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",  # ours may be closed to the account
            env={"PATH": os.defpath, "LC_ALL": "C"},
            start_new_session=True,
            user=account and account.uid,
            group=account and account.gid,
            extra_groups=account and (),
            preexec_fn=death_signal(die_with_us),  # after the user changed, which would clear it
        )
    except OSError as error:
        raise EmbeddedError(
            "server-missing",
            f"{command[0]} cannot be started ({error.strerror}): install flotilla[embedded] where "
            "its user may run programs",
        ) from error


async def stop_leftover(pid_file: Path, argument: Path, *signals: signal.Signals) -> None:
    """Stop the server that an earlier run has left behind, if it is really that server.

    The first line of `pid_file` names it, and its command line must contain `argument`: a pid that
    now belongs to somebody else is left alone. Each signal gets `STOP_TIMEOUT_S` to work.
    """
    pid = _read_pid(pid_file)
    for number in signals:
        if not pid or str(argument) not in await _command_line(pid):
            return
        log.warning("embedded.leftover_stopped", pid=pid, signal=number.name)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                while str(argument) in await _command_line(pid):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_POLL_S)
                return
    raise EmbeddedError(
        "data-directory-in-use",
        f"{argument} is still served by process {pid}, which does not end: stop it yourself",
    )


async def _command_line(pid: int) -> str:
    """Return a process's command line; empty when it is gone, a zombie included."""
    if sys.platform == "linux":
        return _proc_command_line(pid)
    ps = await asyncio.create_subprocess_exec(
        "ps", "-ww", "-o", "command=", "-p", str(pid), stdout=PIPE, stderr=DEVNULL
    )
    async with asyncio.timeout(STOP_TIMEOUT_S):
        return os.fsdecode((await ps.communicate())[0])


def _proc_command_line(pid: int) -> str:
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
    return ""


def _read_pid(pid_file: Path) -> int:
    with suppress(FileNotFoundError, ValueError, IndexError):
        return int(pid_file.read_bytes().split(maxsplit=1)[0])
    return 0


def death_signal(number: signal.Signals) -> Callable[[], None] | None:
    """Return what a child does between fork and exec, so that it gets `number` when we die (Linux).

    For `preexec_fn`: two system calls, prepared here. See `spawn` for which thread may fork.
    """
    if sys.platform != "linux":
        return None  # elsewhere, stop_leftover at the next start is what there is
    prctl = ctypes.CDLL(None).prctl
    us = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != us:  # we died before the kernel knew that it should tell
            os._exit(1)

    return ask


def _send(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


async def exited(process: Process, limit_s: float) -> bool:
    """Wait up to `limit_s` for a process to end, and say whether it has."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await process.wait()
    return process.returncode is not None


def open_log(file: Path) -> IO[bytes]:
    """Open a log for appending; one old one is kept, so that logs stay bounded across starts."""
    if file.exists() and file.stat().st_size > _LOG_SIZE_MAX_BYTES:
        file.replace(file.with_name(f"{file.name}.old"))
    output = file.open("ab")
    output.seek(0, os.SEEK_END)
    return output


def log_tail(file: Path, start: int) -> str:
    """Return the last lines written after the offset `start`."""
    with suppress(OSError), file.open("rb") as written:
        end = written.seek(0, os.SEEK_END)
        written.seek(max(start, end - _LOG_TAIL_MAX_BYTES))
        lines = written.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_MAX_LINES:])
    return ""

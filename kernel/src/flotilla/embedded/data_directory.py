"""The data directory of an embedded topology: one owner at a time, and never somebody else's files.

    <path>/lock                 held (flock) by the owner, contains its pid
    <path>/flotilla-data.json   marks the directory as ours: format, topology, created_at
    <path>/runtime.json         what is running now; only meaningful while the lock is held

The lock belongs to the process and not to a file's existence: however the owner dies, it is free.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from flotilla.embedded.errors import EmbeddedError

FORMAT = 1
LOCK = "lock"
MARKER = "flotilla-data.json"
RUNTIME = "runtime.json"

# What may be there before the marker is: our own first steps, and a file system's own folder.
_BEFORE_THE_MARKER = {LOCK, f"{MARKER}.new", "lost+found"}

# A reader of runtime.json holds the lock for an instant; that must not look like an owner.
_LOCK_ATTEMPTS_MAX = 5
_LOCK_RETRY_S = 0.02


class DataDirectory:
    """A claimed data directory; obtain one with `DataDirectory.claim`."""

    def __init__(self, path: Path, topology: str) -> None:
        self.path = path
        self.topology = topology

    @classmethod
    @contextmanager
    def claim(
        cls,
        path: Path,
        *,
        topology: str = "single",
    ) -> Iterator["DataDirectory"]:
        """Own `path` for the length of the block; create it when it is new.

        Raises `EmbeddedError` and changes nothing when another process owns the directory, or when
        it is not ours to use: other files, a damaged marker, a newer format, another topology.
        """
        path = path.resolve()
        with usable(path):
            _check(path, topology)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited
        try:
            with usable(path):
                _lock(descriptor, path)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                _check(path, topology)  # again: another first claimer may have been between us
                if not (path / MARKER).exists():
                    written_at_s = os.fstat(descriptor).st_mtime  # the file system's clock
                    created_at = datetime.fromtimestamp(written_at_s, UTC).isoformat()
                    marker = {"format": FORMAT, "topology": topology, "created_at": created_at}
                    _replace(path / MARKER, marker)
                (path / RUNTIME).unlink(missing_ok=True)  # of an owner that died
            try:
                yield cls(path, topology)
            finally:
                (path / RUNTIME).unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def runtime_write(self, runtime: Mapping[str, object]) -> None:
        """Tell other processes what runs here now: pid, urls, topology, port; replaced at once."""
        _replace(self.path / RUNTIME, runtime)


def runtime_read(path: Path) -> dict[str, object] | None:
    """Return what the owner of the data directory `path` says is running; None when nobody runs.

    For other processes: an owner that died without a word has left its file but not its lock.
    """
    with suppress(OSError, ValueError), (path / LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            runtime = json.loads((path / RUNTIME).read_bytes())
            return runtime if isinstance(runtime, dict) else None
    return None


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Say clearly that `path` cannot be used when the operating system refuses something in it."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            "data-directory-not-writable",
            f"{path} cannot be used ({error.strerror}: {error.filename}): make it a writable local "
            "directory of this user, or choose another one",
        ) from error


def own_folder(folder: Path) -> Path:
    """Make a server's data folder when it is missing, and return its one true path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder.resolve()


def topology_of(path: Path) -> str | None:
    """Return whose data directory `path` is; None when it is new, or empty.

    Raises `EmbeddedError` when it is not ours: other files, a damaged marker, a newer format.
    """
    marker = path / MARKER
    try:
        content = json.loads(marker.read_bytes())
        known = content["format"] == FORMAT
        owner = str(content["topology"])
    except FileNotFoundError:
        if path.is_dir() and any(file.name not in _BEFORE_THE_MARKER for file in path.iterdir()):
            raise EmbeddedError(
                "data-directory-corrupt",
                f"{path} holds other files and no {MARKER}: choose an empty or a new directory",
            ) from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddedError(
            "data-directory-corrupt",
            f"{marker} cannot be read: restore it from a backup, or choose a new directory",
        ) from error
    if not known:
        raise EmbeddedError(
            "data-directory-corrupt",
            f"{marker} has the format {content['format']!r}, this version of flotilla knows "
            f"{FORMAT}: run the version that made it, or choose a new directory",
        )
    return owner


def _check(path: Path, topology: str) -> None:
    """Refuse a directory that this topology must not touch."""
    owner = topology_of(path)
    if owner not in (None, topology):
        raise EmbeddedError(
            "data-directory-of-another-topology",
            f"{path} belongs to the topology {owner!r} and not to {topology!r}: run that topology, "
            "or choose another directory",
        )


def _lock(descriptor: int, path: Path) -> None:
    for attempt in range(1, _LOCK_ATTEMPTS_MAX + 1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == _LOCK_ATTEMPTS_MAX:
                pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise EmbeddedError(
                    "data-directory-in-use",
                    f"{path} is in use by process {pid}: stop it, or choose another directory",
                ) from None
            time.sleep(_LOCK_RETRY_S)
        else:
            return


def _replace(file: Path, content: Mapping[str, object]) -> None:
    """Write JSON so that a reader sees the old file or the new one, also after a power failure."""
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="utf-8") as output:
        json.dump(content, output, indent=2)
        output.flush()
        os.fsync(output.fileno())
    new.replace(file)

"""Where the data keys of a fleet are that brings its own servers, and the master key it made itself.

    <data>/keys.db      libSQL: the data keys, apart from all that they protect
    <data>/master.key   for development: made once, mode 0600; not there where FLOTILLA_MASTER_KEY is set

Whoever has both has everything: a fleet that is to keep personal data safe is given its master key, and
its data directory never holds one.
"""

import os
import secrets
from pathlib import Path

from flotilla.master_key import KEY_BYTES, MasterKeys, new_master_key
from flotilla.service import KeysBinding
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.settings import VALUE_BYTES_MAX, read_key_places

MASTER_KEY_FILE = "master.key"
KEYS_FILE = "keys.db"


def keys_url(data: Path, postgres: str | None) -> str:
    """Return where data keys are: in a schema of the server at `postgres`, or else in a file."""
    return postgres or f"libsql://{data / KEYS_FILE}"


def bind_keys(data: Path, postgres: str | None, *, make: bool = True) -> KeysBinding:
    """Return where the data keys of the fleet in `data` are, and what unwraps them.

    The environment says it; else the file in `data`, which is made once if `make`. `data` is claimed.

    Raises:
        Failure: a setting or the file is not what it has to be (`SETTING_INVALID`).

    """
    places = read_key_places()
    url = places.keys_url.get_secret_value() if places.keys_url else keys_url(data, postgres)
    return KeysBinding(url, places.master or _of_file(data / MASTER_KEY_FILE, make=make))


def key_variables(data: Path) -> dict[str, str]:
    """Return the variables that tell a child process of a fleet in `data` what `bind_keys` returns."""
    places = read_key_places()
    found = {}
    if places.keys_url:
        found["FLOTILLA_KEYS_URL"] = places.keys_url.get_secret_value()
    if places.master_key:
        found["FLOTILLA_MASTER_KEY"] = places.master_key.get_secret_value()
    else:
        _of_file(data / MASTER_KEY_FILE, make=True)
        found["FLOTILLA_MASTER_KEY_FILE"] = str(data / MASTER_KEY_FILE)
    return found


def _of_file(file: Path, *, make: bool) -> MasterKeys:
    try:
        if make and not file.exists():
            _write(file)
        with file.open("rb") as source:
            return MasterKeys.parse(source.read(VALUE_BYTES_MAX).decode("ascii", "replace"))
    except OSError as error:
        raise Failure(
            ExitCode.SETTING_INVALID,
            f"there is no master key: {file}: {error.strerror}; set FLOTILLA_MASTER_KEY, or"
            " FLOTILLA_MASTER_KEY_FILE to a file that holds it",
        ) from error


def _write(file: Path) -> None:
    """Make the key, durably, before anything is wrapped by it: whole, or not there."""
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(f"{new_master_key(secrets.token_bytes(KEY_BYTES))}\n")
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

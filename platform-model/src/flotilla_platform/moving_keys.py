"""Taking the keys of personal data along when a fleet moves: before any event that they open.

Where FLOTILLA_KEYS_URL names a database of their own they stay there. Tombstones are not copied: the new
fleet makes them again from the erasures in its log, before it serves. Repeating it changes nothing.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from flotilla.errors import Unavailable
from flotilla.keys import copy_keys
from flotilla.stores import open_keys
from flotilla_platform.key_places import MASTER_KEY_FILE, keys_url
from flotilla_platform.places import DataPlace, Place
from flotilla_platform.settings import VALUE_BYTES_MAX, read_key_places

type Stores = Mapping[str, str]


async def move_keys(source: Place, target: Place, here: Stores, there: Stores) -> str:
    """Copy data keys, and the master key that a data directory made; return what is left to do.

    `here` and `there` are the stores of both fleets, of which nothing runs.

    Raises:
        Conflict: the target has other keys for the same subjects (`keys-differ`).
        Failure: a setting is wrong.
        OSError: the file with the master key cannot be copied.

    """
    places = read_key_places()
    if places.keys_url:
        return ""
    try:
        async with (
            open_keys(_url(source, here), migrate=False) as old,
            open_keys(_url(target, there)) as new,
        ):
            await copy_keys(old, new)
    except Unavailable as error:
        if error.code != "schema-missing":
            raise
        return ""  # nothing was ever sealed
    if places.master or not isinstance(source, DataPlace):
        return "give the new fleet the same FLOTILLA_MASTER_KEY"
    if isinstance(target, DataPlace):
        _copy(source.path / MASTER_KEY_FILE, target.path / MASTER_KEY_FILE)
        return ""
    return f"give the new fleet what is in {source.path / MASTER_KEY_FILE} as FLOTILLA_MASTER_KEY"


def _url(place: Place, stores: Stores) -> str:
    url = next(iter(stores.values()))
    if isinstance(place, DataPlace):
        return keys_url(place.path, url if url.startswith("postgres") else None)
    return url


def _copy(source: Path, target: Path) -> None:
    if target.exists():  # a repetition: what it wraps was compared
        return
    with source.open("rb") as file:
        content = file.read(VALUE_BYTES_MAX)
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(target)

"""Where one deployable finds what it needs: environment variables, read once, checked together.

    FLOTILLA_STORE_URL           postgresql://user:password@host:5432/database
    FLOTILLA_NATS_URL            nats://user:password@host:4222, several with commas between them
    FLOTILLA_MASTER_KEY          unwraps the keys of personal data: 32 bytes of base64url
    FLOTILLA_KEYS_URL            where those keys are, if not beside the store
    FLOTILLA_HTTP_HOST, _PORT    where a service that needs http listens: 0.0.0.0:8080
    FLOTILLA_ADMIN_HOST, _PORT   /healthz, /readyz, /metrics: 127.0.0.1, any free port

Each may be given as `<NAME>_FILE` instead: a path whose content is the value, as containers and
Kubernetes hand secrets over. No value is ever repeated in an error, a log line or a repr.
"""

import difflib
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flotilla.errors import Rejected
from flotilla.master_key import CURE, MasterKeys
from flotilla.service import HttpBinding, KeysBinding
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.model import Need
from flotilla_platform.options import PORT_MAX

PREFIX = "FLOTILLA_"
FILE = "_FILE"
VALUE_BYTES_MAX = 8192
"""What a value may have; a path to something larger is a mistake."""

_SIMILAR = 0.75
"""From here on an unknown name is a typing error, and below it somebody else's variable."""
STORE_FORM = "postgresql://user:password@host:5432/database"
_NATS_FORM = "nats://user:password@host:4222"
_ENCODE = "characters such as / : @ # ? % in a password are percent-encoded"


def is_store_url(value: str) -> bool:
    """Return whether `value` is the address of a PostgreSQL server."""
    try:
        parts = urlsplit(value)
        _ = parts.port
        found = parts.scheme in {"postgresql", "postgres"}
        return found and bool(parts.hostname or parse_qs(parts.query).get("host"))
    except ValueError:
        return False


def _store_url(value: SecretStr) -> SecretStr:
    if not is_store_url(value.get_secret_value()):
        raise ValueError(f"this is no address of a PostgreSQL server: {STORE_FORM}; {_ENCODE}")
    return value


def _master_key(value: SecretStr) -> SecretStr:
    try:
        MasterKeys.parse(value.get_secret_value())
    except Rejected as error:
        raise ValueError(str(error)) from None
    return value


def _nats_url(value: SecretStr) -> SecretStr:
    for place in value.get_secret_value().split(","):
        try:
            parts = urlsplit(place.strip())
            _ = parts.port
            found = parts.scheme in {"nats", "tls"} and bool(parts.hostname)
        except ValueError:
            found = False
        if not found:
            raise ValueError(f"this is no address of a NATS server: {_NATS_FORM}; {_ENCODE}")
    return value


Port = Annotated[int, Field(ge=0, le=PORT_MAX)]


class KeyPlaces(BaseSettings):
    """Where the keys of personal data are, and what unwraps them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    master_key: Annotated[SecretStr, AfterValidator(_master_key)] | None = None
    """The master key; while it is changed, the new one, a comma, the old one."""
    store_url: Annotated[SecretStr, AfterValidator(_store_url)] | None = None
    """The database of stores and views; a schema a service keeps them apart."""
    keys_url: Annotated[SecretStr, AfterValidator(_store_url)] | None = None
    """The database of data keys, with backups and a retention of its own; None: that of the store."""

    @property
    def store(self) -> str:
        """Return the address of the store, its password included; empty when there is none."""
        return self.store_url.get_secret_value() if self.store_url else ""

    @property
    def keys_place(self) -> str:
        """Return the address of the data keys, its password included; empty when there is none."""
        return self.keys_url.get_secret_value() if self.keys_url else self.store

    @property
    def master(self) -> MasterKeys | None:
        """Return the master keys, if any were given."""
        return MasterKeys.parse(self.master_key.get_secret_value()) if self.master_key else None


class Places(KeyPlaces):
    """Where this process finds its servers, and where it listens."""

    nats_url: Annotated[SecretStr, AfterValidator(_nats_url)] | None = None
    http_host: Annotated[str, Field(min_length=1)] = "0.0.0.0"  # noqa: S104 - what it is there for
    http_port: Port = 8080
    admin_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    admin_port: Port = 0

    @property
    def http(self) -> HttpBinding:
        """Return where a service that needs http listens."""
        return HttpBinding(self.http_host, self.http_port)

    @property
    def admin(self) -> HttpBinding:
        """Return where the pages for operators are."""
        return HttpBinding(self.admin_host, self.admin_port)

    @property
    def keys(self) -> KeysBinding | None:
        """Return where data keys are and what unwraps them; None without a master key."""
        return KeysBinding(self.keys_place, self.master) if self.master else None

    @property
    def nats(self) -> str:
        """Return the address of the broker, its password included."""
        return self.nats_url.get_secret_value() if self.nats_url else ""


def read_places(needs: AbstractSet[Need], services: AbstractSet[str]) -> Places:
    """Return the places that a process finds in its environment.

    `needs` are those of its services together; `services` are all of the topology: variables with
    their prefix are their own.

    Raises:
        Failure: with every mistake in it, a line each (`SETTING_INVALID`).

    """
    environment = dict(os.environ)  # noqa: TID251 - this is where settings are read
    wrong = _misspelt(environment, services)
    places = _read(Places, environment, wrong)
    if places is not None:
        wrong += _missing(places, needs)
    if wrong or places is None:
        raise Failure(ExitCode.SETTING_INVALID, "\n".join(wrong))
    return places


def read_key_places() -> KeyPlaces:
    """Return what the environment says of the keys of personal data, and nothing else.

    Raises `Failure` as `read_places` does.
    """
    wrong: list[str] = []
    places = _read(KeyPlaces, dict(os.environ), wrong)  # noqa: TID251 - this is where settings are read
    if wrong or places is None:
        raise Failure(ExitCode.SETTING_INVALID, "\n".join(wrong))
    return places


def _read[P: KeyPlaces](
    kind: type[P], environment: Mapping[str, str], wrong: list[str]
) -> P | None:
    """Return the settings; None, and what is wrong with them in `wrong`."""
    values = _from_files(kind, environment, wrong)
    try:
        return kind(**values)
    except ValidationError as error:
        wrong += [
            f"{_variable(str(line['loc'][0]))}: {line['msg'].removeprefix('Value error, ')}"
            for line in error.errors(include_input=False, include_url=False)
        ]
    return None


def inherited() -> dict[str, str]:
    """Return our environment for a child that is told its places by us: without anybody else's."""
    places = {_variable(field) for field in Places.model_fields}
    places |= {f"{name}{FILE}" for name in places}
    environment = os.environ.items()  # noqa: TID251 - to be passed on
    return {name: value for name, value in environment if name not in places}


def _missing(places: Places, needs: AbstractSet[Need]) -> list[str]:
    missing = []
    if places.store_url is None and (
        {"store", "views", "logs"} & needs or ("keys" in needs and places.keys_url is None)
    ):
        missing.append(_wanted("store_url", STORE_FORM))
    if places.master_key is None and "keys" in needs:
        missing.append(f"{_wanted('master_key', '32 bytes of base64url')}; {CURE}")
    if places.nats_url is None:
        missing.append(_wanted("nats_url", _NATS_FORM))
    return missing


def _wanted(field: str, form: str) -> str:
    name = _variable(field)
    return f"{name} is missing: set it to {form}, or {name}{FILE} to a file that holds it"


def _variable(field: str) -> str:
    return f"{PREFIX}{field.upper()}"


def _misspelt(environment: Mapping[str, str], services: AbstractSet[str]) -> list[str]:
    """Return what is wrong with names that are almost ours: a typing error, told before it hurts."""
    known = [_variable(field) for field in Places.model_fields]
    known += [f"{name}{FILE}" for name in known]
    theirs = tuple(f"{PREFIX}{service.upper().replace('-', '_')}_" for service in services)
    wrong = []
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or name.startswith(theirs):
            continue
        short = [each.removeprefix(PREFIX) for each in known]
        close = difflib.get_close_matches(name.removeprefix(PREFIX), short, n=1, cutoff=_SIMILAR)
        if close:
            wrong.append(f"there is no setting {name}: did you mean {PREFIX}{close[0]}?")
    return wrong


def _from_files(
    kind: type[KeyPlaces], environment: Mapping[str, str], wrong: list[str]
) -> dict[str, Any]:
    """Return the values that files hold; what is wrong with them is added to `wrong`."""
    values: dict[str, Any] = {}
    for field in kind.model_fields:
        name = _variable(field)
        path = environment.get(f"{name}{FILE}", "")
        if not path:
            continue
        if environment.get(name):
            wrong.append(f"{name} and {name}{FILE} are both set: keep one of them")
        elif "://" in path:  # most likely the secret itself
            wrong.append(f"{name}{FILE} takes the path of a file: put the value itself into {name}")
        else:
            try:
                with Path(path).open("rb") as file:
                    content = file.read(VALUE_BYTES_MAX + 1)
                if not content.strip() or len(content) > VALUE_BYTES_MAX:
                    wrong.append(
                        f"{name}{FILE}: {path} has {len(content)} bytes; the value belongs into it"
                    )
                values[field] = content.decode().strip()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                wrong.append(f"{name}{FILE}: {path} cannot be read: {reason}")
    return values

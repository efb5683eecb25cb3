"""What a deployable binds its services to, and what a running service shows.

A service's `main.py` has one function, `compose(bindings)`: an async context manager that starts it
and yields a `Running`. Which services share a process, and what they are bound to, is the topology's
business (`platform-model/`).
"""

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from flotilla.bus import Bus
from flotilla.clock import Clock, IdSource
from flotilla.master_key import MasterKeys


@dataclass(frozen=True, slots=True)
class HttpBinding:
    """Where the HTTP server of this deployable listens. Port 0: any free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class KeysBinding:
    """Where data keys are, and what unwraps them: `flotilla.stores.open_vault` makes a vault of it."""

    url: str = field(repr=False)
    master: MasterKeys


@dataclass(frozen=True, slots=True)
class Bindings:
    """Everything a service needs from outside. `stores` maps a service to its store's URL.

    They are those of all services that keep something, wherever these run; none where nobody in
    this process needs any.

    Store URLs: `libsql:///absolute/path.db`, `postgresql://…`, `memory://name`.
    """

    stores: Mapping[str, str]
    nats_url: str
    bus: Bus
    clock: Clock
    ids: IdSource
    chance: random.Random
    services: tuple[str, ...]
    """All services of the topology, by name, wherever they run."""
    logs: tuple[str, ...]
    """All services of the topology that publish a log, wherever they run."""
    http: HttpBinding | None = None
    keys: KeysBinding | None = None
    """Where nobody in this process needs `keys`: none."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind: in events, and in seconds by the store's clock."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service can do its work now; what is missing, in words; how far behind it is."""

    missing: tuple[str, ...] = ()
    lag: Mapping[str, Lag] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A started service. `address` is set by those that listen (`http://127.0.0.1:8080`)."""

    name: str
    health: Callable[[], Awaitable[Health]]
    address: str | None = None


Compose = Callable[[Bindings], AbstractAsyncContextManager[Running]]

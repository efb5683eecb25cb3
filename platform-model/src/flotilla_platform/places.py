"""Where a fleet keeps everything, held while nothing runs there: a data directory, or a database."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from flotilla.embedded import DataDirectory, topology_of
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.model import Layout, Platform, Service
from flotilla_platform.planning import check_data, find_topology
from flotilla_platform.servers import start_stores
from flotilla_platform.settings import STORE_FORM, is_store_url


@dataclass(frozen=True, slots=True)
class DataPlace:
    """A data directory, with its files or its own server."""

    path: Path
    topology: Layout

    @property
    def services(self) -> Sequence[Service]:
        """Return the services that keep something here."""
        return [service for service in self.topology.members if service.keeps]


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """A PostgreSQL database of somebody else; `url` may hold a password, and is never told."""

    url: str


type Place = DataPlace | DatabasePlace


def data_place(platform: Platform, path: Path, topology: str | None) -> DataPlace:
    """Return the data directory `path`, of the topology that it belongs to, or else `topology`.

    Raises:
        EmbeddedError: it is not ours to use.
        Failure: it is nobody's yet and no topology was named, or that one keeps nothing in a directory.

    """
    check_data(path)
    owner = topology_of(path.resolve())
    if owner is None and topology is None:
        raise Failure(ExitCode.USAGE, f"{path} is new: say with --topology what will run there")
    if topology is not None and owner not in (None, topology):
        raise Failure(
            ExitCode.DATA_DIRECTORY,
            f"{path} belongs to the topology {owner!r} and not to {topology!r}: choose a new one",
        )
    layout = find_topology(platform, topology or owner or "")
    if layout.resources.store.server != "embedded":
        raise Failure(
            ExitCode.USAGE,
            f"{layout.name!r} keeps nothing in a data directory: name its database with a store's URL",
        )
    return DataPlace(path.resolve(), layout)


def database_place(url: str, option: str) -> DatabasePlace:
    """Return the database at `url`. Raises `Failure` when that is no address of one."""
    if not is_store_url(url):
        raise Failure(
            ExitCode.USAGE, f"{option} is no address of a PostgreSQL server: write {STORE_FORM}"
        )
    return DatabasePlace(url)


@asynccontextmanager
async def held(place: Place, services: Sequence[Service]) -> AsyncIterator[Mapping[str, str]]:
    """Yield the URL of each service's store; nothing else runs in a data directory meanwhile.

    Raises `EmbeddedError` when it is in use, or its server does not start.
    """
    if isinstance(place, DatabasePlace):
        yield {service.name: place.url for service in services}
        return
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(
            DataDirectory.claim(place.path, topology=place.topology.name)
        )
        stores, _ = await start_stores(place.topology, services, directory.path, stack)
        yield stores

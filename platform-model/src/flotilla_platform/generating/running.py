"""Who runs as a process of its own, and with which accounts it reaches broker and store.

A process connects with what its deployable is given: the account of a deployable is named after it,
and may what its services may together. Nobody shares an account.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flotilla_platform.model import Deployable, Layout, Platform, Service

STORE_URL, NATS_URL, MASTER_KEY = "store-url", "nats-url", "master-key"
DATABASE = "flotilla"
STORE_NEEDS = {"store", "views", "logs", "keys"}


@dataclass(frozen=True, slots=True)
class Runs:
    """A deployable with its services, and how many of it run at most, in any environment."""

    deployable: Deployable
    services: tuple[Service, ...]
    replicas_max: int

    @property
    def name(self) -> str:
        """Return the deployable's name."""
        return self.deployable.name

    @property
    def needs(self) -> frozenset[str]:
        """Return what its services need together."""
        return frozenset(need for service in self.services for need in service.needs)

    @property
    def uses_store(self) -> bool:
        """Return whether it connects to the store."""
        return bool(STORE_NEEDS & self.needs)

    @property
    def uses_keys(self) -> bool:
        """Return whether it opens and seals personal text."""
        return "keys" in self.needs

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what it is given in files: where its servers are, and the master key."""
        wanted = ((self.uses_store, STORE_URL), (True, NATS_URL), (self.uses_keys, MASTER_KEY))
        return tuple(name for needed, name in wanted if needed)

    @property
    def role(self) -> str:
        """Return its account in the store."""
        return schema_of(self.name)


def schema_of(service: str) -> str:
    """Return the schema of a service, as the kernel names it."""
    return service.replace("-", "_")


def apart(layout: Layout) -> bool:
    """Return whether deployables of a topology are processes that find servers by themselves."""
    return layout.kind != "one-process"


def running(platform: Platform) -> tuple[Runs, ...]:
    """Return every deployable that is a process of its own somewhere, in the order of the names."""
    layouts = [layout for layout in platform.layouts.values() if apart(layout)]
    layouts += [layout for _, layout in platform.deployments() if apart(layout)]
    most: dict[str, int] = {}
    for layout in layouts:
        for placed in layout.deployables:
            most[placed.name] = max(placed.replicas, most.get(placed.name, 0))
    return tuple(runs(platform, platform.deployables[name], most[name]) for name in sorted(most))


def runs(platform: Platform, deployable: Deployable, replicas: int) -> Runs:
    """Return a deployable with its services."""
    return Runs(
        deployable, tuple(platform.services[name] for name in deployable.services), replicas
    )


def logs(platform: Platform) -> tuple[Service, ...]:
    """Return the services that publish a log, in the order of the names."""
    return tuple(service for service in platform.services.values() if service.log)


def asked_by(platform: Platform, one: Runs) -> Iterator[str]:
    """Yield the names of the services that a deployable may ask, its own excepted."""
    for policy in platform.policies.values():
        if policy.caller in one.deployable.services:
            for allowed in policy.calls:
                if allowed.service not in one.deployable.services:
                    yield allowed.service

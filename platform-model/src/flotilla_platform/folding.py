"""What `flotilla rebuild` and `flotilla replay` share: finding a projection, and its places and log."""

import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from flotilla.clock import Clock
from flotilla.outbox import Outbox
from flotilla.projection import Projection
from flotilla.rebuild import ReadModels, Source, from_ledger
from flotilla.shadow import ShadowStore
from flotilla.stores import open_shadows, open_store
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.loading import suggest
from flotilla_platform.runtime import Runtime

SourceName = Literal["store", "stream"]


@dataclass(frozen=True, slots=True)
class Found:
    """A projection, and whose it is."""

    service: str
    projection: Projection
    models: ReadModels


@dataclass(frozen=True, slots=True)
class Opened:
    """A projection with its places, its log's outbox, and what the bulk of the log is read from."""

    projection: Projection
    places: ShadowStore
    ledger: Outbox
    source: Source


def find_projection(runtime: Runtime, name: str) -> Found:
    """Return the projection `name` of a running fleet.

    Raises:
        Failure: there is none (with what was probably meant), or its code cannot be imported.

    """
    found = {read.projection.name: read for read in projections_of(runtime)}
    if name not in found:
        raise Failure(
            ExitCode.USAGE,
            f"there is no projection {name!r}: {suggest(name, sorted(found))}"
            " (`flotilla status` lists those that have begun)",
        )
    return found[name]


def projections_of(runtime: Runtime) -> Iterator[Found]:
    """Yield every projection of a running fleet. Raises `Failure` as `import_models`."""
    for service, entrypoint in runtime.read_models.items():
        models = import_models(service, entrypoint)
        for projection in models.projections:
            yield Found(service, projection, models)


def import_models(service: str, entrypoint: str) -> ReadModels:
    """Return the read models of `service`. Raises `Failure` when their code cannot be imported."""
    module, _, function = entrypoint.partition(":")
    try:
        models: ReadModels = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise Failure(
            ExitCode.MODEL_INVALID,
            f"`read_models: {entrypoint}` of the service {service!r} leads nowhere: {error}",
        ) from error
    return models


@asynccontextmanager
async def opened(
    runtime: Runtime, found: Found, clock: Clock, source: SourceName = "store"
) -> AsyncIterator[Opened]:
    """Yield what a projection is folded from and into, beside the fleet that does so now.

    Raises:
        Failure: nobody in this fleet publishes its log.
        Unavailable, Corrupt: a store does not answer, or is of another version.

    """
    projection = found.projection
    if projection.log not in runtime.logs:
        raise Failure(
            ExitCode.USAGE,
            f"nobody here publishes {projection.log!r}, which {projection.name} folds",
        )
    async with (
        open_store(runtime.stores[projection.log], service=projection.log, migrate=False) as store,
        open_shadows(
            runtime.stores[found.service],
            service=found.service,
            projection=projection,
            clock=clock,
        ) as places,
    ):
        read = (
            from_ledger(store)
            if source == "store"
            else found.models.read_stream(runtime.nats_url, projection.log)
        )
        yield Opened(projection, places, store, read)

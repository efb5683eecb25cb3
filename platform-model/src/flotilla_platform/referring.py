"""Whether the parts of a model know each other: every name that one says of another is that of one."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from flotilla_platform.loading import Mistake, Steps, suggest
from flotilla_platform.model import (
    HEALTH_QUERY,
    KEYS_SCHEMA,
    KINDS,
    OPERATOR,
    Capability,
    Environment,
    KindName,
    Platform,
    Policy,
    Refers,
    Service,
)
from flotilla_platform.sequencing import check_workflow


def check_references(platform: Platform) -> list[Mistake]:
    """Return what is wrong between the parts of a model that could be read."""
    return [
        *_check_names(platform),
        *(m for part in platform.services.values() for m in _check_service(platform, part)),
        *(m for part in platform.environments.values() for m in _check_environment(platform, part)),
        *(m for part in platform.policies.values() for m in _check_policy(platform, part)),
        *(m for part in platform.capabilities.values() for m in _check_capability(platform, part)),
        *(m for part in platform.workflows.values() for m in check_workflow(platform, part)),
    ]


def references(part: BaseModel, above: Steps = ()) -> Iterator[tuple[Steps, KindName, str]]:
    """Yield every reference in a part: where it is in its document, to what kind, to which name."""
    for key, info in type(part).model_fields.items():
        value = getattr(part, key)
        yield from _references((*above, key), value, info.annotation, info.metadata)


def _references(
    steps: Steps, value: Any, annotation: Any, metadata: Sequence[Any]
) -> Iterator[tuple[Steps, KindName, str]]:
    marks = [mark for mark in (*metadata, *_marks(annotation)) if isinstance(mark, Refers)]
    if isinstance(value, BaseModel):
        yield from references(value, steps)
    elif isinstance(value, tuple):
        item = get_args(annotation)[0]
        for index, inner in enumerate(value):
            yield from _references((*steps, index), inner, item, ())
    elif marks and isinstance(value, str):
        yield steps, marks[0].kind, value


def _marks(annotation: Any) -> Iterator[Any]:
    """Yield what is said about a type around it: `Annotated[…]`, also within `… | None`."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in get_args(annotation):
        yield from getattr(inner, "__metadata__", ())


def _check_names(platform: Platform) -> Iterator[Mistake]:
    for kind in KINDS:
        for name, part in platform.parts(kind).items():
            for steps, other, wanted in references(part):
                if wanted not in (known := platform.names(other)):
                    yield Mistake(
                        platform.at(kind, name, *steps),
                        f"there is no {other} {wanted!r}",
                        suggest(wanted, known),
                    )


def _check_service(platform: Platform, service: Service) -> Iterator[Mistake]:
    def at(wrong: str, instead: str, *steps: str | int) -> Mistake:
        return Mistake(platform.at("service", service.name, *steps), wrong, instead)

    if service.log not in (None, service.name):
        yield at(
            f"the log {service.log!r} is not named after the service that publishes it",
            f"write `log: {service.name}`",
            "log",
        )
    if service.log is not None and "store" not in service.needs:
        yield at(
            "a service that publishes a log needs a store",
            "add `store`, or write `log: null`",
            "needs",
        )
    if service.owner is None and platform.owners:
        yield at(
            "nobody owns this service",
            f"write `owner: …` with one of: {', '.join(platform.owners)}",
            "name",
        )
    for index, event in enumerate(service.events):
        aggregate = event.partition(".")[0]
        if aggregate not in service.aggregates:
            yield at(
                f"{event!r} is of {aggregate!r}, which is no aggregate of this service",
                suggest(aggregate, service.aggregates),
                *("events", index),
            )
    if service.events and service.log is None:
        yield at("what it stores is published in a log", f"write `log: {service.name}`", "log")
    for index, query in enumerate(service.queries):
        if query == HEALTH_QUERY:
            yield at("every service answers this, unsaid", "remove it", "queries", index)
    yield from _check_reserved(service, at)
    yield from _check_projections(platform, service, at)
    yield from _check_repeated(service, at)


def _check_reserved(service: Service, at: Callable[..., Mistake]) -> Iterator[Mistake]:
    if service.name == KEYS_SCHEMA:
        yield at("data keys are kept under this name", "give the service another one", "name")


def _check_projections(
    platform: Platform, service: Service, at: Callable[..., Mistake]
) -> Iterator[Mistake]:
    for index, projection in enumerate(service.projections):
        steps = ("projections", index)
        for place, log in enumerate(projection.logs):
            publisher = platform.services.get(log)
            if publisher is not None and publisher.log is None:
                publishing = [s.name for s in platform.services.values() if s.log]
                yield at(
                    f"the service {log!r} publishes no log",
                    f"write one of: {', '.join(publishing) or '(none)'}",
                    *(*steps, "logs", place),
                )
        if projection.partitions > 1 and projection.partition_key is None:
            yield at(
                "nothing tells the rows of its partitions apart",
                "write `partition_key: stream`, or `partitions: 1`",
                *(*steps, "partitions"),
            )
    if missing := {"views", "logs"} - set(service.needs) if service.projections else set():
        yield at(
            f"a service with projections needs {' and '.join(sorted(missing))}",
            "add what is missing",
            "needs",
        )


def _check_repeated(service: Service, at: Callable[..., Mistake]) -> Iterator[Mistake]:
    named: dict[str, Sequence[str]] = {
        "commands": [command.name for command in service.commands],
        "projections": [projection.name for projection in service.projections],
    }
    plain: dict[str, Sequence[str]] = {
        key: getattr(service, key)
        for key in ("needs", "aggregates", "events", "queries", "capabilities")
    }
    for key, names in (plain | named).items():
        for index in _repeated(names):
            yield at(f"{names[index]!r} is here twice", "remove one of them", key, index)


def _check_environment(platform: Platform, environment: Environment) -> Iterator[Mistake]:
    topology = platform.topologies.get(environment.topology)
    placed = [placement.deployable for placement in topology.placements] if topology else []
    names = [override.deployable for override in environment.replicas]
    for index, name in enumerate(names):
        where = platform.at("environment", environment.name, "replicas", index, "deployable")
        if topology and name not in placed and name in platform.names("deployable"):
            yield Mistake(where, f"{topology.name!r} does not run {name!r}", suggest(name, placed))
        if index in _repeated(names):
            yield Mistake(where, f"{name!r} is here twice", "remove one of them")


def _check_policy(platform: Platform, policy: Policy) -> Iterator[Mistake]:
    callers = [*platform.names("service"), OPERATOR]
    if policy.caller not in callers:
        yield Mistake(
            platform.at("policy", policy.name, "caller"),
            f"there is no service {policy.caller!r}",
            suggest(policy.caller, callers),
        )
    for index, allowed in enumerate(policy.calls):
        service = platform.services.get(allowed.service)
        if service is None:
            continue
        commands = [command.name for command in service.commands]
        for key, word, names, known in (
            ("commands", "command", allowed.commands, commands),
            ("queries", "query", allowed.queries, [*service.queries, HEALTH_QUERY]),
        ):
            for place, name in enumerate(names):
                if name not in known:
                    yield Mistake(
                        platform.at("policy", policy.name, "calls", index, key, place),
                        f"the service {service.name!r} has no {word} {name!r}",
                        suggest(name, known),
                    )


def _check_capability(platform: Platform, capability: Capability) -> Iterator[Mistake]:
    said = [given.topology for given in capability.topologies]
    missing = [name for name in platform.names("topology") if name not in said]
    if missing:
        yield Mistake(
            platform.at("capability", capability.name, "topologies"),
            f"nothing is said of {', '.join(missing)}",
            "say what every topology gives; `state: off` is an answer",
        )
    for index in _repeated(said):
        yield Mistake(
            platform.at("capability", capability.name, "topologies", index, "topology"),
            f"{said[index]!r} is here twice",
            "remove one of them",
        )


def _repeated(items: Sequence[str]) -> list[int]:
    return [index for index, item in enumerate(items) if item in items[:index]]

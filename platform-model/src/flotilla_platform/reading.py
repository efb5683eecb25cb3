"""The whole model, read and checked: what every part says, and that the parts fit together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from flotilla_platform.explaining import validate
from flotilla_platform.loading import (
    Document,
    Mistake,
    ModelInvalid,
    Position,
    Steps,
    read_document,
    suggest,
)
from flotilla_platform.model import Deployable, Service, Topology

SERVICES = "services"
TOPOLOGIES = "topologies"


@dataclass(frozen=True, slots=True)
class Read[T: BaseModel]:
    """A part of the model, and the document it was read from."""

    part: T
    document: Document


@dataclass(frozen=True, slots=True)
class Platform:
    """A model without mistakes. Both mappings are by name, in the order of the names."""

    root: Path
    services: Mapping[str, Service]
    topologies: Mapping[str, Topology]
    entrypoints: Mapping[str, Position]
    """Where each service's entrypoint is written, for when it cannot be imported."""


def find_model() -> Path:
    """Return the folder of the model that came with this program.

    A wheel carries it beside this module; in a checkout it is the member's own folder.
    """
    here = Path(__file__).resolve()
    packaged = here.with_name("shipped")
    return packaged if packaged.is_dir() else here.parents[2]


def read_platform(root: Path) -> Platform:
    """Read and check the model in `root`.

    Raises:
        ModelInvalid: with every mistake in all of its files.

    """
    mistakes: list[Mistake] = []
    services = _read_folder(root / SERVICES, Service, mistakes)
    topologies = _read_folder(root / TOPOLOGIES, Topology, mistakes)
    known: dict[str, Service | None] = {file.stem: None for file in _files(root / SERVICES)}
    known |= {name: read.part for name, read in services.items()}
    for service in services.values():
        mistakes += _check_service(service)
    for topology in topologies.values():
        mistakes += _check_topology(topology, known)
    if mistakes:
        raise ModelInvalid(mistakes)
    return Platform(
        root,
        {name: read.part for name, read in services.items()},
        {name: read.part for name, read in topologies.items()},
        {name: read.document.at("entrypoint") for name, read in services.items()},
    )


def _read_folder[T: Service | Topology](
    folder: Path, kind: type[T], mistakes: list[Mistake]
) -> dict[str, Read[T]]:
    found: dict[str, Read[T]] = {}
    files = _files(folder)
    if not files:
        mistakes.append(
            Mistake(
                Position(folder),
                "no *.yaml is here",
                f"name the folder that holds {SERVICES}/ and {TOPOLOGIES}/ with --model",
            )
        )
    for file in files:
        try:
            document = read_document(file)
            part = validate(document, kind)
        except ModelInvalid as invalid:
            mistakes += invalid.mistakes
            continue
        if part.name != file.stem:
            mistakes.append(
                Mistake(
                    document.at("name"),
                    f"the name {part.name!r} is not that of the file",
                    f"write `name: {file.stem}`, or rename the file to {part.name}.yaml",
                )
            )
        found[file.stem] = Read(part, document)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml"), key=lambda file: file.stem)


def _check_service(read: Read[Service]) -> Iterator[Mistake]:
    service, document = read.part, read.document
    name = document.file.stem  # a wrong name is a mistake of its own
    if service.log not in (None, name):
        yield Mistake(
            document.at("log"),
            f"the log {service.log!r} is not named after the service that publishes it",
            f"write `log: {name}`",
        )
    if service.log is not None and "store" not in service.needs:
        yield Mistake(
            document.at("needs"),
            "a service that publishes a log needs a store",
            "add `store`, or write `log: null`",
        )
    for index in _repeated(service.needs):
        need = service.needs[index]
        yield Mistake(document.at("needs", index), f"{need!r} is here twice", "remove one of them")


def _check_topology(read: Read[Topology], known: Mapping[str, Service | None]) -> Iterator[Mistake]:
    """Check one topology; a known service is None where its own file has mistakes."""
    topology, document = read.part, read.document
    yield from _check_kind(topology, document)
    placed: dict[str, str] = {}
    listening: list[str] = []
    for deployable, name, steps in _placements(topology):
        where = document.at(*steps)
        if name not in known:
            yield Mistake(where, f"there is no service {name!r}", suggest(name, sorted(known)))
        elif name in placed:
            yield Mistake(
                where,
                f"the service {name!r} already runs in the deployable {placed[name]!r}",
                "remove one of the two",
            )
        elif (service := known[name]) is not None and "http" in service.needs:
            listening.append(name)
            if len(listening) > 1:
                yield Mistake(
                    where,
                    f"{name!r} would listen on the same port as {listening[0]!r}",
                    "keep one service that needs http",
                )
            elif deployable.replicas > 1 and topology.kind == "processes":
                yield Mistake(
                    document.at("deployables", steps[1], "replicas"),
                    f"{deployable.replicas} replicas of {deployable.name!r} would listen on one "
                    f"port, since {name!r} needs http",
                    "write `replicas: 1`",
                )
        placed.setdefault(name, deployable.name)


def _check_kind(topology: Topology, document: Document) -> Iterator[Mistake]:
    """Check what a kind of topology can run at all."""
    for index, deployable in enumerate(topology.deployables):
        where = document.at("deployables", index)
        if topology.kind == "one-process" and index > 0:
            yield Mistake(
                where,
                f"the deployable {deployable.name!r} would be a second process, and a topology of "
                f"the kind {topology.kind!r} runs exactly one",
                f"move its services to {topology.deployables[0].name!r}, or write "
                "`kind: processes`",
            )
        if topology.kind == "one-process" and deployable.replicas > 1:
            yield Mistake(
                document.at("deployables", index, "replicas"),
                f"a topology of the kind {topology.kind!r} runs one process, not "
                f"{deployable.replicas}",
                "write `replicas: 1`, or `kind: processes`",
            )
        if deployable.name in {other.name for other in topology.deployables[:index]}:
            yield Mistake(
                document.at("deployables", index, "name"),
                f"there are two deployables {deployable.name!r}",
                "rename one of them",
            )
    if topology.kind != "one-process" and topology.resources.store.engine == "libsql":
        yield Mistake(
            document.at("resources", "store", "engine"),
            "a libSQL file belongs to one process, and this topology runs several",
            "write `engine: postgres`",
        )


def _placements(topology: Topology) -> Iterator[tuple[Deployable, str, Steps]]:
    for index, deployable in enumerate(topology.deployables):
        for place, name in enumerate(deployable.services):
            yield deployable, name, ("deployables", index, "services", place)


def _repeated(items: tuple[str, ...]) -> Iterator[int]:
    return (index for index, item in enumerate(items) if item in items[:index])

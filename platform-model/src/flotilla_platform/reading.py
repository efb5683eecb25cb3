"""The whole model, read and checked: what every part says, and that the parts fit together."""

from pathlib import Path
from typing import Any

from flotilla_platform.explaining import validate
from flotilla_platform.loading import (
    Document,
    Mistake,
    ModelInvalid,
    Position,
    read_document,
)
from flotilla_platform.model import KINDS, KindName, Platform
from flotilla_platform.placing import check_topologies
from flotilla_platform.referring import check_references


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
    platform = inspect_platform(root)
    mistakes = [*platform.unread, *check_references(platform), *check_topologies(platform)]
    if mistakes:
        raise ModelInvalid(mistakes)
    return platform


def inspect_platform(root: Path) -> Platform:
    """Return what can be read of the model in `root`; what cannot is in its `unread`."""
    mistakes: list[Mistake] = []
    documents: dict[tuple[KindName, str], Document] = {}
    found = {KINDS[kind].folder: _read_folder(root, kind, documents, mistakes) for kind in KINDS}
    return Platform(root, **found, documents=documents, unread=tuple(mistakes))


def _read_folder(
    root: Path,
    kind: KindName,
    documents: dict[tuple[KindName, str], Document],
    mistakes: list[Mistake],
) -> dict[str, Any]:
    folder = root / KINDS[kind].folder
    files = sorted(folder.glob("*.yaml"), key=lambda file: file.stem)
    if not files and KINDS[kind].required:
        required = [f"{kind.folder}/" for kind in KINDS.values() if kind.required]
        mistakes.append(
            Mistake(
                Position(folder),
                "no *.yaml is here",
                f"name the folder that holds {', '.join(required)} with --model",
            )
        )
    mistakes += [
        Mistake(Position(file), "only *.yaml is read", f"rename it to {file.stem}.yaml")
        for file in sorted(folder.glob("*.yml"))
    ]
    parts = {}
    for file in files:
        documents[kind, file.stem] = Document(file, None)
        try:
            document = documents[kind, file.stem] = read_document(file)
            part = validate(document, KINDS[kind].type)
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
        else:
            parts[file.stem] = part
    return parts

"""`flotilla secrets check`: whether every secret is there, encrypted, whole, and nowhere in plain."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flotilla_platform.loading import Position
from flotilla_platform.secrets.age import Identity
from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.metadata import Metadata
from flotilla_platform.secrets.places import (
    CREATION_RULES,
    SUFFIX,
    Places,
    Template,
    read_text,
    tracked_files,
)
from flotilla_platform.secrets.scanning import scan
from flotilla_platform.secrets.sealing import format_of, metadata_of, open_text
from flotilla_platform.secrets.sops import is_encrypted, leaves


class Finding(BaseModel):
    """One thing that is unsafe, where it is, and what to do; never a value."""

    model_config = ConfigDict(frozen=True)

    file: str
    line: int
    column: int
    code: str
    wrong: str
    instead: str

    def __str__(self) -> str:
        """Return it as one line."""
        place = Position(Path(self.file), self.line, self.column)
        return f"{place}: {self.wrong}; {self.instead} ({self.code})"


class Checked(BaseModel):
    """What `flotilla secrets check --json` prints; fields are only added."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    environments: tuple[str, ...]
    files: int
    """Encrypted files that were looked at."""
    opened: int
    """How many of them a key of this machine opened, so that their MAC is known to be right."""
    scanned: int
    """Files below deploy/ that were searched for plain secrets."""
    findings: tuple[Finding, ...]


def check(places: Places, identities: Sequence[Identity]) -> Checked:
    """Return everything that is wrong with an installation's secrets.

    Raises:
        ModelInvalid: a template or `.sops.yaml` has mistakes, so that nothing can be compared.

    """
    templates = places.templates()
    environments = places.environments()
    findings: list[Finding] = []
    files = opened = 0
    for environment in environments:
        for name in templates:
            if not (file := places.file(environment, name)).exists():
                wrong = f"{name!r} has no secrets in {environment!r}"
                cure = f"run `flotilla secrets init {environment}`"
                findings.append(_finding(file, "file-missing", wrong, cure))
        for file in sorted((places.secrets / environment).glob(f"*{SUFFIX}")):
            files += 1
            template = templates.get(file.name.removesuffix(SUFFIX))
            found, was_opened = _check_file(places, file, template, identities)
            opened += was_opened
            findings += found
    tracked = tracked_files(places)
    for file in tracked:
        findings += _scan_file(file)
    unique = sorted(set(findings), key=lambda found: (found.file, found.line, found.column))
    return Checked(
        environments=tuple(environments),
        files=files,
        opened=opened,
        scanned=len(tracked),
        findings=tuple(unique),
    )


def _check_file(
    places: Places, file: Path, template: Template | None, identities: Sequence[Identity]
) -> tuple[list[Finding], bool]:
    """Return what is wrong with an encrypted file, and whether it could be opened."""
    try:
        text = read_text(file)
        form = format_of(file)
        metadata = metadata_of(form, text)
        tree = form.parse(text)
        findings = [
            *_names(file, text, template, tree),
            *_plain_values(file, text, metadata, tree),
            *_recipients(places, file, text, metadata),
        ]
    except SecretRefused as error:
        return [_refused(file, error)], False
    if not {identity.recipient for identity in identities} & set(metadata.recipients):
        return findings, False
    try:
        open_text(form, text, identities)
    except SecretRefused as error:
        return [*findings, _refused(file, error)], False
    return findings, True


def _names(file: Path, text: str, template: Template | None, tree: object) -> Iterator[Finding]:
    if template is None:
        wrong = f"no template says what {file.name} is for"
        yield _finding(file, "template-missing", wrong, "write one, or remove the file")
        return
    content = tree if isinstance(tree, dict) else {}
    values = content.get("stringData") or {}
    if content.get("kind") != "Secret" or not isinstance(values, dict):
        cure = "run `flotilla secrets init`"
        yield _finding(file, "names-differ", "it is no Kubernetes Secret with stringData", cure)
        return
    for name in [name for name in template.secrets if name not in values]:
        cure = f"run `flotilla secrets set {file.name} {name}`"
        yield _finding(file, "names-differ", f"{name} of the template is missing", cure)
    for name in [name for name in values if name not in template.secrets]:
        line = _line_of(text, f"{name}:")
        wrong = f"{name} is not in the template"
        yield _finding(file, "names-differ", wrong, "describe it there, or remove it", line)


def _plain_values(file: Path, text: str, metadata: Metadata, tree: object) -> Iterator[Finding]:
    for parent, step, path in leaves(tree):
        value = parent[step]
        if metadata.rules.covers(path) and value != "" and not is_encrypted(value):
            line = _line_of(text, f"{path[-1]}:")
            wrong = f"{'.'.join(path)} is in plain"
            cure = "take it for known: `flotilla secrets set` another value"
            yield _finding(file, "not-encrypted", wrong, cure, line)


def _recipients(places: Places, file: Path, text: str, metadata: Metadata) -> Iterator[Finding]:
    rule = places.creation_rule(file)
    line = _line_of(text, "recipient:")
    environment = file.parent.name
    if rule is None:
        wrong = f"no rule of {CREATION_RULES} says who can open it"
        cure = f"run `flotilla secrets init {environment}`"
        yield _finding(file, "rule-missing", wrong, cure)
    elif set(rule.recipients) != set(metadata.recipients):
        wrong = f"its recipients are not those of {CREATION_RULES}"
        cure = f"run `flotilla secrets rotate {environment}`"
        yield _finding(file, "recipients-differ", wrong, cure, line)


def _scan_file(file: Path) -> list[Finding]:
    if file.suffix == ".agekey" or file.name == "keys.txt":
        cure = "remove it from Git, and take the key for known"
        return [_finding(file, "key-in-git", "this is a file for secret keys", cure)]
    try:
        text = read_text(file)
    except SecretRefused:  # no text, or too long to have been written by a person
        return []
    is_dotenv = file.suffix == ".env" or file.name == ".env"
    suspects = scan(text, is_yaml=file.suffix in {".yaml", ".yml"}, is_dotenv=is_dotenv)
    cure = "take it for known; keep it with `flotilla secrets set`"
    return [
        _finding(file, found.code, found.wrong, cure, (found.line, found.column))
        for found in suspects
    ]


def _refused(file: Path, error: SecretRefused) -> Finding:
    wrong, _, cure = str(error).removesuffix(f" ({error.slug})").partition(": ")
    return _finding(file, error.slug, wrong, cure or "restore it from Git")


def _finding(
    file: Path, code: str, wrong: str, instead: str, place: tuple[int, int] = (1, 1)
) -> Finding:
    return Finding(
        file=str(file), line=place[0], column=place[1], code=code, wrong=wrong, instead=instead
    )


def _line_of(text: str, start: str) -> tuple[int, int]:
    """Return where a line begins with `start`, and 1:1 when none does."""
    for number, line in enumerate(text.split("\n"), start=1):
        found = line.lstrip(" -")
        if found.startswith(start):
            return number, len(line) - len(found) + 1
    return 1, 1

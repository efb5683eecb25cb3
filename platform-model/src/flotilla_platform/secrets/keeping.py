"""What is done with secrets: made for an environment, set, encrypted anew, handed to a process."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.secrets import yaml_files
from flotilla_platform.secrets.age import Identity, check_recipient
from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.places import (
    SECRET_RULES,
    CreationRule,
    Places,
    SecretTemplate,
    Template,
    password_length,
    read_text,
    set_recipients,
    write_text,
)
from flotilla_platform.secrets.sealing import (
    Opened,
    format_of,
    open_text,
    reseal_text,
    seal_text,
)
from flotilla_platform.secrets.sops import Entropy

type Ask = Callable[[str, str], SecretStr]
"""Asks a person for the value of a secret: its name and what it is."""

_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
"""Letters and digits that nobody confuses, and no URL has to escape."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,127}")


class FilesChanged(BaseModel):
    """What a command wrote; no values."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    environment: str
    recipients: tuple[str, ...]
    written: tuple[str, ...]
    unchanged: tuple[str, ...] = ()


def open_file(file: Path, identities: Sequence[Identity]) -> Opened:
    """Decrypt a file; a refusal names it."""
    with_text = read_text(file)
    try:
        return open_text(format_of(file), with_text, identities)
    except SecretRefused as error:
        raise named(file, error) from None


def named(file: Path, error: SecretRefused) -> SecretRefused:
    """Return a refusal that says which file it is about."""
    said = str(error).removesuffix(f" ({error.slug})")
    return SecretRefused(error.slug, f"{file}: {said}")


def init_environment(
    places: Places,
    environment: str,
    identities: Sequence[Identity],
    *,
    ask: Ask,
    now: datetime,
    entropy: Entropy,
) -> FilesChanged:
    """Make what an environment lacks: its rule in `.sops.yaml` and a file a template.

    A file that is there is not touched. When it dies in between, run it again.
    """
    templates = places.templates()
    files = {name: places.file(environment, name) for name in templates}
    missing = {name: file for name, file in files.items() if not file.exists()}
    probe = next(iter(files.values()))
    rule = places.creation_rule(probe)
    recipients = rule.recipients if rule else tuple(i.recipient for i in identities)
    plain = {name: _manifest(templates[name], ask, entropy) for name in missing}
    sealed = {
        name: seal_text(
            format_of(missing[name]),
            text,
            recipients=recipients,
            rules=SECRET_RULES,
            now=now,
            entropy=entropy,
        )
        for name, text in plain.items()
    }
    if rule is None:
        set_recipients(places, environment, recipients)
    for name, text in sealed.items():
        write_text(missing[name], text)
    return FilesChanged(
        environment=environment,
        recipients=recipients,
        written=tuple(str(file) for file in missing.values()),
        unchanged=tuple(str(file) for name, file in files.items() if name not in missing),
    )


def _manifest(template: Template, ask: Ask, entropy: Entropy) -> str:
    """Return a deployable's secrets as a Kubernetes Secret, in plain text."""
    values = {name: _value(name, secret, ask, entropy) for name, secret in template.secrets.items()}
    tree = yaml_files.parse("kind: Secret\n")
    tree.clear()
    tree.update(
        apiVersion="v1",
        kind="Secret",
        metadata={
            "name": f"flotilla-{template.name}",
            "labels": {
                "app.kubernetes.io/name": template.name,
                "app.kubernetes.io/part-of": "flotilla",
            },
        },
        type="Opaque",
        stringData=values,
    )
    return yaml_files.emit(tree, None)


def _value(name: str, secret: SecretTemplate, ask: Ask, entropy: Entropy) -> str:
    length = password_length(secret.generate)
    if length is None:
        return ask(name, secret.description).get_secret_value()
    return secret.format.replace("{}", _password(length, entropy))


def _password(length: int, entropy: Entropy) -> str:
    """Return so many letters, each as likely as any other."""
    limit = 256 - 256 % len(_ALPHABET)
    letters = ""
    while len(letters) < length:
        letters += "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in entropy(64) if byte < limit)
    return letters[:length]


def set_secret(
    file: Path,
    name: str,
    value: SecretStr,
    identities: Sequence[Identity],
    *,
    now: datetime,
    entropy: Entropy,
) -> None:
    """Set one value of an encrypted file; the others stay as they are, to the byte.

    Raises:
        SecretRefused: the file is refused, or `name` is none of a variable.

    """
    if not _VARIABLE.fullmatch(name):
        message = f"{name[:128]!r} is no name of a variable (A-Z, 0-9, _)"
        raise Failure(ExitCode.USAGE, message)
    opened = open_file(file, identities)
    form = format_of(file)
    tree = form.parse(opened.text)
    _values(tree)[name] = value.get_secret_value()
    try:
        plain = form.emit(tree, None)
        kept = _values(form.parse(plain))[name] == value.get_secret_value()
        text = reseal_text(form, plain, opened, now=now, entropy=entropy)
    except SecretRefused as error:
        raise named(file, error) from None
    if not kept:
        message = f"{file}: the value of {name} cannot be said in such a file: encode it"
        raise SecretRefused("value-unsupported", message)
    write_text(file, text, mode=file.stat().st_mode & 0o777)


def _values(tree: Any) -> Any:
    """Return what holds the variables: a Secret's `stringData`, or the file itself."""
    if tree.get("kind") != "Secret":
        return tree
    if not hasattr(tree.setdefault("stringData", {}), "items"):
        raise SecretRefused("document-unsupported", "'stringData' is no mapping")
    return tree["stringData"]


def read_variables(
    places: Places, environment: str, deployable: str, identities: Sequence[Identity]
) -> dict[str, SecretStr]:
    """Return a deployable's variables.

    Raises:
        SecretRefused: its file is refused, or its names are not those of the template.

    """
    template = places.template(deployable)
    file = places.file(environment, deployable)
    if not file.exists():
        message = f"{deployable!r} has no secrets in {environment!r} ({file})"
        cure = f"run `flotilla secrets init {environment}`"
        raise SecretRefused("file-missing", f"{message}: {cure}")
    opened = open_file(file, identities)
    values = _values(opened.tree)
    if differing := sorted(set(values) ^ set(template.secrets)):
        message = f"{file}: {', '.join(differing)} are in the file or in its template only"
        raise SecretRefused(
            "names-differ", f"{message}: `flotilla secrets set`, or mend the template"
        )
    if wrong := [name for name in values if not isinstance(values[name], str)]:
        raise SecretRefused("names-differ", f"{file}: {', '.join(wrong)} is no text")
    return {str(name): SecretStr(str(value)) for name, value in values.items()}


def rotate(
    places: Places,
    environment: str,
    identities: Sequence[Identity],
    *,
    add: Sequence[str],
    remove: Sequence[str],
    now: datetime,
    entropy: Entropy,
) -> FilesChanged:
    """Encrypt every file of an environment with a new data key, to its recipients of now.

    Everything is decrypted and encrypted before the first file is written, and the rule last: when it
    dies in between, every file is whole, and the same command ends the work.
    """
    files = sorted((places.secrets / environment).glob("*.sops.yaml"))
    if not files:
        message = (
            f"there are no secrets of {environment!r}: run `flotilla secrets init {environment}`"
        )
        raise SecretRefused("file-missing", message)
    rule = places.creation_rule(files[0])
    recipients = _recipients(rule, identities, add, remove)
    sealed = {}
    for file in files:
        opened = open_file(file, identities)
        sealed[file] = seal_text(
            format_of(file),
            opened.text,
            recipients=recipients,
            rules=opened.metadata.rules,
            now=now,
            entropy=entropy,
        )
    for file, text in sealed.items():
        write_text(file, text)
    if rule is not None and recipients != rule.recipients:
        set_recipients(places, environment, recipients)
    written = tuple(map(str, files))
    return FilesChanged(environment=environment, recipients=recipients, written=written)


def _recipients(
    rule: CreationRule | None,
    identities: Sequence[Identity],
    add: Sequence[str],
    remove: Sequence[str],
) -> tuple[str, ...]:
    if rule is None:
        message = "no rule of .sops.yaml says who can open these files: `flotilla secrets init`"
        raise SecretRefused("recipient-missing", message)
    for recipient in (*add, *remove):
        check_recipient(recipient, ours=recipient in add)
    if unknown := [recipient for recipient in remove if recipient not in rule.recipients]:
        message = f"{', '.join(unknown)} cannot open these files anyway"
        raise SecretRefused("recipient-unknown", message)
    wanted = dict.fromkeys([*rule.recipients, *add])
    recipients = tuple(recipient for recipient in wanted if recipient not in remove)
    if not any(identity.recipient in recipients for identity in identities):
        message = "nobody of this machine could open the files then: let another recipient do it"
        raise SecretRefused("recipient-missing", message)
    return recipients

"""Where secrets are: templates, a file a deployable and environment, the rules of who can open them.

deploy/secrets/templates/<deployable>.yaml            which secrets there are; no values
deploy/secrets/<environment>/<deployable>.sops.yaml   a Kubernetes Secret, its stringData encrypted
.sops.yaml                                            creation rules, as sops itself reads them
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.loading import Mistake, ModelInvalid, read_document, suggest
from flotilla_platform.secrets import yaml_files
from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.sops import Rules

SECRET_RULES = Rules(encrypted_regex="^(data|stringData)$")
"""What is encrypted of a Kubernetes Secret: as Flux documents it."""
SUFFIX = ".sops.yaml"
CREATION_RULES = ".sops.yaml"
FILE_BYTES_MAX = 1_000_000

_SECRETS = Path("deploy") / "secrets"
_TEMPLATES = "templates"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_GIT_TIMEOUT_S = 10.0


class SecretTemplate(BaseModel):
    """One secret of a deployable: what it is, and where its value comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    generate: str = "ask"
    """`ask`, or `password <length>`."""
    format: str = "{}"
    """The value around what is generated; `{}` is its place."""


class Template(BaseModel):
    """The secrets of a deployable, by the name of their environment variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    secrets: dict[str, SecretTemplate]


@dataclass(frozen=True, slots=True)
class CreationRule:
    """Who can open the files of a path, and what of them is encrypted."""

    recipients: tuple[str, ...]
    rules: Rules


@dataclass(frozen=True, slots=True)
class Places:
    """The repository that secrets are kept in."""

    root: Path

    @property
    def secrets(self) -> Path:
        """The folder of templates and encrypted files."""
        return self.root / _SECRETS

    def file(self, environment: str, deployable: str) -> Path:
        """Return where a deployable's secrets are."""
        for name in (environment, deployable):
            if not _NAME.fullmatch(name) or name == _TEMPLATES:
                message = f"{name!r} is no name of an environment or deployable (a-z, 0-9, -)"
                raise Failure(ExitCode.USAGE, message)
        return self.secrets / environment / f"{deployable}{SUFFIX}"

    def environments(self) -> list[str]:
        """Return the environments that have secrets."""
        if not self.secrets.is_dir():
            return []
        folders = (path for path in self.secrets.iterdir() if path.is_dir())
        return sorted(path.name for path in folders if path.name != _TEMPLATES)

    def templates(self) -> dict[str, Template]:
        """Return every template by its deployable.

        Raises:
            ModelInvalid: one has mistakes, each with its place.

        """
        files = sorted((self.secrets / _TEMPLATES).glob("*.yaml"))
        found = {file.stem: _read_template(file) for file in files}
        if not found:
            message = f"there are no templates in {self.secrets / _TEMPLATES}"
            raise Failure(
                ExitCode.USAGE, f"{message}: run it in the repository, or name it: --root"
            )
        return found

    def template(self, deployable: str) -> Template:
        """Return a deployable's template."""
        templates = self.templates()
        if deployable not in templates:
            message = f"there is no template of secrets for {deployable!r}"
            raise Failure(ExitCode.USAGE, f"{message}: {suggest(deployable, list(templates))}")
        return templates[deployable]

    def creation_rule(self, file: Path) -> CreationRule | None:
        """Return the rule of `.sops.yaml` for a file: the first whose `path_regex` is in its path."""
        rules = self.root / CREATION_RULES
        if not rules.is_file():
            return None
        document = read_document(rules)
        content = document.content if isinstance(document.content, dict) else {}
        path = _relative(file, self.root)
        for number, rule in enumerate(content.get("creation_rules") or []):
            at = document.at("creation_rules", number)
            if not isinstance(rule, dict):
                raise ModelInvalid(
                    [Mistake(at, "a rule is a mapping", "see the runbook of secrets")]
                )
            try:
                if not re.search(str(rule.get("path_regex") or ""), path):
                    continue
            except re.error:
                wrong = "path_regex is no regular expression"
                raise ModelInvalid([Mistake(at, wrong, "mend it")]) from None
            return _rule(rule)
        return None


def _rule(rule: dict[str, object]) -> CreationRule:
    age = rule.get("age") or ""
    written = age if isinstance(age, list) else str(age).split(",")
    recipients = tuple(str(name).strip() for name in written if str(name).strip())
    names = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex")
    rules = {name: str(rule.get(name) or "") for name in names}
    return CreationRule(
        recipients, Rules(**rules, mac_only_encrypted=bool(rule.get("mac_only_encrypted")))
    )


def find_places(root: Path | None) -> Places:
    """Return the repository at `root`, or the nearest above the working directory with templates."""
    if root is not None:
        return Places(root.absolute())
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / _SECRETS / _TEMPLATES).is_dir():
            return Places(folder)
    return Places(here)


def _read_template(file: Path) -> Template:
    document = read_document(file)
    try:
        template = Template.model_validate(document.content)
    except ValidationError as error:
        mistakes = [
            Mistake(document.at(*found["loc"]), found["msg"], "see the other templates")
            for found in error.errors(include_input=False, include_url=False)
        ]
        raise ModelInvalid(mistakes) from None
    if template.name != file.stem:
        at = document.at("name")
        raise ModelInvalid([Mistake(at, "the name is not the file's", f"write {file.stem!r}")])
    for name, secret in template.secrets.items():
        at = document.at("secrets", name, "generate")
        if secret.generate != "ask" and password_length(secret.generate) is None:
            wrong = f"{secret.generate!r} is no way to generate"
            raise ModelInvalid([Mistake(at, wrong, "write `ask`, or `password 32` (16 to 128)")])
    return template


def password_length(generate: str) -> int | None:
    """Return the length in `password <length>`; None for anything else."""
    found = re.fullmatch(r"password (\d{1,3})", generate)
    length = int(found[1]) if found else 0
    return length if 16 <= length <= 128 else None  # noqa: PLR2004 - 95 bits, and a line


def set_recipients(places: Places, environment: str, recipients: Sequence[str]) -> None:
    """Write who can open an environment's files into `.sops.yaml`; the rest of it stays."""
    file = places.root / CREATION_RULES
    text = read_text(file) if file.is_file() else "creation_rules: []\n"
    tree = yaml_files.parse(text)
    pattern = rf"(^|/)deploy/secrets/{environment}/[^/]+\.sops\.yaml$"
    rules = tree.setdefault("creation_rules", [])
    age = ",".join(recipients)
    for rule in rules:
        if re.search(
            str(rule.get("path_regex") or ""), f"deploy/secrets/{environment}/x.sops.yaml"
        ):
            rule["age"] = age
            break
    else:
        regex = SECRET_RULES.encrypted_regex
        rules.append({"path_regex": pattern, "encrypted_regex": regex, "age": age})
        if hasattr(rules, "fa"):
            rules.fa.set_block_style()
    write_text(file, yaml_files.emit(tree, None))


def read_text(file: Path) -> str:
    """Return a file's text.

    Raises:
        SecretRefused: it is missing, too large or no UTF-8.

    """
    try:
        with file.open("rb") as handle:
            content = handle.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise SecretRefused("file-too-large", f"{file} has more than {FILE_BYTES_MAX} bytes")
        return content.decode()
    except FileNotFoundError:
        raise SecretRefused("file-missing", f"there is no {file}") from None
    except (OSError, UnicodeDecodeError):
        raise SecretRefused("file-unreadable", f"{file} cannot be read as text") from None


def write_text(file: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file: whoever reads it sees the old text or the new one, whenever this dies."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            temporary.chmod(mode)
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        message = f"{file} cannot be written: {error.strerror}"
        raise SecretRefused("file-unwritable", message) from None


def refuse_shared(file: Path) -> None:
    """Refuse a path where Git would take plain secrets: tracked, or in a repository and not ignored.

    Raises:
        SecretRefused: it is such a path, or nobody can tell.

    """
    folder = next(parent for parent in file.absolute().parents if parent.is_dir())
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return
    target = file.resolve() if file.is_symlink() else file.absolute()
    tracked = _git(folder, "ls-files", "--error-unmatch", "--", str(target)) == 0
    if tracked or _git(folder, "check-ignore", "--quiet", "--no-index", "--", str(target)) != 0:
        raise SecretRefused(
            "plain-in-git",
            f"{file} is in a Git repository that would take it: write to a path outside of it, or to "
            "one that .gitignore names",
        )


def tracked_files(places: Places) -> list[Path]:
    """Return the files below deploy/ that Git tracks, or would; without Git all of them."""
    listed = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "deploy",
        CREATION_RULES,
    ]
    try:
        result = subprocess.run(  # noqa: S603 - no shell, arguments of our own
            ["git", "-C", str(places.root), *listed],  # noqa: S607 - the user's own git
            capture_output=True,
            check=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        found = [*(places.root / "deploy").rglob("*"), places.root / CREATION_RULES]
    else:
        found = [places.root / os.fsdecode(name) for name in result.stdout.split(b"\0") if name]
    return sorted({path for path in found if path.is_file()})


def _git(folder: Path, *arguments: str) -> int:
    try:
        return subprocess.run(  # noqa: S603 - no shell, arguments of our own
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return -1


def _relative(file: Path, root: Path) -> str:
    """Return a path as rules name it: from the root, with slashes."""
    file = file.absolute()
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()

"""A whole file, plain to encrypted and back: its comments, its values, its MAC, its data key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path as File
from typing import Any, Protocol

from flotilla_platform.secrets import dotenv_files, yaml_files
from flotilla_platform.secrets.age import Identity, unwrap, wrap
from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.metadata import Metadata, WrappedKey, read_metadata
from flotilla_platform.secrets.sops import (
    KEY_BYTES,
    Entropy,
    Kept,
    Opener,
    Path,
    Rules,
    Sealer,
    decrypt_comment,
    encrypt_comment,
    is_encrypted,
    leaves,
    tampered,
)


class Format(Protocol):
    """A kind of file: how its text becomes a tree and back, and where its comments are."""

    def parse(self, text: str) -> Any:
        """Return the tree without the metadata."""
        ...

    def raw_metadata(self, text: str) -> dict[str, Any] | None:
        """Return the metadata as text, or None."""
        ...

    def emit(self, tree: Any, metadata: Metadata | None) -> str:
        """Return the text of a tree."""
        ...

    def change_comments(self, text: str, change: Callable[[str, Path], str]) -> str:
        """Return the text with every comment changed."""
        ...


@dataclass(slots=True, repr=False)
class Opened:
    """A decrypted file. It is never shown: `repr` has no values."""

    text: str
    """What was encrypted."""
    tree: Any
    metadata: Metadata
    key: bytes
    kept: Kept = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return it without values."""
        return f"Opened({', '.join('.'.join(path) for _, _, path in leaves(self.tree))})"


def format_of(file: File) -> Format:
    """Return how a file of that name is written.

    Raises:
        SecretRefused: it is neither YAML nor dotenv.

    """
    if file.suffix in {".yaml", ".yml"}:
        return yaml_files
    if file.suffix == ".env" or file.name == ".env":
        return dotenv_files
    message = f"{file} is neither YAML (.yaml) nor dotenv (.env)"
    raise SecretRefused("document-unsupported", message)


def metadata_of(form: Format, text: str) -> Metadata:
    """Return what an encrypted file says of itself.

    Raises:
        SecretRefused: it is not encrypted, or its metadata is damaged.

    """
    raw = form.raw_metadata(text)
    if raw is None:
        message = "the file is not encrypted: it has no SOPS metadata"
        raise SecretRefused("not-encrypted", message)
    return read_metadata(raw)


def open_text(form: Format, text: str, identities: Sequence[Identity]) -> Opened:
    """Decrypt an encrypted file.

    Raises:
        SecretRefused: it, its metadata or the key is not what it must be. Nothing is disclosed.

    """
    metadata = metadata_of(form, text)
    key = unwrap(metadata.keys, identities)
    kept: Kept = {}
    plain_text = _open_comments(form, text, key, kept)
    tree = form.parse(plain_text)
    Opener(key, metadata.rules, kept).open(tree, metadata.mac, metadata.lastmodified)
    return Opened(form.emit(tree, None), tree, metadata, key, kept)


def seal_text(
    form: Format,
    text: str,
    *,
    recipients: Sequence[str],
    rules: Rules,
    now: datetime,
    entropy: Entropy,
) -> str:
    """Encrypt a plain file with a new data key.

    Raises:
        SecretRefused: it is encrypted already, or has what SOPS cannot encrypt.

    """
    key = entropy(KEY_BYTES)
    sealer = Sealer(key, rules, entropy)
    return _seal(form, text, sealer, wrap(key, recipients), now)


def reseal_text(form: Format, text: str, opened: Opened, *, now: datetime, entropy: Entropy) -> str:
    """Encrypt `text` in the place of what was opened: the same key; what is equal stays as it was."""
    of = opened.metadata
    sealer = Sealer(opened.key, of.rules, entropy, opened.kept)
    return _seal(form, text, sealer, of.keys, now)


def _seal(
    form: Format, text: str, sealer: Sealer, keys: tuple[WrappedKey, ...], now: datetime
) -> str:
    if form.raw_metadata(text) is not None:
        raise SecretRefused("encrypted-already", "the file is encrypted already")

    def sealed(comment: str, path: Path) -> str:
        if not sealer.rules.covers(path):
            return comment
        known = sealer.kept.get((path, "comment", comment.encode(errors="replace")))
        return known or encrypt_comment(comment, sealer.key, path, sealer.entropy)

    form.parse(text)  # refused before anything is made of it
    tree = form.parse(form.change_comments(text, sealed))
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    mac = sealer.seal(tree, moment)
    said = form.emit(tree, Metadata(keys, moment, mac, sealer.rules))
    # What cannot be opened again is not written: only here is the plain text still known.
    Opener(sealer.key, sealer.rules).open(form.parse(said), mac, moment)
    return said


def _open_comments(form: Format, text: str, key: bytes, kept: Kept) -> str:
    """Decrypt comments. Where sops found one is its own secret, so every mapping is tried."""
    if ",type:comment]" not in text:
        return text
    paths: dict[Path, None] = {(): None}
    for _, _, path in leaves(form.parse(text)):
        paths |= dict.fromkeys(path[:end] for end in range(len(path) + 1))

    def opened(comment: str, path: Path) -> str:
        if not is_encrypted(comment.strip()):
            return comment
        for candidate in (path, *paths):
            plain = decrypt_comment(comment.strip(), key, candidate)
            if plain is not None and not set(plain) & set("\r\n\x85\u2028\u2029"):
                kept[path, "comment", plain.encode()] = comment.strip()
                return plain
        raise tampered(("#",))

    return form.change_comments(text, opened)

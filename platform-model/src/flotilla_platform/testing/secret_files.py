"""Secret files for tests: a moment, keys, and the SOPS format said once more, from its description."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyrage
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from ruamel.yaml import YAML

from flotilla_platform.secrets import yaml_files
from flotilla_platform.secrets.age import Identity, parse_identities
from flotilla_platform.secrets.sealing import Format, seal_text
from flotilla_platform.secrets.sops import Rules

NOW = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
MOMENT = "2026-05-17T12:00:00Z"


def make_key() -> tuple[str, Identity]:
    """Return a new age key, as text and parsed."""
    text = str(pyrage.x25519.Identity.generate())
    return text, parse_identities(text, "the test")[0]


class CountedEntropy:
    """Bytes that never repeat, and are no secret."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        """Return the next bytes."""
        self.calls += 1
        return hashlib.shake_256(str(self.calls).encode()).digest(size)


def sealed(
    text: str,
    identity: Identity,
    rules: Rules | None = None,
    form: Format = yaml_files,
) -> str:
    """Return a plain file, encrypted to `identity`."""
    return seal_text(
        form,
        text,
        recipients=[identity.recipient],
        rules=rules or Rules(),
        now=NOW,
        entropy=CountedEntropy(),
    )


def _gcm(key: bytes, nonce: bytes, tag: bytes | None) -> Cipher[Any]:
    return Cipher(algorithms.AES(key), modes.GCM(nonce, tag))


def spelled(value: object) -> tuple[str, bytes]:
    """Return the type and the bytes of a value, by the format's description."""
    if isinstance(value, bool):
        return "bool", str(value).encode()
    if isinstance(value, int):
        return "int", str(value).encode()
    if isinstance(value, float):
        return "float", f"{value:.10f}".rstrip("0").rstrip(".").encode()
    return "str", str(value).encode()


def lock(value: object, key: bytes, bound_to: str, nonce: bytes) -> str:
    """Return a value encrypted, without a line of what is tested."""
    kind, plain = spelled(value)
    if not plain:
        return ""
    encryptor = _gcm(key, nonce, None).encryptor()
    encryptor.authenticate_additional_data(bound_to.encode())
    data = encryptor.update(plain) + encryptor.finalize()
    parts = [base64.b64encode(part).decode() for part in (data, nonce, encryptor.tag)]
    return "ENC[AES256_GCM,data:{},iv:{},tag:{},type:{}]".format(*parts, kind)


def unlock(text: str, key: bytes, bound_to: str) -> str:
    """Return what an encrypted value says, as text, without a line of what is tested."""
    fields = dict(part.split(":", 1) for part in text[len("ENC[AES256_GCM,") : -1].split(","))
    data, nonce, tag = (base64.b64decode(fields[name]) for name in ("data", "iv", "tag"))
    decryptor = _gcm(key, nonce, tag).decryptor()
    decryptor.authenticate_additional_data(bound_to.encode())
    return (decryptor.update(data) + decryptor.finalize()).decode()


def walk(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any, str]]:
    """Return each place of a value: its holder, its step, and what it is bound to."""
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for step, value in list(steps):
        below = (*path, step) if isinstance(tree, dict) else path
        if isinstance(value, dict | list):
            yield from walk(value, below)
        elif value is not None:
            yield tree, step, ":".join(below) + ":"


def plain_data(text: str) -> Any:
    """Return a YAML text as plain data."""
    return YAML(typ="safe", pure=True).load(text)

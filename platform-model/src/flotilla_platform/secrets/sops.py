"""The SOPS format, as sops 3.9 to 3.11 write it: values, the walk over a tree, the MAC. No I/O.

A value is `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`, encrypted with the file's data key (32 bytes,
AES-256-GCM, a nonce of 32 bytes). What it authenticates besides is its path: `database:password:`;
a place in a list is no part of it. Null and the empty string stay as they are. The MAC is a SHA-512
over the plain values in the order of the file, in upper-case hex, encrypted as a value
that authenticates the time of the last change.

What the format does not authenticate: names of keys that it leaves unencrypted, null or empty, and
who wrote the file: whoever knows a recipient can write another file. Git's history says who did.

Source: getsops/sops, aes/cipher.go and sops.go.
"""

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from flotilla_platform.secrets.errors import SecretRefused

type Path = tuple[str, ...]
type Scalar = str | int | float | bool | bytes
type Entropy = Callable[[int], bytes]
"""Returns so many random bytes; only composition roots pass the real one."""
type Kept = dict[tuple[Path, str, bytes], str]
"""Ciphertext of values that were just decrypted, to be reused while the data key stays."""

KEY_BYTES = 32
UNENCRYPTED_SUFFIX = "_unencrypted"
"""What a name ends with whose value stays plain, where a file says nothing else."""
NONCE_BYTES = 32
DEPTH_MAX = 20
"""Nesting beyond which a document holds no secrets but an attack."""

_TAG_BYTES = 16
_NONCE_BYTES_MIN, _NONCE_BYTES_MAX = 12, 64
_INT64 = 2**63
_REGEX_CHARACTERS_MAX = 500
_BASE64 = "([A-Za-z0-9+/]+={0,2})"
_VALUE = re.compile(
    rf"ENC\[AES256_GCM,data:{_BASE64},iv:{_BASE64},tag:{_BASE64},type:([a-z0-9]{{1,10}})\]"
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_MAC_ONLY_ENCRYPTED = hashlib.sha256(b"sops").digest()
"""What a MAC over encrypted values only begins with, so that it is never the other kind's."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which values of a file are encrypted: by the names on their path. At most one is given."""

    unencrypted_suffix: str = ""
    encrypted_suffix: str = ""
    unencrypted_regex: str = ""
    encrypted_regex: str = ""
    mac_only_encrypted: bool = False

    def __post_init__(self) -> None:
        """Refuse two rules, and a pattern that is none."""
        given = [self.unencrypted_suffix, self.encrypted_suffix]
        patterns = [self.unencrypted_regex, self.encrypted_regex]
        if sum(map(bool, given + patterns)) > 1:
            raise SecretRefused("rule-invalid", "a file has one rule of what is encrypted")
        for pattern in filter(None, patterns):
            try:
                if len(pattern) > _REGEX_CHARACTERS_MAX:
                    raise SecretRefused("rule-invalid", "the pattern of what is encrypted is long")
                re.compile(pattern)
            except re.error:
                message = "the pattern of what is encrypted is no regular expression"
                raise SecretRefused("rule-invalid", message) from None

    def covers(self, path: Path) -> bool:
        """Return whether the value at `path` is encrypted."""
        if self.encrypted_suffix:
            return any(name.endswith(self.encrypted_suffix) for name in path)
        if self.encrypted_regex:
            return any(re.search(self.encrypted_regex, name) for name in path)
        if self.unencrypted_regex:
            return not any(re.search(self.unencrypted_regex, name) for name in path)
        suffix = self.unencrypted_suffix or UNENCRYPTED_SUFFIX
        return not any(name.endswith(suffix) for name in path)


def is_encrypted(text: object) -> bool:
    """Return whether `text` has the form of an encrypted value."""
    return isinstance(text, str) and _VALUE.fullmatch(text) is not None


def encrypt_value(value: Scalar, key: bytes, path: Path, entropy: Entropy) -> str:
    """Return `value` as `ENC[…]`; the empty string stays empty.

    Raises:
        SecretRefused: SOPS has no such value (`value-unsupported`).

    """
    return _encrypt(_kind_of(value, path), to_bytes(value, path), key, _spoken(path), entropy)


def encrypt_comment(text: str, key: bytes, path: Path, entropy: Entropy) -> str:
    """Return a comment (what follows its `#`) encrypted; `path` is that of the mapping it is in."""
    return _encrypt("comment", to_bytes(text, path), key, _spoken(path), entropy)


def decrypt_value(text: str, key: bytes, path: Path) -> Scalar:
    """Return what `ENC[…]` says.

    Raises:
        SecretRefused: it is no encrypted value (`not-encrypted`), or it, its name or the key is not
            what it was (`secret-tampered`).

    """
    kind, plain = _decrypt(text, key, _spoken(path), path)
    return _value_of(kind, plain, path)


def decrypt_comment(text: str, key: bytes, path: Path) -> str | None:
    """Return the comment, or None when it is not one of the mapping at `path`."""
    try:
        kind, plain = _decrypt(text, key, _spoken(path), path)
        return plain.decode() if kind == "comment" else None
    except (SecretRefused, UnicodeDecodeError):
        return None


def to_bytes(value: Scalar, path: Path = ()) -> bytes:
    """Return a value as the MAC and the cipher see it: `True`, `1000`, `0.1`, UTF-8."""
    match value:
        case bytes():
            return value
        case bool():
            return b"True" if value else b"False"
        case int():
            return str(int(value)).encode()
        case float():
            return _float_text(float(value)).encode()
    try:
        return str(value).encode()
    except UnicodeEncodeError:
        raise _unsupported(path, "text that is no Unicode") from None


def _float_text(value: float) -> str:
    """Return the shortest decimal that is `value`, without exponent: as Go's format `f`, -1."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _kind_of(value: Scalar, path: Path) -> str:
    match value:
        case bool():
            return "bool"
        case int() if -_INT64 <= value < _INT64:
            return "int"
        case int():
            raise _unsupported(path, "a number beyond 64 bits: quote it")
        case float():
            return "float"
        case str():
            return "str"
        case bytes():
            return "bytes"
    raise _unsupported(path, f"a {type(value).__name__}: quote it")


def _value_of(kind: str, plain: bytes, path: Path) -> Scalar:
    try:
        text = "" if kind == "bytes" else plain.decode()
    except UnicodeDecodeError:
        raise tampered(path) from None
    match kind:
        case "str":
            return text
        case "bytes":
            return plain
        case "int" | "int64" if _INTEGER.fullmatch(text):
            return int(text)
        case "bool" if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        case "float":
            try:
                return float(text)
            except ValueError:
                raise tampered(path) from None
    raise tampered(path)


def _encrypt(kind: str, plain: bytes, key: bytes, bound_to: bytes, entropy: Entropy) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - slow to load

    if not plain:
        return ""
    nonce = entropy(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain, bound_to)
    parts = (sealed[:-_TAG_BYTES], nonce, sealed[-_TAG_BYTES:])
    data, iv, tag = (base64.b64encode(part).decode() for part in parts)
    return f"ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:{kind}]"


def _decrypt(text: str, key: bytes, bound_to: bytes, path: Path) -> tuple[str, bytes]:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - slow to load
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - slow to load

    if text == "":
        return "str", b""
    if not (match := _VALUE.fullmatch(text)):
        raise SecretRefused("not-encrypted", f"{shown(path)} is not an encrypted value")
    data, iv, tag = (_decoded(part, path) for part in match.group(1, 2, 3))
    if len(tag) != _TAG_BYTES or not _NONCE_BYTES_MIN <= len(iv) <= _NONCE_BYTES_MAX:
        raise tampered(path)
    try:
        return match[4], AESGCM(key).decrypt(iv, data + tag, bound_to)
    except InvalidTag:
        raise tampered(path) from None


def _decoded(text: str, path: Path) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise tampered(path) from None
    if base64.b64encode(decoded).decode() != text:  # two spellings of one value: nobody writes that
        raise tampered(path)
    return decoded


def _spoken(path: Path) -> bytes:
    return (":".join(path) + ":").encode()


def shown(path: Path) -> str:
    """Return a path for people: `stringData.NAME`."""
    return repr(".".join(path)) if path else "the document"


def tampered(path: Path) -> SecretRefused:
    """Return the refusal of what is not what was encrypted."""
    return SecretRefused(
        "secret-tampered",
        f"{shown(path)} is not what was encrypted: restore the file from Git, or encrypt it again",
    )


def _unsupported(path: Path, what: str) -> SecretRefused:
    return SecretRefused("value-unsupported", f"{shown(path)}: SOPS cannot encrypt {what}")


@dataclass(slots=True, repr=False)
class Opener:
    """Decrypts a tree in place, and knows afterwards what its MAC must be."""

    key: bytes
    rules: Rules
    kept: Kept = field(default_factory=dict)

    def open(self, tree: Any, mac: str, lastmodified: str) -> None:
        """Decrypt `tree`.

        Raises:
            SecretRefused: a value, its name, the order or the MAC is not what was encrypted.

        """
        digest = _digest(self.rules)
        for parent, step, path in leaves(tree):
            value, covered = parent[step], self.rules.covers(path)
            if covered:
                if not isinstance(value, str):
                    raise SecretRefused("not-encrypted", f"{shown(path)} is not an encrypted value")
                parent[step] = plain = decrypt_value(str(value), self.key, path)
                self.kept[path, _kind_of(plain, path), to_bytes(plain, path)] = str(value)
                value = plain
            else:
                _kind_of(value, path)
            if covered or not self.rules.mac_only_encrypted:
                digest.update(to_bytes(value, path))
        kind, expected = _decrypt(mac, self.key, lastmodified.encode(), ("sops", "mac"))
        found = digest.hexdigest().upper().encode()
        if kind != "str" or not hmac.compare_digest(expected, found):
            raise SecretRefused(
                "mac-mismatch",
                "values were changed, moved or removed after they were encrypted: restore the file "
                "from Git, or encrypt it again",
            )


@dataclass(slots=True, repr=False)
class Sealer:
    """Encrypts a tree in place."""

    key: bytes
    rules: Rules
    entropy: Entropy
    kept: Kept = field(default_factory=dict)

    def seal(self, tree: Any, lastmodified: str) -> str:
        """Encrypt `tree` and return its MAC, encrypted."""
        digest = _digest(self.rules)
        for parent, step, path in leaves(tree):
            value, covered = parent[step], self.rules.covers(path)
            plain, kind = to_bytes(value, path), _kind_of(value, path)
            if covered or not self.rules.mac_only_encrypted:
                digest.update(plain)
            if covered:
                known = self.kept.get((path, kind, plain))
                parent[step] = known or encrypt_value(value, self.key, path, self.entropy)
        mac = digest.hexdigest().upper().encode()
        return _encrypt("str", mac, self.key, lastmodified.encode(), self.entropy)


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Any, Any, Path]]:
    """Return every value that is not null: what holds it, where in that, and its path.

    Raises:
        SecretRefused: a name is no text, or the tree is nested too deeply.

    """
    if len(path) > DEPTH_MAX:
        raise SecretRefused("document-unsupported", f"{shown(path[:3])} … is nested too deeply")
    steps: Any = list(tree) if isinstance(tree, MutableMapping) else range(len(tree))
    for step in steps:
        below = path
        if isinstance(tree, MutableMapping):
            if not isinstance(step, str) or not step.isprintable():
                message = f"a name in {shown(path)} is no printable text: quote it"
                raise SecretRefused("document-unsupported", message)
            below = (*path, str(step))
        child = tree[step]
        if isinstance(child, MutableMapping | MutableSequence):
            yield from leaves(child, below)
        elif child is not None:
            yield tree, step, below


def _digest(rules: Rules) -> "hashlib._Hash":
    digest = hashlib.sha512()
    if rules.mac_only_encrypted:
        digest.update(_MAC_ONLY_ENCRYPTED)
    return digest

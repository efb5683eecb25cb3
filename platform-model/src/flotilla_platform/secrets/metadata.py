"""The block `sops` of an encrypted file: who can open it, when and by which rules it was made."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.sops import UNENCRYPTED_SUFFIX, Rules

SOPS_VERSION = "3.11.0"
"""The version of the format that is written; every sops since 3.7 reads it."""
RECIPIENTS_MAX = 100

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")
_UNSUPPORTED = (
    "key_groups",
    "shamir_threshold",
    "unencrypted_comment_regex",
    "encrypted_comment_regex",
)
_RULES = ("unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A file's data key, encrypted to one recipient (armored age)."""

    recipient: str
    armor: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of its own encryption."""

    keys: tuple[WrappedKey, ...]
    lastmodified: str
    mac: str
    rules: Rules
    version: str = SOPS_VERSION

    @property
    def recipients(self) -> tuple[str, ...]:
        """Who can open the file."""
        return tuple(key.recipient for key in self.keys)


def read_metadata(raw: Mapping[str, Any]) -> Metadata:
    """Return the metadata that a file's block says, all of it still text.

    Raises:
        SecretRefused: the block is damaged, or needs what is not supported: other keys than age, key
            groups, rules by comment.

    """
    for name in _UNSUPPORTED:
        if raw.get(name) not in (None, "", [], "0"):
            message = f"'sops.{name}' is not supported: use age recipients and rules by name"
            raise SecretRefused("metadata-unsupported", message)
    moment, mac = raw.get("lastmodified"), raw.get("mac")
    if not isinstance(moment, str) or not _MOMENT.fullmatch(moment):
        raise _damaged("lastmodified")
    if not isinstance(mac, str) or not mac:
        raise SecretRefused("mac-missing", "the file has no MAC: encrypt it again")
    rules: dict[str, str] = {}
    for name in _RULES:
        value = raw.get(name) or ""
        if not isinstance(value, str):
            raise _damaged(name)
        rules[name] = value
    only = raw.get("mac_only_encrypted") or "false"
    if only not in {"true", "false"}:
        raise _damaged("mac_only_encrypted")
    return Metadata(
        keys=_read_keys(raw.get("age")),
        lastmodified=moment,
        mac=mac,
        rules=Rules(**rules, mac_only_encrypted=only == "true"),
        version=str(raw.get("version") or ""),
    )


def _read_keys(entries: object) -> tuple[WrappedKey, ...]:
    if not isinstance(entries, list) or not entries:
        message = "the file is encrypted to no age recipient, so that no age key opens it"
        raise SecretRefused("recipient-missing", message)
    if len(entries) > RECIPIENTS_MAX:
        raise _damaged("age")
    keys = []
    for entry in entries:
        recipient, armor = (
            (entry.get("recipient"), entry.get("enc")) if isinstance(entry, Mapping) else ("", "")
        )
        if not isinstance(recipient, str) or not isinstance(armor, str) or not recipient:
            raise _damaged("age")
        keys.append(WrappedKey(recipient, armor))
    return tuple(keys)


def write_metadata(metadata: Metadata) -> dict[str, Any]:
    """Return the block as sops 3.10 and later order it; what is empty is left out."""
    rules = {name: getattr(metadata.rules, name) for name in _RULES}
    if not any(rules.values()):
        rules["unencrypted_suffix"] = UNENCRYPTED_SUFFIX
    return {
        "age": [{"recipient": key.recipient, "enc": key.armor} for key in metadata.keys],
        "lastmodified": metadata.lastmodified,
        "mac": metadata.mac,
        **{name: value for name, value in rules.items() if value},
        **({"mac_only_encrypted": True} if metadata.rules.mac_only_encrypted else {}),
        "version": metadata.version,
    }


def _damaged(name: str) -> SecretRefused:
    return SecretRefused("metadata-damaged", f"'sops.{name}' is damaged: restore it from Git")

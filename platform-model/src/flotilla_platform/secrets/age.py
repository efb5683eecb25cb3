"""age keys: whose they are, where they are kept, and data keys encrypted to them.

Found as sops finds them: `SOPS_AGE_KEY` (the key itself), `SOPS_AGE_KEY_FILE` (a path), and
`sops/age/keys.txt` in the folder of the user's configuration; all that there are.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.metadata import WrappedKey
from flotilla_platform.secrets.sops import KEY_BYTES

KEY_MARK = "AGE-SECRET-KEY-1"
"""What every identity begins with; nothing else does."""
IDENTITIES_MAX = 100

_FOREIGN = re.compile(r"ssh-(rsa|ed25519) .+|age1[a-z0-9]+1[a-z0-9]+")
"""Recipients that others may have: SSH keys and plugins. They are read, not written."""


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A secret key. Only its recipient is ever shown."""

    recipient: str
    _secret: Any

    def __repr__(self) -> str:
        """Return it without its secret."""
        return f"Identity({self.recipient})"

    def unwrap(self, armor: str) -> bytes | None:
        """Return the data key, or None when it was encrypted to somebody else or is damaged."""
        import pyrage  # noqa: PLC0415 - slow to load

        try:
            return bytes(pyrage.decrypt(armor.encode(), [self._secret]))
        except (pyrage.DecryptError, UnicodeEncodeError):
            return None


def key_file(environment: Mapping[str, str]) -> Path:
    """Return where this user's identity is kept, whether or not it is there."""
    if named := environment.get("SOPS_AGE_KEY_FILE"):
        return Path(named)
    config = environment.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "sops" / "age" / "keys.txt"


def find_identities(environment: Mapping[str, str]) -> tuple[Identity, ...]:
    """Return every identity of this user; none is no error.

    Raises:
        SecretRefused: a key or its file is damaged; the message does not quote it.

    """
    found: dict[str, Identity] = {}
    texts = {"SOPS_AGE_KEY": environment.get("SOPS_AGE_KEY", "")}
    file = key_file(environment)
    if file.exists():
        try:
            texts[str(file)] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            message = f"the key file {file} cannot be read: check SOPS_AGE_KEY_FILE and its mode"
            raise SecretRefused("identity-unreadable", message) from None
    for origin, text in texts.items():
        for identity in parse_identities(text, origin):
            found[identity.recipient] = identity
    return tuple(found.values())


def parse_identities(text: str, origin: str) -> list[Identity]:
    """Return the identities of a key file's text."""
    import pyrage  # noqa: PLC0415 - slow to load

    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) > IDENTITIES_MAX:
        raise SecretRefused("identity-invalid", f"{origin} has more than {IDENTITIES_MAX} keys")
    found = []
    for key in keys:
        try:
            secret = pyrage.x25519.Identity.from_str(key)
        except pyrage.IdentityError:
            message = f"{origin} has a line that is no age identity ({KEY_MARK}…)"
            raise SecretRefused("identity-invalid", message) from None
        found.append(Identity(str(secret.to_public()), secret))
    return found


def make_identity(file: Path, created: str) -> str:
    """Make an identity in `file` (mode 0600) and return its recipient.

    Raises:
        SecretRefused: the file is there already; it is not changed.

    """
    import pyrage  # noqa: PLC0415 - slow to load

    secret = pyrage.x25519.Identity.generate()
    recipient = str(secret.to_public())
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        message = f"there is a key already in {file}: keep it, files are encrypted to it"
        raise SecretRefused("identity-exists", message) from None
    except OSError as error:
        message = f"{file} cannot be made: {error.strerror}"
        raise SecretRefused("identity-unreadable", message) from None
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(f"# created: {created}\n# public key: {recipient}\n{secret}\n")
    return recipient


def wrap(key: bytes, recipients: Sequence[str]) -> tuple[WrappedKey, ...]:
    """Return `key` encrypted to each recipient.

    Raises:
        SecretRefused: there is none, or one is no age recipient (age1…).

    """
    import pyrage  # noqa: PLC0415 - slow to load

    if not recipients:
        message = "there is nobody to encrypt to: `flotilla secrets init` makes the rule"
        raise SecretRefused("recipient-missing", message)
    wrapped = []
    for recipient in dict.fromkeys(recipients):
        check_recipient(recipient, ours=True)
        to = pyrage.x25519.Recipient.from_str(recipient)
        armor = pyrage.encrypt(key, [to], armored=True).decode()
        wrapped.append(WrappedKey(recipient, armor))
    return tuple(wrapped)


def unwrap(keys: Sequence[WrappedKey], identities: Sequence[Identity]) -> bytes:
    """Return a file's data key.

    Raises:
        SecretRefused: none of the identities opens it (`identity-missing`), or what was encrypted to
            one of them is damaged (`secret-tampered`).

    """
    for wrapped in keys:
        check_recipient(wrapped.recipient)
    if not identities:
        message = "there is no age key on this machine: `flotilla secrets keygen` makes one"
        raise SecretRefused("identity-missing", message)
    for identity in identities:
        for wrapped in keys:
            if wrapped.recipient == identity.recipient:
                found = identity.unwrap(wrapped.armor)
                if found is None or len(found) != KEY_BYTES:
                    message = f"the data key for {identity.recipient} is not what was encrypted"
                    raise SecretRefused("secret-tampered", f"{message}: restore it from Git")
                return found
    raise SecretRefused(
        "identity-missing",
        f"none of the keys of this machine ({_list(i.recipient for i in identities)}) is a recipient "
        f"({_list(wrapped.recipient for wrapped in keys)}): ask one of them to add you",
    )


def check_recipient(recipient: str, *, ours: bool = False) -> None:
    """Refuse what is no recipient; `ours` are those that we can encrypt to: age1… of age itself."""
    import pyrage  # noqa: PLC0415 - slow to load

    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        if ours or not _FOREIGN.fullmatch(recipient):
            message = f"{_shortened(recipient)!r} is no age recipient (age1…): was a letter lost?"
            raise SecretRefused("recipient-invalid", message) from None


def _list(recipients: Any) -> str:
    return ", ".join(map(_shortened, recipients))


def _shortened(recipient: str) -> str:
    """Return it short enough for a line; a secret key in the wrong place is not shown at all."""
    if KEY_MARK.lower() in recipient.lower():
        return "a secret key"
    return recipient if len(recipient) <= 70 else f"{recipient[:70]}…"  # noqa: PLR2004 - a line

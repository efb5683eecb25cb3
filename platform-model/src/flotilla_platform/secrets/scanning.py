"""Plain secrets in text: keys, passwords in YAML, dotenv and URLs, what looks like chance.

It judges what a value looks like and never says what it is. A reference is no secret: `${NAME}`,
`/run/secrets/name`, `{}`; neither are digests, recipients and public keys.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from flotilla_platform.secrets.age import KEY_MARK
from flotilla_platform.secrets.sops import DEPTH_MAX, is_encrypted

_KEY = re.compile(rf"{KEY_MARK}[0-9A-Z]{{10,}}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
_SECRET_NAME = re.compile(
    r"(^|[_.-])(password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|credentials?)$",
    re.IGNORECASE,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/@:]*:([^\s/@]+)@", re.IGNORECASE)
_REFERENCE = re.compile(
    r"\$|\{\{?.*\}|^/|^<.*>$|^(true|false|null|none|yes|no|\d{1,6})$", re.IGNORECASE
)
_CHANCE = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
_ENTROPY_BITS_MIN = 4.0
"""Bits a character: words and paths have less, generated passwords more."""
_WORDS = re.compile(r"[a-z]+([._/-][a-z0-9]+)+|[0-9a-f]{24,}|[A-Z0-9_]+|age1[a-z0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A place where a plain secret seems to be; lines and columns count from 1."""

    line: int
    column: int
    code: str
    wrong: str


def scan(text: str, *, is_yaml: bool, is_dotenv: bool) -> list[Suspect]:
    """Return what looks like a plain secret, in the order of the text."""
    found = list(_keys(text))
    if is_dotenv:
        for number, line in enumerate(text.split("\n"), start=1):
            name, equals, value = line.partition("=")
            if equals and not line.startswith(("#", "sops_")):
                found += _judged(name.strip(), value.strip("'\" \r"), number, len(name) + 2)
    elif is_yaml:
        found += _scan_yaml(text)
    return sorted(set(found), key=lambda suspect: (suspect.line, suspect.column))


def _keys(text: str) -> Iterator[Suspect]:
    for match in _KEY.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        yield Suspect(line, column, "key-in-git", "here is a secret key")


def _scan_yaml(text: str) -> list[Suspect]:
    try:
        documents = list(YAML(typ="safe", pure=True).compose_all(text))
    except Exception:  # noqa: BLE001 - what is no YAML is somebody else's finding; keys were looked for
        return []
    found: list[Suspect] = []
    for root in documents:
        sealed = isinstance(root, MappingNode) and any(n.value == "sops" for n, _ in root.value)
        found += _walk(root, (), kind=_kind(root), sealed=sealed)
    return found


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            if name.value == "kind" and isinstance(value, ScalarNode):
                return str(value.value)
    return ""


def _walk(node: Node, path: tuple[str, ...], *, kind: str, sealed: bool) -> Iterator[Suspect]:
    if isinstance(node, ScalarNode) and path:
        yield from _scalar(node, path, kind)
    if len(path) > DEPTH_MAX or (sealed and path[:1] == ("sops",)):
        return
    if isinstance(node, SequenceNode):
        for item in node.value:
            yield from _walk(item, path, kind=kind, sealed=sealed)
    elif isinstance(node, MappingNode):
        pairs = {str(name.value): value for name, value in node.value}
        variable = pairs.get("name")
        for name, value in node.value:
            said = str(name.value)
            if said == "value" and isinstance(variable, ScalarNode):  # a container's environment
                said = str(variable.value)
            yield from _walk(value, (*path, said), kind=kind, sealed=sealed)


def _scalar(node: ScalarNode, path: tuple[str, ...], kind: str) -> Iterator[Suspect]:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if kind == "Secret" and path[0] in {"data", "stringData"} and node.value:
        if not is_encrypted(node.value):
            wrong = f"{'.'.join(path)} of this Secret is in plain"
            yield Suspect(line, column, "secret-in-plain", wrong)
    elif str(node.tag).endswith(":str") and path[0] != "sops":
        yield from _judged(path[-1], str(node.value), line, column)


def _judged(name: str, value: str, line: int, column: int) -> Iterator[Suspect]:
    if not value or is_encrypted(value):
        return
    url = _URL.search(value)
    if url and not _REFERENCE.search(url[1]):
        yield Suspect(line, column, "password-in-plain", f"the URL of {name} has a password")
    elif _SECRET_NAME.search(name) and not _REFERENCE.search(value):
        yield Suspect(line, column, "password-in-plain", f"{name} is in plain")
    elif any(map(_is_chance, _CHANCE.findall(value))):
        yield Suspect(line, column, "chance-in-plain", f"{name} looks like a generated secret")


def _is_chance(text: str) -> bool:
    """Return whether a run of letters looks generated: mixed, and no letter much more often."""
    if _WORDS.fullmatch(text) or ("/" in text.strip("/") and text.islower()):
        return False
    kinds = (str.isdigit, str.isupper, str.islower)
    if not all(any(map(kind, text)) for kind in kinds):
        return False
    share = [count / len(text) for count in Counter(text).values()]
    return -sum(part * math.log2(part) for part in share) >= _ENTROPY_BITS_MIN

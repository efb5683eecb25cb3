"""YAML files in the SOPS format: order and comments are kept, whatever is encrypted in them.

What sops would resolve silently is refused here: several documents, aliases, names said twice.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.metadata import Metadata, write_metadata
from flotilla_platform.secrets.sops import DEPTH_MAX, Path

METADATA_KEY = "sops"

_INDENT = 4
_OCTAL = re.compile(r"[+-]?0[0-9_]+")
_WIDTH_MAX = 1_000_000
"""An encrypted value is one line."""


def parse(text: str) -> Any:
    """Return a document's tree, without its metadata; it can be changed and emitted again.

    Raises:
        SecretRefused: it is no YAML, or not one mapping.

    """
    root = _compose(text)
    if not isinstance(root, MappingNode):
        message = "the document is no mapping of names to values"
        raise SecretRefused("document-unsupported", message)
    try:
        tree = _yaml().load(text)
    except MarkedYAMLError as error:
        raise _invalid(error) from None
    except Exception:  # noqa: BLE001 - a constructor fails in many ways, and may quote a value
        raise SecretRefused("yaml-invalid", "a value is not what its tag says") from None
    tree.pop(METADATA_KEY, None)
    return tree


def raw_metadata(text: str) -> dict[str, Any] | None:
    """Return the block `sops` with every value as it is written, or None without one."""
    root = _compose(text)
    if not isinstance(root, MappingNode):
        return None
    for name, value in root.value:
        if isinstance(name, ScalarNode) and name.value == METADATA_KEY:
            found = _written(value)
            return found if isinstance(found, dict) else {}
    return None


def emit(tree: Any, metadata: Metadata | None) -> str:
    """Return a tree as text, with its metadata when it is encrypted."""
    if metadata is not None:
        block = write_metadata(metadata)
        for entry in block["age"]:
            entry["enc"] = LiteralScalarString(entry["enc"])
        block["lastmodified"] = DoubleQuotedScalarString(block["lastmodified"])
        tree[METADATA_KEY] = block
    out = io.StringIO()
    try:
        _yaml().dump(tree, out)
    finally:
        tree.pop(METADATA_KEY, None)
    return _tidied(out.getvalue())


def _tidied(text: str) -> str:
    """Return a text whose comments stand two spaces behind a value, however long that was before."""
    for comment in reversed(list(_comments(text)) if " #" in text else []):
        line = text.rfind("\n", 0, comment.start) + 1
        before = text[line : comment.start - 1]
        if before.strip():
            text = f"{text[:line]}{before.rstrip()}  {text[comment.start - 1 :]}"
    return text


def change_comments(text: str, change: Callable[[str, Path], str]) -> str:
    """Return `text` with every comment (what follows its `#`) changed; the metadata has none.

    `change` is told the path of the mapping or list that a comment is in: that of the name below it,
    of the name before it where it ends a line.
    """
    for comment in reversed(list(_comments(text))):
        changed = change(text[comment.start : comment.end], comment.path)
        text = text[: comment.start] + changed + text[comment.end :]
    return text


@dataclass(frozen=True, slots=True)
class _Comment:
    start: int
    end: int
    path: Path


def _comments(text: str) -> Iterator[_Comment]:
    scalars, names = list[tuple[int, int]](), list[tuple[int, Path]]()
    root = _compose(text)
    if root is not None:
        _places(root, (), scalars, names, text)
    inside = bytearray(len(text) + 1)
    for start, end in scalars:
        inside[start:end] = b"\1" * (end - start)
    line = 0
    for content in text.splitlines(keepends=True):
        for at in range(line, line + len(content)):
            before = text[at - 1] if at > line else " "
            if text[at] == "#" and not inside[at] and before in " \t":
                ended = len(content.rstrip("\r\n\x85\u2028\u2029"))
                alone = not content[: at - line].strip()
                yield _Comment(at + 1, line + ended, _path_at(names, at, alone=alone))
                break
        line += len(content)


def _path_at(names: list[tuple[int, Path]], at: int, *, alone: bool) -> Path:
    before = [path for place, path in names if place < at]
    after = [path for place, path in names if place > at]
    chosen = after[:1] if alone else before[-1:]
    return (chosen or before[-1:] or [()])[0]


def _places(
    node: Node, path: Path, scalars: list[tuple[int, int]], names: list[tuple[int, Path]], text: str
) -> None:
    """Note where scalars are, and where the entries of each mapping and list begin."""
    if isinstance(node, ScalarNode):
        start, end = node.start_mark.index, node.end_mark.index
        if node.style in {"|", ">"}:
            header, _, _ = text[start:end].partition("\n")
            if "#" in header:
                message = f"a comment beside {node.style!r} cannot be kept: put it above"
                raise SecretRefused("document-unsupported", message)
            end = _block_end(text, start, end)
        scalars.append((start, end))
    elif isinstance(node, SequenceNode):
        for item in node.value:
            names.append((item.start_mark.index, path))
            _places(item, path, scalars, names, text)
    elif isinstance(node, MappingNode):
        for name, value in node.value:
            names.append((name.start_mark.index, path))
            _places(name, path, scalars, names, text)
            if path or getattr(name, "value", None) != METADATA_KEY:
                _places(value, (*path, str(name.value)), scalars, names, text)
            else:
                scalars.append((value.start_mark.index, value.end_mark.index))


def _block_end(text: str, start: int, end: int) -> int:
    """Return where a block of text ends: comments that follow it, further out, are not its own."""
    lines = text[start:end].splitlines(keepends=True)
    body = [line for line in lines[1:] if line.strip()]
    indent = min((len(line) - len(line.lstrip(" ")) for line in body[:1]), default=0)
    while len(lines) > 1 and (
        not lines[-1].strip() or len(lines[-1]) - len(lines[-1].lstrip(" ")) < indent
    ):
        lines.pop()
    return start + sum(map(len, lines))


def _compose(text: str) -> Node | None:
    """Return the one document of a text as nodes, which know where they stand."""
    try:
        documents: list[Node] = list(YAML(typ="safe", pure=True).compose_all(text))
    except MarkedYAMLError as error:
        raise _invalid(error) from None
    except Exception:  # noqa: BLE001 - a reader fails in many ways, and may quote a value
        raise SecretRefused("yaml-invalid", "this is not YAML") from None
    if len(documents) > 1:
        message = "there are several documents in the file: write one a file"
        raise SecretRefused("document-unsupported", message)
    for root in documents:
        _refuse_unclear(root, 0, set())
    return next(iter(documents), None)


def _refuse_unclear(node: Node, depth: int, seen: set[int]) -> None:
    """Refuse what parsers read differently, and what would be encrypted twice."""
    if depth > DEPTH_MAX + 2:
        raise SecretRefused("document-unsupported", "the document is nested too deeply")
    if id(node) in seen:
        message = "aliases (*name) are not supported: write the value out"
        raise SecretRefused("document-unsupported", message)
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for item in node.value:
            _refuse_unclear(item, depth + 1, seen)
    elif isinstance(node, MappingNode):
        for name, value in node.value:
            if not isinstance(name, ScalarNode):
                raise SecretRefused("document-unsupported", "a name is no text: quote it")
            _refuse_unclear(value, depth + 1, seen)
    elif str(node.tag).endswith(":int") and _OCTAL.fullmatch(str(node.value)):
        where = f"line {node.start_mark.line + 1}"
        message = f"{where}: a number with a leading zero means two things: quote it"
        raise SecretRefused("value-unsupported", message)


def _written(node: Node) -> Any:
    """Return a node as plain data whose scalars are text, as they are written."""
    if isinstance(node, SequenceNode):
        return [_written(item) for item in node.value]
    if isinstance(node, MappingNode):
        return {str(name.value): _written(value) for name, value in node.value}
    return str(node.value)


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = _WIDTH_MAX
    yaml.indent(mapping=_INDENT, sequence=_INDENT + 2, offset=_INDENT)
    return yaml


def _invalid(error: MarkedYAMLError) -> SecretRefused:
    """Return the refusal with a place and without the text: it could be a value's."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return SecretRefused("yaml-invalid", f"{where}this is not YAML")

"""Dotenv files in the SOPS format: `NAME=value` a line, the metadata flattened into `sops_…` lines."""

import re
from collections.abc import Callable
from typing import Any

from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.metadata import Metadata, write_metadata
from flotilla_platform.secrets.sops import Path

_PREFIX = "sops_"
_AGE = re.compile(r"age__list_(\d{1,2})__map_(recipient|enc)")


class DotenvTree(dict[Any, Any]):
    """Names and values; `lines` has them in order, with the comments and blank lines between."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []


def parse(text: str) -> Any:
    """Return the values by name, without the metadata.

    Raises:
        SecretRefused: a line is neither a comment nor `NAME=value`, or a name is there twice.

    """
    tree = DotenvTree()
    for number, line in enumerate(text.split("\n"), start=1):
        name, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            tree.lines.append(("#", line))
        elif not equals or not name:
            message = f"line {number} is neither a comment nor NAME=value"
            raise SecretRefused("dotenv-invalid", message)
        elif name in tree:
            raise SecretRefused("dotenv-invalid", f"line {number}: {name} is there twice")
        elif not name.startswith(_PREFIX):
            tree[name] = value.replace("\\n", "\n")
            tree.lines.append(("=", name))
    return tree


def raw_metadata(text: str) -> dict[str, Any] | None:
    """Return the `sops_…` lines as one block, or None without any."""
    block: dict[str, Any] = {}
    age: dict[int, dict[str, str]] = {}
    for line in text.split("\n"):
        if not line.startswith(_PREFIX):
            continue
        name, _, value = line.removeprefix(_PREFIX).partition("=")
        value = value.replace("\\n", "\n")
        if found := _AGE.fullmatch(name):
            age.setdefault(int(found[1]), {})[found[2]] = value
        else:
            block[name.partition("__")[0] if name.startswith("key_groups") else name] = value
    if age:
        block["age"] = [age[place] for place in sorted(age)]
    return block or None


def emit(tree: Any, metadata: Metadata | None) -> str:
    """Return values and comments as text, with the metadata when they are encrypted.

    Raises:
        SecretRefused: a value cannot be said in a dotenv file.

    """
    lines, said = list[str](), set[str]()
    for kind, text in [*getattr(tree, "lines", []), *(("=", name) for name in tree)]:
        if kind == "#":
            lines.append(text)
        elif text in tree and text not in said:
            said.add(text)
            lines.append(f"{text}={_one_line(text, tree[text])}")
    while lines and not lines[-1]:
        lines.pop()
    if metadata is not None:
        flat = _flatten(write_metadata(metadata))
        lines += [f"{_PREFIX}{name}={_escaped(flat[name])}" for name in sorted(flat)]
    return "".join(f"{line}\n" for line in lines)


def change_comments(text: str, change: Callable[[str, Path], str]) -> str:
    """Return `text` with every comment (what follows its `#`) changed."""
    return "\n".join(
        f"#{change(line[1:], ())}" if line.startswith("#") else line for line in text.split("\n")
    )


def _one_line(name: str, value: object) -> str:
    if not isinstance(value, str) or "\\n" in value or "\r" in value:
        message = (
            f"{name} cannot be said in a dotenv file (no text, or a backslash and n): use YAML"
        )
        raise SecretRefused("value-unsupported", message)
    return _escaped(value)


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n")


def _flatten(block: dict[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in block.items():
        if isinstance(value, list):
            for place, entry in enumerate(value):
                flat |= {f"{name}__list_{place}__map_{key}": entry[key] for key in entry}
        else:
            flat[name] = "true" if value is True else str(value)
    return flat

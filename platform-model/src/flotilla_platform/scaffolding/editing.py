"""Lists in YAML, TOML, INI and Python, extended where their structure says; comments stay."""

import ast
import configparser
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import tomlkit
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

WIDTH = 10_000
"""So wide that no line of a person is folded."""


def edit_yaml(text: str, change: Any) -> str:
    """Return YAML after `change(document)`."""
    yaml: Any = YAML()
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    change(document)
    stream = StringIO()
    yaml.dump(document, stream)
    written = {_squeezed(line): line for line in text.splitlines()}
    return "".join(
        f"{written.get(_squeezed(line), line)}\n" for line in stream.getvalue().splitlines()
    )


def _squeezed(line: str) -> str:
    """Return a line without the spaces that people put inside braces and before comments."""
    indent = line[: len(line) - len(line.lstrip())]
    return indent + " ".join(line.replace("{ ", "{").replace(" }", "}").split())


def flow(content: Mapping[str, Any]) -> CommentedMap:
    """Return a mapping that is written on one line."""
    made = CommentedMap(content)
    for key, value in made.items():
        if isinstance(value, list):
            made[key] = CommentedSeq(value)
            made[key].fa.set_flow_style()
    made.fa.set_flow_style()
    return made


def edit_toml(text: str, change: Any) -> str:
    """Return TOML after `change(document)`."""
    document = tomlkit.parse(text)
    change(document)
    return tomlkit.dumps(document)


def ini_lines(text: str, line: str, places: Sequence[tuple[str, str]]) -> str:
    """Return an INI file with `line` added to the list of each (section, option).

    Raises:
        KeyError: there is no such list.

    """
    parser = configparser.ConfigParser()
    parser.read_string(text)
    lines = text.splitlines()
    for section, option in places:
        last = parser[section][option].split()[-1]
        begin = lines.index(f"[{section}]")
        lines.insert(lines.index(f"    {last}", _option(lines, begin, option)) + 1, f"    {line}")
    return "\n".join(lines) + "\n"


def _option(lines: list[str], begin: int, option: str) -> int:
    return next(
        n for n in range(begin, len(lines)) if lines[n].split(" =")[0].split("=")[0] == option
    )


def python_list(text: str, name: str, element: str) -> str:
    """Return Python with `element` at the end of the tuple, list, set or dict that `name` is.

    Raises:
        KeyError: nothing at the top of the module is called so, or it is no such display.

    """
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if any(isinstance(one, ast.Name) and one.id == name for one in targets) and isinstance(
            value, ast.Tuple | ast.List | ast.Set | ast.Dict
        ):
            end = _offset(text, value.end_lineno or 0, value.end_col_offset or 0) - 1
            before = text[:end].rstrip()
            comma = "" if before.endswith((",", "(", "[", "{")) else ","
            kept = "," if not comma else ""  # a tuple of one, or a list that has an entry a line
            return f"{before}{comma} {element}{kept}{text[end:]}"
    raise KeyError(name)


def python_import(text: str, line: str) -> str:
    """Return Python with an import after its last one; the formatter sorts."""
    last = [n for n in ast.parse(text).body if isinstance(n, ast.Import | ast.ImportFrom)][-1]
    lines = text.splitlines(keepends=True)
    lines.insert(last.end_lineno or 0, line + "\n")
    return "".join(lines)


def _offset(text: str, line: int, column: int) -> int:
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())

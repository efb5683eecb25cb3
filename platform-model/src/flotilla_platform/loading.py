"""YAML that remembers where everything stands, so that every mistake has a line and a column."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

type Steps = tuple[str | int, ...]
"""The way from a document's root to a place in it: keys and indices."""

DEPTH_MAX = 20
"""Nesting beyond which a document is not a model but an attack, or an alias of itself."""

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_WHOLE = re.compile(r"[+-]?\d{1,30}")
_DECIMAL = re.compile(r"[+-]?\d{1,15}\.\d{1,15}")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; lines and columns count from 1, as editors do."""

    file: Path
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        """Return `file:line:column`, relative to the working directory where that is shorter."""
        here = Path.cwd()
        file = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"{file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a model, and what to write instead."""

    position: Position
    wrong: str
    instead: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.position}: {self.wrong}; {self.instead}"


class ModelInvalid(Exception):
    """The model has mistakes: all of them, not only the first."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file as plain data, and where each of its keys and values stands."""

    file: Path
    content: object
    keys: dict[Steps, Position] = field(default_factory=dict)
    values: dict[Steps, Position] = field(default_factory=dict)

    def at(self, *steps: str | int) -> Position:
        """Return where the value at `steps` stands; the nearest place above when it is missing."""
        while steps and steps not in self.values:
            steps = steps[:-1]
        return self.values.get(steps, Position(self.file))

    def at_key(self, *steps: str | int) -> Position:
        """Return where the key at `steps` stands; the value's place when it has no key."""
        return self.keys.get(steps) or self.at(*steps)


def did_you_mean(word: object, known: Sequence[str]) -> str | None:
    """Return the word that was probably meant, or None."""
    return next(iter(get_close_matches(str(word), known, n=1)), None)


def suggest(word: object, known: Sequence[str]) -> str:
    """Return `did you mean 'x'?`, or what there is to choose from."""
    meant = did_you_mean(word, known)
    return f"did you mean {meant!r}?" if meant else f"write one of: {', '.join(known) or '(none)'}"


def read_document(file: Path) -> Document:
    """Read a YAML file.

    Raises:
        ModelInvalid: it cannot be read, is no YAML, or says a key twice.

    """
    root, *more = _nodes(file) or [None]
    for second in filter(None, more):
        where = _position(file, second)
        raise _invalid(where, "this is a second document", "write one document a file")
    if root is None:
        raise _invalid(Position(file), "the file is empty", "start with `name: …`")
    return _document(file, root)


def read_documents(file: Path) -> list[Document]:
    """Read a YAML file of any number of documents. Raises as `read_document`."""
    return [_document(file, root) for root in _nodes(file) if root is not None]


def _nodes(file: Path) -> list[Node | None]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _invalid(Position(file), f"the file cannot be read: {reason}", "repair it") from error
    try:
        return list(YAML(typ="safe", pure=True).compose_all(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
        problem = error.problem or error.context or "unreadable"
        raise _invalid(where, f"this is not YAML: {problem}", "check what stands before") from error
    except YAMLError as error:  # a character that YAML does not allow: no mark
        reason = str(error).splitlines()[0]
        raise _invalid(Position(file), f"this is not YAML: {reason}", "remove it") from error


def _document(file: Path, root: Node) -> Document:
    document = Document(file, None)
    mistakes: list[Mistake] = []
    content = _plain(root, (), document, mistakes)
    if mistakes:
        raise ModelInvalid(mistakes)
    return Document(file, content, document.keys, document.values)


def _invalid(position: Position, wrong: str, instead: str) -> ModelInvalid:
    return ModelInvalid([Mistake(position, wrong, instead)])


def _plain(node: Node, steps: Steps, into: Document, mistakes: list[Mistake]) -> object:
    """Return a node as plain data, and note its positions in `into`."""
    into.values[steps] = _position(into.file, node)
    if len(steps) > DEPTH_MAX:
        mistakes.append(Mistake(into.at(*steps), "this is nested too deeply", "write it out flat"))
        return None
    if isinstance(node, SequenceNode):
        return [_plain(n, (*steps, i), into, mistakes) for i, n in enumerate(node.value)]
    if isinstance(node, MappingNode):
        content: dict[str, object] = {}
        for name, key, value in _entries(node):
            where = _position(into.file, key)
            if name in content:
                first = into.keys[*steps, name]
                mistakes.append(
                    Mistake(
                        where,
                        f"the key {name!r} is here twice (first in line {first.line})",
                        "keep one of them",
                    )
                )
                continue
            into.keys[*steps, name] = where
            content[name] = _plain(value, (*steps, name), into, mistakes)
        return content
    return _scalar(node)


def _entries(node: MappingNode) -> Iterator[tuple[str, Node, Node]]:
    for key, value in node.value:
        yield (str(key.value) if isinstance(key, ScalarNode) else "?"), key, value


def _scalar(node: Node) -> object:
    text = str(node.value)
    match str(node.tag).removeprefix(_TAG):
        case "int" if _WHOLE.fullmatch(text):
            return int(text)
        case "bool" | "null":
            return _WORDS.get(text.lower(), text)
        case "float" if _DECIMAL.fullmatch(text):
            return float(text)
        case _:  # infinity, a date, too many digits: no key takes one, so it is named as written
            return text


def _position(file: Path, node: Node) -> Position:
    return Position(file, node.start_mark.line + 1, node.start_mark.column + 1)

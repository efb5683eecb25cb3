"""Diagrams as Mermaid flowcharts: nodes, edges, groups. Labels are quoted: they may be anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["LR", "TB"]
Shape = Literal["box", "store", "round"]
_SHAPES: dict[Shape, tuple[str, str]] = {
    "box": ("[", "]"),
    "store": ("[(", ")]"),
    "round": ("([", "])"),
}


@dataclass(slots=True)
class Flowchart:
    """A picture in the making. Names may be used before they are drawn."""

    direction: Direction = "LR"
    lines: list[str] = field(default_factory=list)

    def node(self, name: str, label: str, shape: Shape = "box", indent: int = 1) -> None:
        """Draw a node."""
        left, right = _SHAPES[shape]
        self.lines.append(f"{'  ' * indent}{node_id(name)}{left}{_quoted(label)}{right}")

    def edge(self, start: str, end: str, label: str = "", *, dotted: bool = False) -> None:
        """Draw an arrow."""
        arrow = "-.->" if dotted else "-->"
        said = f"|{_quoted(label)}|" if label else ""
        self.lines.append(f"  {node_id(start)} {arrow}{said} {node_id(end)}")

    def group(self, name: str, label: str, members: Iterable[tuple[str, str]]) -> None:
        """Draw nodes, by name and label, in a frame."""
        self.lines.append(f"  subgraph {node_id(name)}[{_quoted(label)}]")
        for member, text in members:
            self.node(member, text, indent=2)
        self.lines.append("  end")

    def text(self) -> str:
        """Return it as a block of Markdown."""
        return "\n".join(["```mermaid", f"flowchart {self.direction}", *self.lines, "```"])


def node_id(name: str) -> str:
    """Return a name that is no word of Mermaid's, as `end` would be: letters, digits, underscores."""
    return "n_" + "".join(one if one.isalnum() else "_" for one in name)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ") or " "


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;") + '"'

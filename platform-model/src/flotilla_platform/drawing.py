"""The picture of a workflow as an SVG file that needs nothing else: no font, no script, no style sheet.

Steps stand in rows: one stands below everything that it builds on. Colours say where each stands, and
the line below its name says why. Lengths are in pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from flotilla_contracts.workflow import WorkflowDetail, WorkflowStep

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 270, 76, 36, 48, 24
PILL_HEIGHT = 50
CHARACTERS_MAX = 42
"""What fits into a box, at 11 pixels a letter's height."""
LOOKS = {
    "done": ("#d3f2d3", "#2a7d2a", ""),
    "now": ("#fff3c4", "#a67c00", ""),
    "failed": ("#f8d0d0", "#a32020", ""),
    "undone": ("#e4e4e4", "#777777", "5 4"),
    "later": ("#ffffff", "#bbbbbb", ""),
}
"""Fill, line and dashes by where a step stands; the same colours as the Mermaid picture's."""
_ENDS = {"completed": "done", "stuck": "failed", "compensated": "undone", "cancelled": "undone"}


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with up to three lines in it; `x` and `y` are its upper left corner."""

    x: float
    y: float
    height: int
    lines: tuple[str, ...]
    look: str

    @property
    def middle(self) -> float:
        """Return where its middle is, from the left."""
        return self.x + WIDTH / 2

    def svg(self) -> Iterator[str]:
        """Yield its elements."""
        fill, stroke, dashes = LOOKS[self.look]
        wide = 2.5 if self.look == "now" else 1.4
        corner = self.height / 2 if self.height == PILL_HEIGHT else 8
        yield (
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{WIDTH}" height="{self.height}"'
            f' rx="{corner:g}" fill="{fill}" stroke="{stroke}" stroke-width="{wide}"'
            + (f' stroke-dasharray="{dashes}"' if dashes else "")
            + "/>"
        )
        top = self.y + self.height / 2 - 9 * (len(self.lines) - 1) + 4
        for n, line in enumerate(self.lines):
            style = 'font-size="13" font-weight="bold"' if n == 0 else 'font-size="11"'
            slant = ' font-style="italic"' if n > 1 else ""
            yield (
                f'<text x="{self.middle:g}" y="{top + 18 * n:g}" {style}{slant}>{_text(line)}</text>'
            )


def svg(detail: WorkflowDetail) -> str:
    """Return the picture of an instance."""
    rows = layers(detail.steps)
    columns = max(map(len, rows))
    width = columns * WIDTH + (columns - 1) * GAP_X + 2 * MARGIN
    centre = (width - WIDTH) / 2
    start = Box(
        centre, MARGIN, PILL_HEIGHT, (f"{detail.workflow} v{detail.version}", detail.key), "later"
    )
    boxes, y = dict[str, Box](), float(MARGIN + PILL_HEIGHT + GAP_Y)
    for row in rows:
        x = (width - len(row) * WIDTH - (len(row) - 1) * GAP_X) / 2
        for step in row:
            lines = tuple(filter(None, (step.name, step.does, step.why)))
            boxes[step.name] = Box(x, y, HEIGHT, lines, step.standing)
            x += WIDTH + GAP_X
        y += HEIGHT + GAP_Y
    told = tuple(filter(None, (detail.status, detail.reason)))
    end = Box(centre, y, PILL_HEIGHT, told, _ENDS.get(detail.status, "now"))
    needed = {name for step in detail.steps for name in step.depends_on}
    edges = [
        _line(above, boxes[step.name])
        for step in detail.steps
        for above in ([boxes[name] for name in step.depends_on] or [start])
    ]
    edges += [_line(boxes[step.name], end) for step in detail.steps if step.name not in needed]
    drawn = [element for box in (start, *boxes.values(), end) for element in box.svg()]
    height = y + PILL_HEIGHT + MARGIN
    return "\n".join([*_head(detail, width, height), *edges, *drawn, "</svg>", ""])


def layers(steps: Sequence[WorkflowStep]) -> list[list[WorkflowStep]]:
    """Return the steps in rows: each as high as it can stand below all that it builds on."""
    levels: dict[str, int] = {}
    waiting = list(steps)
    while waiting:
        ready = [step for step in waiting if all(name in levels for name in step.depends_on)]
        for step in ready or waiting[:1]:
            levels[step.name] = 1 + max((levels.get(n, -1) for n in step.depends_on), default=-1)
        waiting = [step for step in waiting if step.name not in levels]
    rows: list[list[WorkflowStep]] = [[] for _ in range(max(levels.values()) + 1)]
    for step in steps:
        rows[levels[step.name]].append(step)
    return rows


def _head(detail: WorkflowDetail, width: float, height: float) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" text-anchor="middle"'
        ' fill="#222222">'
    )
    yield f"<title>{escape(detail.instance)}: {detail.status}</title>"
    yield (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
        ' markerHeight="8" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#777777"/></marker></defs>'
    )
    yield f'<rect width="{width:g}" height="{height:g}" fill="#fcfcfc"/>'


def _line(above: Box, below: Box) -> str:
    x1, y1, x2, y2 = above.middle, above.y + above.height, below.middle, below.y
    bend = (y2 - y1) / 2
    path = f"M{x1:g},{y1:g} C{x1:g},{y1 + bend:g} {x2:g},{y2 - bend:g} {x2:g},{y2:g}"
    return f'<path d="{path}" fill="none" stroke="#777777" stroke-width="1.4" marker-end="url(#arrow)"/>'


def _text(text: str) -> str:
    short = text if len(text) <= CHARACTERS_MAX else text[: CHARACTERS_MAX - 1] + "…"
    return escape("".join(c if c.isprintable() else " " for c in short))

"""Where an instance stands, and why, as a picture: Mermaid text that any Markdown viewer draws."""

from datetime import datetime

from flotilla.workflow.definition import Definition, Step
from flotilla.workflow.state import Instance, Phase, Status, Work

_LOOKS = {
    "done": "fill:#d3f2d3,stroke:#2a7d2a",
    "now": "fill:#fff3c4,stroke:#a67c00,stroke-width:2px",
    "failed": "fill:#f8d0d0,stroke:#a32020",
    "undone": "fill:#e4e4e4,stroke:#777777,stroke-dasharray:4",
    "later": "fill:#ffffff,stroke:#bbbbbb",
}
_CLASSES = {Phase.DONE: "done", Phase.FAILED: "failed", Phase.SPENT: "failed"}
TEXT_LENGTH_MAX = 120


def picture(definition: Definition, instance: Instance) -> str:
    """Return a flowchart of the steps; what is going on is marked, with its reason."""
    lines = ["flowchart TD"]
    start = f"{definition.name} v{definition.version}<br/>{_text(instance.key)}"
    lines.append(f'    start(["{start}"])')
    for n, step in enumerate(definition.steps):
        look, why = standing(step, instance)
        told = f"<br/><i>{_text(why)}</i>" if why else ""
        lines.append(f'    s{n}["<b>{step.name}</b><br/>{_text(does(step))}{told}"]:::{look}')
    numbers = {step.name: f"s{n}" for n, step in enumerate(definition.steps)}
    needed = {name for step in definition.steps for name in step.depends_on}
    for step in definition.steps:
        before = [numbers[name] for name in step.depends_on] or ["start"]
        lines += [f"    {one} --> {numbers[step.name]}" for one in before]
    ends = {Status.COMPLETED: "done", Status.STUCK: "failed", Status.COMPENSATED: "undone"}
    reason = f"<br/>{_text(instance.reason)}" if instance.reason else ""
    lines.append(f'    ending(["{instance.status}{reason}"]):::{ends.get(instance.status, "now")}')
    lines += [f"    {numbers[s.name]} --> ending" for s in definition.steps if s.name not in needed]
    lines += [f"    classDef {name} {style}" for name, style in _LOOKS.items()]
    return "\n".join(lines) + "\n"


def does(step: Step) -> str:
    """Return in words what a step does."""
    if step.call:
        return step.call.subject
    if step.timer_s:
        return f"pause of {step.timer_s:g} s"
    if step.wait_for:
        return f"wait for {step.wait_for.event}"
    return f"approval of {step.approval.by}" if step.approval else ""


def standing(step: Step, instance: Instance) -> tuple[str, str]:
    """Return how a step stands (`done`, `now`, `failed`, `undone`, `later`), and why."""
    undone_now = instance.undoing and instance.effects[-1].step == step.name
    if undone_now and instance.undoing:
        return _CLASSES.get(instance.undoing.phase, "now"), f"undoing: {_told(instance.undoing)}"
    work = instance.steps.get(step.name)
    if work is None:
        if step.name in instance.attempts and instance.status is not Status.RUNNING:
            return "undone", "taken back"
        return "later", ""
    return _CLASSES.get(work.phase, "now"), "" if work.phase is Phase.DONE else _told(work)


def _told(work: Work) -> str:
    """Return in words what a step does now."""
    match work.phase:
        case Phase.ASKING:
            return f"try {work.tries}, until {_at(work.until)}"
        case Phase.PAUSING:
            return f"try {work.tries} failed: {work.why}; again at {_at(work.until)}"
        case Phase.TIMING:
            return f"until {_at(work.until)}"
        case Phase.AWAITING | Phase.APPROVING:
            return f"waits {work.why}, until {_at(work.until)}"
        case _:
            return work.why


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z" if moment else "it comes"


def _text(text: str) -> str:
    """Return text that cannot break out of a label."""
    short = text if len(text) <= TEXT_LENGTH_MAX else text[: TEXT_LENGTH_MAX - 1] + "…"
    safe = "".join(c if c.isprintable() else " " for c in short)
    return (
        safe.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    )

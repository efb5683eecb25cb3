"""Workflows to test with: one of each kind of step."""

from typing import Any

from flotilla.workflow.definition import Definition, definition_from


def command(name: str, **more: Any) -> dict[str, Any]:
    """Return a step that does something, and knows how to undo it."""
    return {
        "name": name,
        "command": f"cmd.shop.{name}",
        "with": {"order": "${trigger.order}"},
        "compensation": {"command": f"cmd.shop.un-{name}", "with": {"order": "${trigger.order}"}},
    } | more


def workflow(*steps: dict[str, Any], version: int = 1, **more: Any) -> Definition:
    """Return a workflow of these steps."""
    return definition_from(
        {
            "name": "ordering",
            "version": version,
            "trigger": {"command": "order", "input": ["order"]},
            "key": "${trigger.order}",
            "steps": list(steps),
        }
        | more
    )


IN_A_ROW = workflow(command("reserve"), command("charge"), command("ship"))
SIDE_BY_SIDE = workflow(
    command("reserve"),
    command("charge", depends_on=["reserve"]),
    command("notify", depends_on=["reserve"], compensation="none"),
    command("ship", depends_on=["charge", "notify"]),
)
OF_EVERYTHING = workflow(
    command("reserve"),
    {"name": "think", "timer": {"after_s": 3600}},
    {"name": "agreed", "approval": {"role": "owner"}, "deadline_s": 86_400},
    {
        "name": "paid",
        "wait_for": {"event": "invoice.paid.v1", "key": "${event.order}"},
        "deadline_s": 86_400,
    },
    command("ship", **{"with": {"order": "${steps.paid.order}", "by": "${steps.agreed.by}"}}),
)

"""Workflows to test with: one of each kind of step."""

from typing import Any

from flotilla.workflow.definition import Definition, definition_from

ORDER = {"order": "${trigger.order}"}


def call(name: str, **parameters: Any) -> dict[str, Any]:
    """Return a call of the shop."""
    return {"service": "shop", "command": name, "parameters": parameters or ORDER}


def does(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    """Return a step that does something, and knows how to undo it."""
    step = {"name": name, "call": call(name), "compensation": call(f"un-{name}")}
    return step | {"depends_on": list(needs)} | more


def workflow(*steps: dict[str, Any], version: int = 1, **more: Any) -> Definition:
    """Return a workflow of these steps."""
    document: dict[str, Any] = {
        "name": "ordering",
        "version": version,
        "trigger": {"command": {"service": "shop", "command": "order"}},
        "idempotency_key": "${trigger.order}",
        "steps": list(steps),
    } | more
    return definition_from(document)


PAID = {"event": "invoice.paid.v1", "where": ORDER}
IN_A_ROW = workflow(does("reserve"), does("charge", "reserve"), does("ship", "charge"))
SIDE_BY_SIDE = workflow(
    does("reserve"),
    does("charge", "reserve"),
    does("notify", "reserve", compensation=None),
    does("ship", "charge", "notify"),
)
OF_EVERYTHING = workflow(
    does("reserve"),
    {"name": "think", "timer_s": 30, "depends_on": ["reserve"]},
    {"name": "agreed", "approval": {"by": "sales"}, "timeout_s": 600, "depends_on": ["think"]},
    {"name": "paid", "wait_for": PAID, "timeout_s": 600, "depends_on": ["agreed"]},
    does(
        "ship",
        "paid",
        call=call("ship", order="${steps.paid.result.order}", by="${steps.agreed.result.by}"),
    ),
)

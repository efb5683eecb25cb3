"""Whether the kernel will run a workflow of the model: what its service would say when it starts.

The kernel's checks (`flotilla.workflow.checking`) name places in words: `steps.reserve.call.parameters`.
Here they become places in the file.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from flotilla_platform.loading import Mistake, Steps
from flotilla_platform.model import Platform, Workflow

if TYPE_CHECKING:
    from flotilla.workflow.expressions import Json

_CURE = "correct it; docs/runbooks/workflows.md tells what a definition may say"


def check_definition(platform: Platform, workflow: Workflow) -> list[Mistake]:
    """Return what would be refused when a workflow is published, each mistake with its place."""
    # Brings the kernel's workflows and all contracts: only for models that have workflows.
    from flotilla.workflow.checking import Contract, mistakes  # noqa: PLC0415 - see above
    from flotilla.workflow.definition import (  # noqa: PLC0415 - see above
        DefinitionInvalid,
        definition_from,
    )
    from flotilla_contracts.catalog import COMMANDS, EVENTS  # noqa: PLC0415 - see above

    document = platform.documents["workflow", workflow.name]
    contract = Contract.of(COMMANDS, (event for group in EVENTS.values() for event in group))
    try:
        told = list(mistakes(definition_from(cast("Json", document.content)), contract))
    except DefinitionInvalid as error:
        told = [str(error)]
    return [
        Mistake(platform.at("workflow", workflow.name, *_place(workflow, one)), *_halves(one))
        for one in told
    ]


def _place(workflow: Workflow, told: str) -> Steps:
    """Return the way to what a mistake is about: its first word, with the numbers of its steps."""
    names = [step.name for step in workflow.steps]
    return tuple(_steps(re.split(r"[:\s]", told, maxsplit=1)[0].split("."), names))


def _steps(words: list[str], names: list[str]) -> Iterator[str | int]:
    for place, word in enumerate(words):
        is_step = place == 1 and words[0] == "steps" and word in names
        yield names.index(word) if is_step else word


def _halves(told: str) -> tuple[str, str]:
    """Return what is wrong, and what to write instead where that is said."""
    for mark in ("; ", ": did you mean"):
        wrong, found, instead = told.partition(mark)
        if found:
            return wrong, f"{mark.removeprefix(': ').removeprefix('; ')}{instead}"
    return told, _CURE

"""What this service is given to run: checked before it starts; what it stores: as the contracts say."""

from typing import Any

import pytest

from flotilla.clock import uuid7
from flotilla.settings import StartRefused
from flotilla.stores.memory import MemoryStore
from flotilla.workflow.book import EVENTS as OF_BOOK
from flotilla.workflow.book import Book
from flotilla.workflow.events import EVENTS as OF_INSTANCES
from flotilla_contracts.workflow import EVENTS, WorkflowErrorCode
from svc_workflow.definitions import contract, definitions, publish

CALL = {"service": "counter", "command": "increment", "parameters": {"counter_id": "c", "by": 1}}


def written(**more: Any) -> dict[str, Any]:
    return {
        "name": "counting",
        "version": 1,
        "trigger": {"event": "counter.opened.v1"},
        "idempotency_key": "${trigger.counter_id}",
        "steps": [{"name": "count", "call": CALL, "compensation": None}],
    } | more


def test_what_is_stored_is_what_the_contracts_say() -> None:
    stored: tuple[Any, ...] = (*OF_BOOK, *OF_INSTANCES)
    assert [e.type for e in stored] == [e.type for e in EVENTS]
    for kernels, contracts in zip(stored, EVENTS, strict=True):
        assert kernels.model_json_schema() == contracts.model_json_schema()


def test_what_workflows_refuse_has_the_contracts_codes() -> None:
    from flotilla.workflow import asked, instances  # noqa: PLC0415 - looked at as a whole

    kinds = [*vars(asked).values(), instances.KeyInvalid]
    refused = {k.default_code for k in kinds if isinstance(k, type) and hasattr(k, "default_code")}
    assert {code.value for code in WorkflowErrorCode} == refused - {"rejected"}


def test_definitions_are_those_of_this_environment() -> None:
    documents = {"a.yaml": written(), "b.yaml": written(name="b", environments=["staging"])}
    assert ["counting"] == [d.name for d in definitions(documents, "", contract())]
    assert ["counting", "b"] == [d.name for d in definitions(documents, "staging", contract())]


def test_every_mistake_of_every_file_refuses_the_start() -> None:
    wrong = {
        "a.yaml": written(steps=[{"name": "count", "call": CALL}]),
        "b.yaml": written(trigger={"event": "counter.opend.v1"}),
        "c.yaml": {"name": "c"},
    }
    with pytest.raises(StartRefused) as refused:
        definitions(wrong, "", contract())
    assert "workflow-invalid" == refused.value.code
    told = str(refused.value)
    assert "a.yaml: counting v1: steps.count.compensation is missing" in told
    assert "did you mean 'counter.opened.v1'?" in told
    assert "c.yaml: version: Field required" in told


async def test_a_published_version_with_other_content_refuses_the_start() -> None:
    book = Book(MemoryStore(), uuid7)
    await publish(book, definitions({"a.yaml": written()}, "", contract()))
    other = written(idempotency_key="x-${trigger.counter_id}")
    with pytest.raises(StartRefused, match="write version 2") as refused:
        await publish(book, definitions({"a.yaml": other}, "", contract()))
    assert "workflow-version-changed" == refused.value.code

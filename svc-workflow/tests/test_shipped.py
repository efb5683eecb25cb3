"""The workflows that are shipped, rehearsed: whatever goes wrong, one end or nothing is left."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flotilla.testing.workflows import Play, WorkflowContract
from flotilla.workflow.checking import check
from flotilla.workflow.definition import definition_from
from flotilla_contracts.tenant_events import (
    TenantCreated,
)
from svc_workflow.definitions import contract

FOLDER = Path(__file__).parents[2] / "platform-model" / "workflows"


class TestTenantOnboarding(WorkflowContract):
    @pytest.fixture
    def play(self) -> Play:
        definition = definition_from(YAML(typ="safe").load(FOLDER / "tenant-onboarding.yaml"))
        check(definition, contract())
        return Play(
            definition,
            TenantCreated(tenant_id="acme", name="Acme", plan="free", actor_id="ann").model_dump(
                mode="json"
            ),
        )

"""The platform model says of the shipped services what their code does: nothing more, nothing else."""

import importlib
from typing import get_args

import pytest

from flotilla.settings import ServiceSettings
from flotilla_contracts.catalog import COMMANDS, EVENTS, QUERIES
from flotilla_contracts.health import health_subject
from flotilla_contracts.parked import retry_subject
from flotilla_platform.model import Service
from flotilla_platform.reading import find_model, read_platform
from flotilla_platform.validators import VALIDATORS, run_validators
from svc_counter.application import AGGREGATE

PLATFORM = read_platform(find_model())
SERVICES = list(PLATFORM.services.values())


def test_every_command_of_the_contracts_is_taken_by_one_service() -> None:
    told = [subject for service in SERVICES for subject in service.command_subjects]
    assert sorted(told) == sorted(
        [*(command.subject for command in COMMANDS), retry_subject("projector")]
    )


def test_every_query_of_the_contracts_is_answered_by_one_service() -> None:
    told = [subject for service in SERVICES for subject in service.query_subjects]
    health = [health_subject(service.name) for service in SERVICES]
    assert sorted(told) == sorted([*(query.subject for query in QUERIES), *health])


def test_events_are_those_of_the_contracts() -> None:
    told = {service.name: set(service.events) for service in SERVICES if service.events}
    assert told == {name: {event.type for event in events} for name, events in EVENTS.items()}


def test_aggregates_and_idempotency_scopes_are_those_of_the_code() -> None:
    counter = PLATFORM.services["counter"]
    assert counter.aggregates == (AGGREGATE,)
    assert {command.idempotency_scope for command in counter.commands} == {AGGREGATE}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_entrypoints_and_settings_are_where_the_model_says(service: Service) -> None:
    module, _, function = service.entrypoint.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    settings = importlib.import_module(f"{module.partition('.')[0]}.settings").Settings
    assert issubclass(settings, ServiceSettings)
    assert settings.model_config["env_prefix"] == service.settings_prefix


def test_projections_are_those_of_the_code() -> None:
    projector = PLATFORM.services["projector"]
    assert projector.read_models is not None
    module, _, function = projector.read_models.partition(":")
    folded = getattr(importlib.import_module(module), function)().projections
    told = {
        (one.name, one.logs, one.staleness_budget_ms / 1000, one.partitions)
        for one in projector.projections
    }
    partitions = {one.name: getattr(one, "partitions", 1) for one in folded}
    assert told == {
        (one.name, (one.log,), one.staleness_budget_s, partitions[one.name]) for one in folded
    }


def test_environments_have_profiles_that_the_edge_knows() -> None:
    module = importlib.import_module("svc_web_bff.settings")
    known = get_args(module.Settings.model_fields["profile"].annotation)
    assert {environment.profile for environment in PLATFORM.environments.values()} <= set(known)


def test_the_model_passes_every_validator() -> None:
    findings = run_validators(PLATFORM, VALIDATORS)
    told = [str(mistake) for finding in findings for mistake in finding.mistakes or ()]
    assert told == []
    assert all(finding.passed for finding in findings)


def test_owned_paths_are_there() -> None:
    paths = [path for owner in PLATFORM.owners.values() for path in owner.paths]
    assert [path for path in paths if not (find_model().parent / path).exists()] == []

"""The library's own test cases, unmodified, against our recorders on a real server.

They are unittest classes; an autouse fixture gives each test its settings, with a schema of its own.
"""

from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ProcessRecorder,
    TrackingRecorder,
)
from eventsourcing.tests import persistence as cases
from eventsourcing.utils import Environment

from flotilla.interop.eventsourcing import (
    Factory,
    FlotillaAggregateRecorder,
    FlotillaApplicationRecorder,
    FlotillaProcessRecorder,
    FlotillaTrackingRecorder,
)


class WithFactory:
    """`self.factory`, closed after the test."""

    env: Environment
    factory: Factory

    @pytest.fixture(autouse=True)
    def _factory(self, env: Environment) -> Iterator[None]:
        self.env = env
        self.factory = Factory(env)
        yield
        self.factory.close()


class TestAggregateRecorder(WithFactory, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder()


class TestSnapshotRecorder(WithFactory, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder("snapshots")


class TestApplicationRecorder(WithFactory, cases.ApplicationRecorderTestCase[Any]):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class WithTextIds(WithFactory):
    @pytest.fixture(autouse=True)
    def _factory(self, env: Environment) -> Iterator[None]:
        env["ORIGINATOR_ID_TYPE"] = "text"
        self.env = env
        self.factory = Factory(env)
        yield
        self.factory.close()

    def new_originator_id(self) -> str:
        return f"täxt/{uuid4()}"


class TestAggregateRecorderWithTextIds(WithTextIds, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder()


class TestApplicationRecorderWithTextIds(WithTextIds, cases.ApplicationRecorderTestCase[Any]):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(WithFactory, cases.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory.tracking_recorder()


class TestProcessRecorder(WithFactory, cases.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        return self.factory.process_recorder()


class TestProcessRecorderAsApplicationRecorder(WithFactory, cases.ApplicationRecorderTestCase[Any]):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.process_recorder()


class TestProcessRecorderAsTrackingRecorder(WithFactory, cases.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory.process_recorder()


class TestNotificationIdsDoNotInterleave(WithFactory, cases.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()


class OtherTrackingRecorder(FlotillaTrackingRecorder):
    pass


class TestFactory(cases.InfrastructureFactoryTestCase[Factory]):
    @pytest.fixture(autouse=True)
    def _env(self, env: Environment) -> None:
        self.env = env

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return FlotillaAggregateRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return FlotillaApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return FlotillaTrackingRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return OtherTrackingRecorder

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        return cast("type[ProcessRecorder]", FlotillaProcessRecorder)

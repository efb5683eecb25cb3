"""Applications of the library, with one setting changed: what is in our tables afterwards."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.application import AggregateNotFoundError, Application, ProcessingEvent
from eventsourcing.cipher import AESCipher
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    OperationalError,
    StoredEvent,
    Tracking,
)
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.system import ProcessApplication, SingleThreadedRunner, System
from eventsourcing.utils import register_topic
from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL

from flotilla import OutboxEntry
from flotilla.embedded import PostgresServer
from flotilla.interop import datastore, recorders
from flotilla.interop.eventsourcing import (
    Factory,
    FlotillaApplicationRecorder,
    FlotillaTrackingRecorder,
)
from flotilla.interop.shape import to_row
from flotilla.outbox import Offset
from flotilla.store import Append, Committed, NewEvent, Unit, Version, stream_id
from flotilla.stores.postgres import PostgresStore, connection

Settings = Mapping[str, str]


class Account(Aggregate):
    @event("Opened")
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = 0

    @event("Deposited")
    def deposit(self, amount: int) -> None:
        self.balance += amount


class FromZero(Aggregate):
    INITIAL_VERSION = 0

    @event("Touched")
    def touch(self) -> None:
        pass


class Bank(Application[UUID]):
    is_snapshotting_enabled = True

    def open(self, owner: str) -> UUID:
        account = Account(owner)
        self.save(account)
        return account.id

    def deposit(self, account_id: UUID, amount: int) -> int:
        """Deposit, and try again when somebody else was first."""
        while True:
            account: Account = self.repository.get(account_id)
            account.deposit(amount)
            try:
                recordings = self.save(account)
            except IntegrityError:
                continue
            return recordings[-1].notification.id

    def balance(self, account_id: UUID) -> int:
        account: Account = self.repository.get(account_id)
        return account.balance


@pytest.fixture
def bank(settings: Settings) -> Iterator[Bank]:
    with Bank(env=settings) as application:
        yield application


async def pending(
    server: PostgresServer, settings: Settings, *, limit: int = 1000
) -> Sequence[OutboxEntry]:
    async with PostgresStore.open(server.dsn, service=settings["FLOTILLA_SERVICE"]) as store:
        return await store.pending(limit=limit)


async def test_an_application_s_events_are_in_our_outbox_as_the_relay_wants_them(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    account_id = bank.open("Ann")
    assert bank.deposit(account_id, 5) == 2
    assert bank.balance(account_id) == 5
    opened, deposited = await pending(postgres_server, settings)
    assert opened.event.stream == deposited.event.stream == f"default/account/{account_id}"
    assert [opened.event.version, deposited.event.version] == [1, 2]
    assert [e.event.type for e in (opened, deposited)] == [
        "account.opened.v1",
        "account.deposited.v1",
    ]
    assert '"owner":"Ann"' in opened.event.payload
    assert opened.event.metadata["topic"].endswith(":Account.Opened")
    assert UUID(opened.event.event_id).version == 7
    for entry in (opened, deposited):
        aggregate, name, version = entry.event.type.split(".")
        assert aggregate
        assert name
        assert int(version.removeprefix("v")) == 1
        assert len(entry.event.stream.split("/")) == 3


async def test_offsets_of_the_relay_change_nothing_for_the_application(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    account_id = bank.open("Ann")
    service = settings["FLOTILLA_SERVICE"]
    async with PostgresStore.open(postgres_server.dsn, service=service) as store:
        entries = await store.pending(limit=10)
        await store.record([(e.position, Offset(n)) for n, e in enumerate(entries, start=1)])
        assert await store.last_offset() == 1
    bank.deposit(account_id, 1)
    [entry] = await pending(postgres_server, settings)
    assert entry.event.version == 2
    assert [n.id for n in bank.recorder.select_notifications(1, 10)] == [1, 2]


async def test_a_save_that_fails_leaves_nothing(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    account_id = bank.open("Ann")
    stale: Account = bank.repository.get(account_id)
    bank.deposit(account_id, 1)
    stale.deposit(7)
    fresh = Account("Bob")
    with pytest.raises(IntegrityError):
        bank.save(fresh, stale)
    with pytest.raises(AggregateNotFoundError):
        bank.repository.get(fresh.id)
    assert [e.event.version for e in await pending(postgres_server, settings)] == [1, 2]
    assert bank.recorder.max_notification_id() == 2
    bank.open("Cem")
    assert bank.recorder.max_notification_id() == 3, "a rollback takes its ids back"


async def test_a_failure_between_the_events_and_the_outbox_leaves_neither(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    account_id = bank.open("Ann")
    service = settings["FLOTILLA_SERVICE"]
    with psycopg.connect(postgres_server.superuser_dsn, autocommit=True) as admin:
        admin.execute(
            f"alter table {service}.event_outbox add constraint broken check (version < 2)".encode()
        )
        account: Account = bank.repository.get(account_id)
        account.deposit(1)
        with pytest.raises(IntegrityError):
            bank.save(account)
        [(events,)] = admin.execute(f"select count(*) from {service}.event".encode())
        [(waiting,)] = admin.execute(f"select count(*) from {service}.event_outbox".encode())
        assert (events, waiting) == (1, 1)
    assert bank.balance(account_id) == 0


def test_of_concurrent_writers_one_wins_and_the_others_hear_it(bank: Bank) -> None:
    account_id = bank.open("Ann")
    copies: list[Account] = [bank.repository.get(account_id) for _ in range(8)]
    start = threading.Barrier(len(copies))

    def save(account: Account) -> bool:
        account.deposit(1)
        start.wait()
        try:
            bank.save(account)
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(len(copies)) as threads:
        assert sum(threads.map(save, copies)) == 1
    assert bank.balance(account_id) == 1


async def test_optimistic_retries_lose_no_deposit(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    accounts = [bank.open(str(n)) for n in range(3)]
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: bank.deposit(accounts[n % 3], 1), range(60)))
    assert sorted(ids) == list(range(4, 64)), "dense, each once"
    assert [bank.balance(account) for account in accounts] == [20, 20, 20]
    entries = await pending(postgres_server, settings)
    for account in accounts:
        versions = [e.event.version for e in entries if e.event.stream.endswith(str(account))]
        assert versions == list(range(1, 22))


def test_a_follower_by_id_sees_everything_although_writers_race(settings: Settings) -> None:
    settings = {**settings, "POSTGRES_POOL_SIZE": "5"}
    with Factory(settings) as factory:
        recorder = factory.application_recorder()
        done = threading.Event()
        seen: list[int] = []

        def follow() -> None:
            while True:
                last = done.is_set()
                news = recorder.select_notifications(
                    seen[-1] if seen else None, 1000, inclusive_of_start=False
                )
                seen.extend(n.id for n in news)
                if last and not news:
                    return

        def write(n: int) -> None:
            originator = uuid4()
            events = [StoredEvent(originator, v, "m:A.B", b"{}") for v in range(n % 5 + 1)]
            recorder.insert_events(events)
            with pytest.raises(IntegrityError):
                recorder.insert_events(events)

        follower = threading.Thread(target=follow)
        follower.start()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, range(200)))
        done.set()
        follower.join()
        assert seen == list(range(1, 601))


async def test_native_writers_share_the_log_and_are_no_notifications(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    account_id = bank.open("Ann")
    service = settings["FLOTILLA_SERVICE"]
    async with PostgresStore.open(postgres_server.dsn, service=service) as store:
        stream = stream_id("default", "tally", "1")
        event = NewEvent(str(uuid4()), "tally.rose.v1", "{}", {})
        [outcome] = await store.commit([Unit((Append(stream, Version(0), (event,)),))])
        assert outcome == Committed()
        bank.deposit(account_id, 1)
        types = [e.event.type for e in await store.pending(limit=10)]
        assert types == ["account.opened.v1", "tally.rose.v1", "account.deposited.v1"]
        loaded = await store.load(stream_id("default", "account", str(account_id)))
        assert loaded.version == 2
    assert [n.id for n in bank.recorder.select_notifications(None, 10)] == [1, 2]


async def test_versions_from_zero_are_ours_from_one(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    aggregate = FromZero()
    aggregate.touch()
    bank.save(aggregate)
    copy: FromZero = bank.repository.get(aggregate.id)
    assert (aggregate.version, copy.version) == (1, 1)
    assert copy.touch() is None
    bank.save(copy)
    read = bank.recorder.select_events(aggregate.id, gt=0, lte=1)
    assert [e.originator_version for e in read] == [1]
    assert [e.event.version for e in await pending(postgres_server, settings)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("topic", "state"),
    [("m:A.B", b"x" * 400_000), ("m:A.B", b'"' + b"x" * 600_000 + b'"'), ("\0", b"")],
)
def test_what_could_not_be_published_is_refused(bank: Bank, topic: str, state: bytes) -> None:
    originator = uuid4()
    with pytest.raises(DataError):
        bank.recorder.insert_events([StoredEvent(originator, 1, topic, state)])
    assert bank.recorder.select_events(originator) == []


def test_ids_are_given_in_the_order_of_commits_and_taken_back_by_a_rollback(
    settings: Settings,
) -> None:
    with Factory({**settings, "POSTGRES_POOL_SIZE": "3"}) as factory:
        recorder = factory.application_recorder()
        assert isinstance(recorder, FlotillaApplicationRecorder)
        rows = [to_row(StoredEvent(uuid4(), 1, "m:A.B", b"{}"), "default")]
        with ThreadPoolExecutor(1) as thread:
            with factory.datastore.transaction(commit=False) as cursor:  # ends with a rollback
                assert recorder._append(cursor, rows, [uuid4()]) == [1]
                second = thread.submit(
                    recorder.insert_events, [StoredEvent(uuid4(), 1, "m:A.B", b"{}")]
                )
                with pytest.raises(TimeoutError):
                    second.result(timeout=0.5)
                assert recorder.max_notification_id() is None
            assert second.result(timeout=5) == [1]


def test_reading_a_filled_log_uses_indexes(settings: Settings) -> None:
    with Factory(settings) as factory:
        recorder = factory.application_recorder()
        originators = [uuid4() for _ in range(200)]
        recorder.insert_events(
            [StoredEvent(o, v, "m:A.B", b"{}") for o in originators for v in range(1, 11)]
        )
        bounds = {
            "originator": str(originators[0]),
            "gt": 3,
            "lte": None,
            "limit": None,
            "first": 7,
            "stop": None,
        }
        notifications = recorders._NOTIFICATIONS.format(recorders._COLUMNS, SQL(""))
        events = recorders._EVENTS.format(recorders._COLUMNS, datastore.ORDER[False])
        with factory.datastore.get_connection() as database:
            for query in (notifications, events):
                rows = database.execute(SQL("explain ") + query, bounds).fetchall()
                text = "\n".join(row["QUERY PLAN"] for row in rows)
                assert "Seq Scan" not in text, text


@pytest.mark.parametrize("versions", [[2], [1, 3], [2, 1], [-1], [1, 1]])
def test_versions_that_do_not_follow_are_refused(bank: Bank, versions: list[int]) -> None:
    originator = uuid4()
    with pytest.raises(IntegrityError):
        bank.recorder.insert_events([StoredEvent(originator, v, "m:A.B", b"{}") for v in versions])
    assert bank.recorder.select_events(originator) == []


async def test_encrypted_and_compressed_state_comes_back(
    settings: Settings, postgres_server: PostgresServer
) -> None:
    secret = {"COMPRESSOR_TOPIC": "zlib", "CIPHER_KEY": AESCipher.create_key(16)}
    with Bank(env={**settings, **secret}) as bank:
        account_id = bank.open("Ann")
        bank.deposit(account_id, 3)
        assert bank.balance(account_id) == 3
    for entry in await pending(postgres_server, settings):
        assert entry.event.payload.startswith('{"base64": "')
        assert entry.event.metadata["encoding"] == "base64"


async def test_snapshots_are_used_and_not_published(
    bank: Bank, settings: Settings, postgres_server: PostgresServer
) -> None:
    account_id = bank.open("Ann")
    bank.deposit(account_id, 3)
    bank.take_snapshot(account_id)
    bank.deposit(account_id, 4)
    assert bank.snapshots is not None
    assert len(list(bank.snapshots.get(account_id))) == 1
    assert bank.balance(account_id) == 7
    assert len(await pending(postgres_server, settings)) == 3


async def test_tenant_and_prefixed_settings(
    settings: Settings, postgres_server: PostgresServer
) -> None:
    with Bank(env={**settings, "BANK_FLOTILLA_TENANT": "acme"}) as bank:
        account_id = bank.open("Ann")
    [entry] = await pending(postgres_server, settings)
    assert entry.event.stream == f"acme/account/{account_id}"


def test_a_log_is_written_by_one_application(bank: Bank, settings: Settings) -> None:
    class Other(Bank):
        pass

    bank.open("Ann")
    with (
        Other(env=settings) as other,
        pytest.raises(DatabaseError, match="written by default/bank"),
    ):
        other.open("Bob")
    assert bank.recorder.max_notification_id() == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"FLOTILLA_SERVICE": ""}, "name the service"),
        ({"FLOTILLA_SERVICE": "Bank; drop"}, "name the service"),
        ({"FLOTILLA_TENANT": "a/b"}, "FLOTILLA_TENANT"),
        ({"POSTGRES_SCHEMA": "public"}, "leave it out"),
        ({"SINGLE_ROW_TRACKING": "no"}, "legacy"),
    ],
)
def test_wrong_settings_are_refused(settings: Settings, changed: Settings, message: str) -> None:
    with pytest.raises(OSError, match=message):
        Factory({**settings, **changed})


def test_recorder_classes_of_others_are_refused(settings: Settings) -> None:
    theirs = "eventsourcing.postgres:PostgresApplicationRecorder"
    with (
        Factory({**settings, "APPLICATION_RECORDER_TOPIC": theirs}) as factory,
        pytest.raises(OSError, match="derive it"),
    ):
        factory.application_recorder()


class Counted(FlotillaApplicationRecorder):
    """A subclass that writes a row of its own into the same transaction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sql_create_statements.append(
            SQL("create table if not exists counted (n int)").format()
        )

    def _insert_events(
        self, curs: Cursor[DictRow], stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> None:
        curs.execute("insert into counted values (%s)", (len(stored_events),))
        super()._insert_events(curs, stored_events, **kwargs)


def test_a_subclass_writes_in_the_same_transaction(settings: Settings) -> None:
    register_topic("counted", Counted)  # a test module cannot be imported by name
    with Bank(env={**settings, "APPLICATION_RECORDER_TOPIC": "counted"}) as bank:
        account_id = bank.open("Ann")
        stale: Account = bank.repository.get(account_id)
        bank.deposit(account_id, 1)
        stale.deposit(1)
        with pytest.raises(IntegrityError):
            bank.save(stale)
        with bank.factory.datastore.get_connection() as database:  # type: ignore[attr-defined]
            assert [r["n"] for r in database.execute("select n from counted")] == [1, 1]


def test_an_answer_that_was_lost_after_the_commit_is_not_a_conflict(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id = bank.open("Ann")
    append = FlotillaApplicationRecorder._append
    lost: list[int] = []

    def lose_once(*args: Any) -> Sequence[int]:
        ids = append(*args)
        if not lost:
            lost.extend(ids)
            raise psycopg.OperationalError("the connection was lost after the commit")
        return ids

    monkeypatch.setattr(FlotillaApplicationRecorder, "_append", lose_once)
    account: Account = bank.repository.get(account_id)
    account.deposit(4)
    [recording] = bank.save(account)
    assert [recording.notification.id] == lost == [2]
    assert bank.balance(account_id) == 4


def test_a_server_that_is_not_there(settings: Settings) -> None:
    nowhere = {**settings, "POSTGRES_HOST": "/nonexistent", "POSTGRES_CONNECT_TIMEOUT": "1"}
    with Factory({**nowhere, "CREATE_TABLE": "no"}) as factory, pytest.raises(OperationalError):
        recorder = factory.application_recorder()
        recorder.max_notification_id.__wrapped__(recorder)  # type: ignore[attr-defined]


class Balances(FlotillaTrackingRecorder):
    total = 0


class TotalProjection(Projection[Balances]):
    name = "totals"

    @singledispatchmethod
    def process_event(self, domain_event: DomainEventProtocol[UUID], tracking: Tracking) -> None:
        self.view.total += getattr(domain_event, "amount", 0)
        self.view.insert_tracking(tracking)


def test_a_projection_of_the_library_follows(settings: Settings) -> None:
    with ProjectionRunner(
        application_class=Bank, projection_class=TotalProjection, view_class=Balances, env=settings
    ) as runner:
        bank = runner.app
        account_id = bank.open("Ann")
        last = bank.deposit(account_id, 5)
        runner.wait(last, timeout=10)
        assert runner.projection.view.total == 5
        with Bank(env=settings) as other_process:
            last = other_process.deposit(account_id, 6)
        runner.wait(last, timeout=10)
        assert runner.projection.view.total == 11


class Greeting(Aggregate):
    @event("Sent")
    def __init__(self, to: str) -> None:
        self.to = to


class Greeter(ProcessApplication[UUID]):
    def policy(
        self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]
    ) -> None:
        if isinstance(domain_event, Account.Opened):  # type: ignore[attr-defined]
            processing_event.collect_events(Greeting(domain_event.owner))


async def test_a_system_of_two_applications_with_a_service_each(
    settings: Settings, postgres_server: PostgresServer
) -> None:
    greeter = f"{settings['FLOTILLA_SERVICE']}-greeter"
    env = {**settings, "GREETER_FLOTILLA_SERVICE": greeter}
    with SingleThreadedRunner[UUID](System(pipes=[[Bank, Greeter]]), env=env) as runner:
        runner.get(Bank).open("Ann")
        assert runner.get(Greeter).recorder.max_tracking_id("Bank") == 1
    [entry] = await pending(postgres_server, {"FLOTILLA_SERVICE": greeter})
    assert entry.event.type == "greeting.sent.v1"


async def test_migrations_are_those_of_the_store(
    settings: Settings, postgres_server: PostgresServer
) -> None:
    assert datastore.MIGRATION_LOCK == connection._MIGRATION_LOCK
    assert await pending(postgres_server, settings) == [], "the store may come first"
    with ThreadPoolExecutor(4) as threads:
        factories = [Factory(settings) for _ in range(4)]
        list(threads.map(lambda factory: factory.application_recorder(), factories))
        for factory in factories:
            factory.close()
    assert await pending(postgres_server, settings) == []

"""What was stored once is read for ever: one stored form of every version of every event type.

`golden/<type>.json` has a payload as it was stored. A file is never changed or deleted; a new event
type, or a new version of one, brings a new file.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import BaseModel

from flotilla import ContractCodec, Corrupt, RecordedEvent, StreamId, Version
from flotilla.codec import UnknownEventType
from flotilla.keys import Erasure
from flotilla_contracts.catalog import EVENTS as CATALOG
from flotilla_contracts.compatibility import released
from flotilla_contracts.tenant import (
    EVENTS,
    SERVICE,
    TENANT_EVENTS,
)
from flotilla_contracts.tenant_events import (
    ErasureRecorded,
    TenantEvent,
)
from svc_tenant.domain.tenant import Invitation, Member, Tenant, evolve
from svc_tenant.erasing import erasure_of

GOLDEN = Path(__file__).parent / "golden"
FILES = {file.name.removesuffix(".json"): file for file in sorted(GOLDEN.glob("*.json"))}
CODEC: ContractCodec[TenantEvent] = ContractCodec(TENANT_EVENTS)
ANY: ContractCodec[BaseModel] = ContractCodec(EVENTS)
OF_TENANTS = sorted(FILES.keys() - {ErasureRecorded.type})

SEALED = f"sealed:1:{'0' * 32}:{'A' * 38}"
UNTIL = datetime(2026, 1, 8, tzinfo=UTC)
OLGA, ADA, WAITS = Member("owner"), Member("admin"), Invitation("member", SEALED, "cd" * 32, UNTIL)
BEFORE = Tenant(
    status="active",
    name="Acme",
    members={"olga": OLGA, "ada": ADA},
    invitations={"i": WAITS},
    invited=3,
    counters=5,
)
AFTER = {
    "tenant.created.v1": replace(BEFORE, status="onboarding"),
    "tenant.activated.v1": BEFORE,
    "tenant.abandoned.v1": replace(BEFORE, status="abandoned"),
    "tenant.renamed.v1": replace(BEFORE, name="Ajax"),
    "tenant.suspended.v1": replace(BEFORE, status="suspended"),
    "tenant.resumed.v1": BEFORE,
    "tenant.closed.v1": replace(BEFORE, status="closed"),
    "tenant.plan-assigned.v1": replace(BEFORE, plan="team"),
    "tenant.member-added.v1": replace(
        BEFORE, members={"olga": OLGA, "ada": ADA, "max": Member("member", SEALED, SEALED)}
    ),
    "tenant.member-role-changed.v1": replace(
        BEFORE, members={"olga": OLGA, "ada": Member("owner")}
    ),
    "tenant.member-removed.v1": replace(BEFORE, members={"olga": OLGA}),
    "tenant.member-invited.v1": replace(
        BEFORE,
        invitations={"i": WAITS, "j": Invitation("admin", SEALED, "ab" * 32, UNTIL)},
        invited=4,
    ),
    "tenant.invitation-accepted.v1": replace(BEFORE, invitations={}),
    "tenant.invitation-revoked.v1": replace(BEFORE, invitations={}),
    "tenant.quota-consumed.v1": replace(BEFORE, counters=7),
    "tenant.quota-released.v1": replace(BEFORE, counters=3),
    "tenant.quotas-reset.v1": replace(BEFORE, period="2026-01-02", invited=0),
    "tenant.member-erased.v1": replace(BEFORE, erased=frozenset({"gone"})),
    "tenant.erased.v1": replace(BEFORE, status="erased"),
}
"""What each stored event makes of a tenant that is as `BEFORE`."""


def stored(kind: str, payload: str | None = None) -> RecordedEvent:
    text = payload if payload is not None else FILES[kind].read_text().removesuffix("\n")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(StreamId("acme/tenant/acme"), Version(1), "id", kind, text, {}, at)


def test_every_event_type_of_the_catalog_has_a_stored_form() -> None:
    assert {event.type for event in CATALOG[SERVICE]} <= FILES.keys()
    assert set(EVENTS) == set(CATALOG[SERVICE])


def test_every_event_type_that_was_ever_released_has_a_stored_form() -> None:
    """Taken out of the catalog or not: somebody's store has it."""
    released_types = {
        name.removeprefix("events/").removesuffix(".json")
        for documents in released().values()
        for name in documents
        if name.startswith((f"events/{SERVICE}.", "events/erasure."))
    }

    assert released_types <= FILES.keys()


def test_every_stored_form_says_what_it_leads_to() -> None:
    assert OF_TENANTS == sorted(AFTER)


@pytest.mark.parametrize("kind", OF_TENANTS)
def test_what_was_stored_is_read_and_evolves(kind: str) -> None:
    assert AFTER[kind] == evolve(BEFORE, CODEC.decode(stored(kind)))


def test_what_was_erased_is_read_back_and_nothing_else_is_taken_for_it() -> None:
    assert Erasure("acme", "gone", "0" * 32) == erasure_of(stored(ErasureRecorded.type))
    with pytest.raises(Corrupt, match="is no erasure"):
        erasure_of(stored("tenant.erased.v1"))


@pytest.mark.parametrize("kind", FILES)
def test_nothing_that_was_stored_is_lost_by_reading_it(kind: str) -> None:
    """Also not by renaming a field and giving the new one a default. New fields may join."""
    kept = json.loads(ANY.encode(ANY.decode(stored(kind)))[1])

    assert json.loads(stored(kind).payload).items() <= kept.items()


@pytest.mark.parametrize("kind", FILES)
def test_what_later_writers_add_is_ignored(kind: str) -> None:
    later = json.dumps(json.loads(stored(kind).payload) | {"added_later": {"x": [1]}})

    assert ANY.decode(stored(kind)) == ANY.decode(stored(kind, later))


@pytest.mark.parametrize("kind", FILES)
def test_a_stored_form_that_lost_a_field_is_corrupt(kind: str) -> None:
    whole = json.loads(stored(kind).payload)
    for field in whole.keys() - {"email", "display_name"} if "added" in kind else whole:
        damaged = json.dumps({name: value for name, value in whole.items() if name != field})
        with pytest.raises(Corrupt, match=field):
            ANY.decode(stored(kind, damaged))


def test_a_type_that_nobody_knows_is_of_a_newer_version() -> None:
    with pytest.raises(UnknownEventType, match=r"tenant\.exploded\.v1"):
        CODEC.decode(stored("tenant.exploded.v1", "{}"))

"""What a tenant promises, without a store in sight."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla import Rejected
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.tenant import (
    AbandonTenant,
    AcceptInvitation,
    ActivateTenant,
    AddMember,
    AssignPlan,
    ChangeRole,
    CloseTenant,
    ConsumeQuota,
    CreateTenant,
    EraseMember,
    EraseTenant,
    InviteMember,
    ReleaseQuota,
    RemoveMember,
    RenameTenant,
    ResetQuotas,
    ResumeTenant,
    RevokeInvitation,
    SuspendTenant,
    TenantCommand,
)
from flotilla_contracts.tenant_events import (
    PENDING_INVITATIONS_MAX,
    SYSTEM,
    InvitationAccepted,
    InvitationRevoked,
    MemberAdded,
    MemberErased,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    PlanAssigned,
    QuotaConsumed,
    QuotaReleased,
    QuotasReset,
    Role,
    TenantAbandoned,
    TenantActivated,
    TenantClosed,
    TenantCreated,
    TenantErased,
    TenantEvent,
    TenantRenamed,
    TenantResumed,
    TenantSuspended,
)
from svc_tenant.domain.asked import Asked, Drawn
from svc_tenant.domain.plans import LIMITS
from svc_tenant.domain.rules import DECIDER
from svc_tenant.domain.tenant import Tenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
SEALED = f"sealed:1:{'0' * 32}:{'A' * 38}"
BEGUN: tuple[TenantEvent, ...] = (
    TenantCreated(tenant_id="acme", name="Acme", plan="free", actor_id=SYSTEM),
    MemberAdded(user_id="olga", role="owner", actor_id=SYSTEM),
)
ACTIVE: tuple[TenantEvent, ...] = (*BEGUN, TenantActivated(actor_id=SYSTEM))
STAFFED: tuple[TenantEvent, ...] = (
    *ACTIVE,
    MemberAdded(user_id="ada", role="admin", actor_id=SYSTEM),
    MemberAdded(user_id="max", role="member", actor_id=SYSTEM),
)
CREATE = CreateTenant(actor_id=SYSTEM, name="Acme", owner_id="olga")
SHUT: dict[str, tuple[TenantEvent, ...]] = {
    "suspended": (TenantSuspended(reason="unpaid", actor_id="olga"),),
    "closed": (TenantClosed(actor_id="olga"),),
    "erased": (TenantClosed(actor_id="olga"), TenantErased(actor_id="olga")),
}


def hashed(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def ask(command: TenantCommand, *, at: datetime = NOW, invitation: str = "i") -> Asked:
    """Return a command as the application asks it; tokens are called after their invitations."""
    asked = Asked(command, "acme", at)
    if isinstance(command, InviteMember):
        return replace(asked, drawn=Drawn(invitation, hashed(invitation * 20), LATER))
    if isinstance(command, AcceptInvitation):
        return replace(asked, shown_id=command.token[0], shown_sha256=hashed(command.token))
    return asked


def decide(
    history: Sequence[TenantEvent], command: TenantCommand, **more: Any
) -> list[TenantEvent]:
    return list(DECIDER.decide(ask(command, **more), DECIDER.fold(history)))


def refused(history: Sequence[TenantEvent], command: TenantCommand, **more: Any) -> str:
    """Return with which code a command is refused."""
    with pytest.raises(Rejected) as refusal:
        decide(history, command, **more)
    return refusal.value.code


def invited(name: str = "i", role: Role = "member", actor: str = "olga") -> MemberInvited:
    return MemberInvited(
        invitation_id=name,
        role=role,
        email=SEALED,
        token_sha256=hashed(name * 20),
        expires_at=LATER,
        actor_id=actor,
    )


def inviting(actor: str, role: Role = "member") -> InviteMember:
    """Return it as the application asks it: sealed."""
    command = InviteMember(actor_id=actor, email="new@example.org", role=role)
    return command.model_copy(update={"email": SEALED})


def accept(user: str, name: str = "i") -> AcceptInvitation:
    return AcceptInvitation(actor_id=user, token=name * 20)


# Its life.


def test_it_begins_with_its_owner() -> None:
    assert [*BEGUN] == decide([], CREATE)


def test_an_id_is_used_once() -> None:
    histories = [BEGUN, ACTIVE, (*BEGUN, TenantAbandoned(actor_id=SYSTEM))]
    histories += [(*ACTIVE, *events) for events in SHUT.values()]
    for history in histories:
        assert ErrorCode.TENANT_EXISTS == refused(history, CREATE)


def test_nobody_begins_a_tenant_that_is_owned_by_another() -> None:
    theirs = CreateTenant(actor_id="mallory", name="Acme", owner_id="olga")
    assert ErrorCode.ROLE_NOT_ALLOWED == refused([], theirs)


@pytest.mark.parametrize(
    ("history", "command"),
    [
        ((), CreateTenant(actor_id=SYSTEM, name="Acme", owner_id=SYSTEM)),
        (ACTIVE, AddMember(actor_id=SYSTEM, user_id=SYSTEM, role="owner")),
        ((*ACTIVE, invited()), accept(SYSTEM)),
    ],
    ids=["owner", "member", "invited"],
)
def test_nobody_is_called_as_workflows_are(
    history: tuple[TenantEvent, ...], command: TenantCommand
) -> None:
    assert ErrorCode.USER_INVALID == refused(history, command)


def test_onboarding_ends_once() -> None:
    activate = ActivateTenant(actor_id=SYSTEM)
    assert [TenantActivated(actor_id=SYSTEM)] == decide(BEGUN, activate)
    assert [] == decide(ACTIVE, activate)


def test_onboarding_is_taken_back_once_and_only_while_it_lasts() -> None:
    abandon, abandoned = AbandonTenant(actor_id=SYSTEM), TenantAbandoned(actor_id=SYSTEM)
    assert [abandoned] == decide(BEGUN, abandon)
    assert [] == decide([*BEGUN, abandoned], abandon)
    assert ErrorCode.TENANT_NOT_ACTIVE == refused(ACTIVE, abandon)


def test_a_create_that_arrives_after_it_was_taken_back_finds_its_id_used() -> None:
    taken_back = decide([], AbandonTenant(actor_id=SYSTEM))
    assert [TenantAbandoned(actor_id=SYSTEM)] == taken_back
    assert ErrorCode.TENANT_EXISTS == refused(taken_back, CREATE)


def test_it_is_suspended_resumed_and_closed_and_again_changes_nothing() -> None:
    suspend = SuspendTenant(actor_id="olga", reason="unpaid")
    resume, close = ResumeTenant(actor_id="olga"), CloseTenant(actor_id="olga")
    suspended = [*ACTIVE, *SHUT["suspended"]]
    assert [*SHUT["suspended"]] == decide(ACTIVE, suspend)
    assert [] == decide(suspended, suspend)
    assert [TenantResumed(actor_id="olga")] == decide(suspended, resume)
    assert [] == decide(ACTIVE, resume)
    assert [*SHUT["closed"]] == decide(suspended, close)
    assert [] == decide([*ACTIVE, *SHUT["closed"]], close)


def test_another_name_is_told_with_the_one_before() -> None:
    rename = RenameTenant(actor_id="ada", name="Ajax")
    assert [TenantRenamed(name="Ajax", previous_name="Acme", actor_id="ada")] == decide(
        STAFFED, rename
    )
    assert [] == decide(STAFFED, RenameTenant(actor_id="ada", name="Acme"))


COMMANDS: tuple[TenantCommand, ...] = (
    CREATE,
    ActivateTenant(actor_id=SYSTEM),
    AbandonTenant(actor_id=SYSTEM),
    RenameTenant(actor_id="olga", name="Ajax"),
    SuspendTenant(actor_id="olga", reason="unpaid"),
    ResumeTenant(actor_id="olga"),
    CloseTenant(actor_id="olga"),
    AssignPlan(actor_id="olga", plan="team"),
    AddMember(actor_id=SYSTEM, user_id="new", role="member"),
    ChangeRole(actor_id="olga", user_id="max", role="admin"),
    RemoveMember(actor_id="olga", user_id="max"),
    inviting("olga"),
    RevokeInvitation(actor_id="olga", invitation_id="i"),
    accept("new"),
    ConsumeQuota(actor_id=SYSTEM, quota="counters"),
    ReleaseQuota(actor_id=SYSTEM, quota="counters"),
    ResetQuotas(actor_id=SYSTEM, period="2026-01-01"),
    EraseMember(actor_id="olga", user_id="gone"),
    EraseTenant(actor_id="olga"),
)
FULL = (
    *STAFFED,
    invited(),
    QuotaConsumed(quota="counters", amount=1, used=1, limit=10, actor_id=SYSTEM),
)
DONE_IN: dict[str, set[type[TenantCommand]]] = {
    "suspended": {ResumeTenant, CloseTenant, SuspendTenant, ReleaseQuota, ResetQuotas, EraseMember},
    "closed": {CloseTenant, ReleaseQuota, ResetQuotas, EraseMember, EraseTenant},
    "erased": {EraseTenant, ResetQuotas},
}
"""What goes on in which life: undoing, the nightly reset, and erasing; all else is refused."""


def test_every_command_is_in_the_table_of_this_test() -> None:
    assert set(get_args(TenantCommand)) == {type(command) for command in COMMANDS}


@pytest.mark.parametrize("life", SHUT)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_what_does_not_live_refuses_changes(life: str, command: TenantCommand) -> None:
    history = [*FULL, *SHUT[life]]
    if type(command) in DONE_IN[life]:
        decide(history, command)
    else:
        assert refused(history, command)


# Who may do what.

ALLOWED: dict[type[TenantCommand], set[str]] = {
    ActivateTenant: {SYSTEM},
    RenameTenant: {"olga", "ada"},
    SuspendTenant: {"olga", SYSTEM},
    ResumeTenant: {"olga", SYSTEM},
    CloseTenant: {"olga", SYSTEM},
    AssignPlan: {"olga", SYSTEM},
    AddMember: {SYSTEM},
    ChangeRole: {"olga", "ada"},
    RemoveMember: {"olga", "ada", "max", SYSTEM},  # max leaves
    InviteMember: {"olga", "ada", SYSTEM},
    RevokeInvitation: {"olga", "ada", SYSTEM},
    ConsumeQuota: {SYSTEM},
    ReleaseQuota: {SYSTEM},
    ResetQuotas: {SYSTEM},
    EraseMember: {"olga", SYSTEM},
}


@pytest.mark.parametrize("actor", ["olga", "ada", "max", SYSTEM])
@pytest.mark.parametrize("kind", ALLOWED, ids=lambda kind: kind.__name__)
def test_roles_allow_what_they_should_and_nothing_else(
    kind: type[TenantCommand], actor: str
) -> None:
    command = next(one for one in COMMANDS if type(one) is kind)
    command = command.model_copy(update={"actor_id": actor})
    if actor in ALLOWED[kind]:
        decide(FULL, command)
    else:
        assert ErrorCode.ROLE_NOT_ALLOWED == refused(FULL, command)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_strangers_are_told_what_they_are_told_of_nothing(command: TenantCommand) -> None:
    if isinstance(command, CreateTenant | AcceptInvitation):
        return  # strangers may; they have tests of their own
    theirs = command.model_copy(update={"actor_id": "mallory"})
    told = set()
    for history in [(), FULL, (*FULL, *SHUT["closed"])]:
        with pytest.raises(Rejected) as refusal:
            decide(history, theirs)
        told.add((refusal.value.code, str(refusal.value)))
    assert {(ErrorCode.TENANT_NOT_FOUND, "there is no such tenant")} == told


# Members.


def test_the_last_owner_stays_an_owner() -> None:
    leaves = RemoveMember(actor_id="olga", user_id="olga")
    stoops = ChangeRole(actor_id="olga", user_id="olga", role="admin")
    for command in (leaves, stoops):
        assert ErrorCode.LAST_OWNER == refused(STAFFED, command)
    assert ErrorCode.LAST_OWNER == refused(STAFFED, RemoveMember(actor_id=SYSTEM, user_id="olga"))

    two = [
        *STAFFED,
        MemberRoleChanged(user_id="ada", role="owner", previous_role="admin", actor_id="olga"),
    ]
    assert [MemberRemoved(user_id="olga", role="owner", actor_id="olga")] == decide(two, leaves)
    assert ["tenant.member-role-changed.v1"] == [event.type for event in decide(two, stoops)]


def test_admins_neither_make_nor_change_owners() -> None:
    for command in (
        ChangeRole(actor_id="ada", user_id="max", role="owner"),
        ChangeRole(actor_id="ada", user_id="ada", role="owner"),
        ChangeRole(actor_id="ada", user_id="olga", role="member"),
        RemoveMember(actor_id="ada", user_id="olga"),
        inviting("ada", "owner"),
    ):
        assert ErrorCode.ROLE_NOT_ALLOWED == refused(STAFFED, command)
    assert decide(STAFFED, ChangeRole(actor_id="ada", user_id="max", role="admin"))


def test_members_leave_but_remove_nobody() -> None:
    assert [MemberRemoved(user_id="max", role="member", actor_id="max")] == decide(
        STAFFED, RemoveMember(actor_id="max", user_id="max")
    )
    assert ErrorCode.ROLE_NOT_ALLOWED == refused(
        STAFFED, RemoveMember(actor_id="max", user_id="ada")
    )


def test_a_member_is_not_added_again_and_nobody_is_not_removed() -> None:
    assert ErrorCode.MEMBER_EXISTS == refused(
        STAFFED, AddMember(actor_id=SYSTEM, user_id="max", role="admin")
    )
    nobody = RemoveMember(actor_id="olga", user_id="nobody")
    assert ErrorCode.MEMBER_NOT_FOUND == refused(STAFFED, nobody)
    assert [] == decide(STAFFED, nobody.model_copy(update={"actor_id": SYSTEM}))


def test_who_is_erased_was_removed_before() -> None:
    erase = EraseMember(actor_id="olga", user_id="max")
    assert ErrorCode.MEMBER_STAYS == refused(STAFFED, erase)
    gone = [*STAFFED, MemberRemoved(user_id="max", role="member", actor_id="olga")]
    erased = MemberErased(user_id="max", actor_id="olga")
    assert [erased] == decide(gone, erase)
    assert [] == decide([*gone, erased], erase)


def test_only_what_is_closed_is_erased() -> None:
    erase = EraseTenant(actor_id="olga")
    assert ErrorCode.TENANT_NOT_CLOSED == refused(STAFFED, erase)
    assert [TenantErased(actor_id="olga")] == decide([*STAFFED, *SHUT["closed"]], erase)
    assert [] == decide([*STAFFED, *SHUT["erased"]], erase)


# Invitations.


def test_the_token_of_an_invitation_makes_a_member_once() -> None:
    assert [invited()] == decide(ACTIVE, inviting("olga"))
    accepted = decide([*ACTIVE, invited()], accept("new"))
    assert [
        InvitationAccepted(invitation_id="i", user_id="new"),
        MemberAdded(user_id="new", role="member", actor_id="new"),
    ] == accepted
    assert ErrorCode.INVITATION_NOT_FOUND == refused(
        [*ACTIVE, invited(), *accepted], accept("other")
    )


def test_wrong_late_revoked_and_used_tokens_are_told_the_same() -> None:
    waits = [*ACTIVE, invited()]
    revoked = [*waits, InvitationRevoked(invitation_id="i", actor_id="olga")]
    used = [*waits, *decide(waits, accept("new"))]
    wrong = AcceptInvitation(actor_id="new", token="i" * 21)
    cases: list[tuple[Sequence[TenantEvent], AcceptInvitation, datetime]] = [
        ((), accept("x"), NOW),
        (waits, wrong, NOW),
        (waits, accept("x", "j"), NOW),
        (waits, accept("x"), LATER),
        (revoked, accept("x"), NOW),
        (used, accept("x"), NOW),
        ([*waits, *SHUT["suspended"]], accept("x"), NOW),
    ]
    told = set()
    for history, command, at in cases:
        with pytest.raises(Rejected) as refusal:
            decide(history, command, at=at)
        told.add((refusal.value.code, str(refusal.value)))
    assert {(ErrorCode.INVITATION_NOT_FOUND, "there is no such invitation")} == told
    assert decide(waits, accept("x"), at=LATER - timedelta(seconds=1))


def test_only_so_many_invitations_wait_and_late_ones_make_room() -> None:
    full = [
        *ACTIVE,
        PlanAssigned(plan="business", previous_plan="free", actor_id="olga"),
        *(invited(f"i{n}") for n in range(PENDING_INVITATIONS_MAX)),
    ]
    invite = inviting("olga")
    assert ErrorCode.INVITATIONS_TOO_MANY == refused(full, invite)
    events = decide(full, invite, at=LATER)
    assert PENDING_INVITATIONS_MAX == sum(isinstance(e, InvitationRevoked) for e in events)
    assert 1 == len(DECIDER.fold([*full, *events]).invitations)


def test_what_is_revoked_was_there() -> None:
    revoke = RevokeInvitation(actor_id="ada", invitation_id="i")
    assert ErrorCode.INVITATION_NOT_FOUND == refused(STAFFED, revoke)
    assert [InvitationRevoked(invitation_id="i", actor_id="ada")] == decide(
        [*STAFFED, invited()], revoke
    )


# Plans and quotas.


def test_a_quota_is_used_up_and_never_passed() -> None:
    most = LIMITS["free"]["counters"]
    consume = ConsumeQuota(actor_id=SYSTEM, quota="counters", amount=most)
    consumed = QuotaConsumed(quota="counters", amount=most, used=most, limit=most, actor_id=SYSTEM)
    assert [consumed] == decide(ACTIVE, consume)
    one = consume.model_copy(update={"amount": 1})
    assert ErrorCode.QUOTA_EXCEEDED == refused([*ACTIVE, consumed], one)


def test_no_more_is_released_than_was_taken() -> None:
    release = ReleaseQuota(actor_id=SYSTEM, quota="counters", amount=5)
    assert [] == decide(ACTIVE, release)
    assert [QuotaReleased(quota="counters", amount=1, used=0, actor_id=SYSTEM)] == decide(
        FULL, release
    )


def test_members_are_as_many_as_the_plan_allows_by_whatever_way_they_come() -> None:
    full = [
        *ACTIVE,
        invited(),
        *(
            MemberAdded(user_id=f"u{n}", role="member", actor_id=SYSTEM)
            for n in range(LIMITS["free"]["members"] - 1)
        ),
    ]
    add = AddMember(actor_id=SYSTEM, user_id="new", role="member")
    assert ErrorCode.QUOTA_EXCEEDED == refused(full, add)
    assert ErrorCode.QUOTA_EXCEEDED == refused(full, accept("new"))


def test_invitations_are_counted_by_the_day_and_a_day_begins_once() -> None:
    most = LIMITS["free"]["invitations"]
    day = [*ACTIVE, *(invited(f"i{n}") for n in range(most))]
    invite = inviting("olga")
    assert ErrorCode.QUOTA_EXCEEDED == refused(day, invite)

    def reset(period: str) -> ResetQuotas:
        return ResetQuotas(actor_id=SYSTEM, period=period)

    begun = QuotasReset(period="2026-01-02", actor_id=SYSTEM)
    assert [begun] == decide(day, reset("2026-01-02"))
    again = [*day, begun, invited("again")]
    assert decide(again, invite)
    for period in ("2026-01-02", "2026-01-01"):
        assert [] == decide(again, reset(period))


def test_a_plan_that_is_too_small_is_refused() -> None:
    big = [
        *ACTIVE,
        PlanAssigned(plan="team", previous_plan="free", actor_id="olga"),
        QuotaConsumed(quota="counters", amount=11, used=11, limit=1000, actor_id=SYSTEM),
    ]
    assert ErrorCode.QUOTA_EXCEEDED == refused(big, AssignPlan(actor_id="olga", plan="free"))
    assert [] == decide(big, AssignPlan(actor_id="olga", plan="team"))
    assert decide(big, AssignPlan(actor_id="olga", plan="business"))


# Whatever is asked, in whatever order.

USERS = st.sampled_from(["olga", "ada", "max", "eve", "new", SYSTEM])
ROLES: st.SearchStrategy[Role] = st.sampled_from(["owner", "admin", "member"])
NAMES = st.sampled_from(["a", "b", "c"])
ANYTHING: st.SearchStrategy[TenantCommand] = st.one_of(
    st.sampled_from(COMMANDS),
    st.builds(AddMember, actor_id=st.just(SYSTEM), user_id=USERS, role=ROLES),
    st.builds(ChangeRole, actor_id=USERS, user_id=USERS, role=ROLES),
    st.builds(RemoveMember, actor_id=USERS, user_id=USERS),
    st.builds(inviting, USERS, ROLES),
    st.builds(RevokeInvitation, actor_id=USERS, invitation_id=NAMES),
    st.builds(accept, USERS, NAMES),
    st.builds(
        AssignPlan, actor_id=st.just("olga"), plan=st.sampled_from(["free", "team", "business"])
    ),
    st.builds(
        ConsumeQuota, actor_id=st.just(SYSTEM), quota=st.just("counters"), amount=st.integers(1, 6)
    ),
    st.builds(
        ReleaseQuota, actor_id=st.just(SYSTEM), quota=st.just("counters"), amount=st.integers(1, 6)
    ),
    st.builds(CreateTenant, actor_id=USERS, name=st.just("Acme"), owner_id=USERS),
)
SCRIPTS = st.lists(st.tuples(ANYTHING, st.integers(0, 10), NAMES), max_size=60)


@given(SCRIPTS, st.sampled_from([(), ACTIVE, FULL]))
def test_any_script_keeps_an_owner_and_the_plan(
    script: list[tuple[TenantCommand, int, str]], start: tuple[TenantEvent, ...]
) -> None:
    tenant = DECIDER.fold(start)
    for command, days, name in script:
        try:
            asked = ask(command, at=NOW + timedelta(days=days), invitation=name)
            events = DECIDER.decide(asked, tenant)
        except Rejected:
            continue
        before, tenant = tenant, DECIDER.fold(events, tenant)

        assert tenant.status in ("none", "abandoned") or tenant.owners >= 1
        assert SYSTEM not in tenant.members
        assert len(tenant.invitations) <= PENDING_INVITATIONS_MAX
        for quota, limit in LIMITS[tenant.plan].items():
            assert 0 <= tenant.used(quota) <= limit
        ended = {"closed", "erased", "abandoned"}
        assert before.status not in ended or tenant.status in ended


@given(SCRIPTS)
def test_an_invitation_ends_once(script: list[tuple[TenantCommand, int, str]]) -> None:
    tenant = DECIDER.fold([*ACTIVE, invited()])
    for command, days, name in script:
        asked = ask(command, at=NOW + timedelta(days=days), invitation=name)
        try:
            events = DECIDER.decide(asked, tenant)
        except Rejected:
            continue
        for event in events:
            if isinstance(event, InvitationAccepted | InvitationRevoked):
                assert event.invitation_id in tenant.invitations
            tenant = DECIDER.fold([event], tenant)
            if isinstance(event, InvitationAccepted | InvitationRevoked):
                assert event.invitation_id not in tenant.invitations


@given(SCRIPTS)
def test_what_changes_nothing_when_repeated_is_what_is_true_already(
    script: list[tuple[TenantCommand, int, str]],
) -> None:
    """Commands of workflows that undo or begin are safe to repeat, whatever happened between."""
    tenant = DECIDER.fold(ACTIVE)
    for command, days, name in script:
        asked = ask(command, at=NOW + timedelta(days=days), invitation=name)
        try:
            tenant = DECIDER.fold(DECIDER.decide(asked, tenant), tenant)
            again: Tenant | None = DECIDER.fold(DECIDER.decide(asked, tenant), tenant)
        except Rejected:
            again = None
        if isinstance(command, ConsumeQuota | ReleaseQuota | InviteMember):
            continue  # each is one more: their keys tell a retry from a second
        assert again in (None, tenant)

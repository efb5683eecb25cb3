"""What happens to tenants, and the words for it; the rest is in `flotilla_contracts.tenant`.

Personal fields are sealed where they are stored.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from flotilla_contracts.message import Event, Identifier, Personal

MEMBERS_MAX = 1_000
PENDING_INVITATIONS_MAX = 100
PAGE_SIZE_MAX = 200
SYSTEM = "system"
"""The actor of workflows and schedules. Nobody outside may call themselves that."""

SEPARATOR = ":"
"""Between the parts of a token; in none of them."""

Role = Literal["owner", "admin", "member"]
Life = Literal["onboarding", "active", "suspended", "closed", "abandoned", "erased"]
Plan = Literal["free", "team", "business"]
Quota = Literal["members", "invitations", "counters"]
"""`members`: at a time; `invitations`: a day; `counters`: at a time, asked for by who opens them."""

UserId = Identifier
InvitationId = Identifier
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
"""One line, without white space around it."""
PlainEmail = Annotated[
    str, StringConstraints(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")
]
"""An address as people write it; whether it exists only a letter can tell."""
PlainName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Token = Annotated[str, StringConstraints(min_length=20, max_length=400)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Period = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
"""The day (UTC) that quotas are counted for from now on."""
Amount = Annotated[int, Field(ge=1, le=1_000_000)]
Moment = Annotated[AwareDatetime, Field(strict=False)]


# What happened. Stored forever: add optional fields, never rename them.


class TenantCreated(Event):
    """Somebody began a tenant; its owner is a member from here on."""

    type: ClassVar[str] = "tenant.created.v1"

    tenant_id: Identifier
    name: str
    plan: Plan
    actor_id: UserId


class TenantActivated(Event):
    """Onboarding is over."""

    type: ClassVar[str] = "tenant.activated.v1"

    actor_id: UserId


class TenantAbandoned(Event):
    """Onboarding failed and was taken back; the id is not used again."""

    type: ClassVar[str] = "tenant.abandoned.v1"

    actor_id: UserId


class TenantRenamed(Event):
    """The tenant has another name."""

    type: ClassVar[str] = "tenant.renamed.v1"

    name: str
    previous_name: str
    actor_id: UserId


class TenantSuspended(Event):
    """Nothing may change until it is resumed."""

    type: ClassVar[str] = "tenant.suspended.v1"

    reason: str
    actor_id: UserId


class TenantResumed(Event):
    """It goes on."""

    type: ClassVar[str] = "tenant.resumed.v1"

    actor_id: UserId


class TenantClosed(Event):
    """It is over; only erasing is left."""

    type: ClassVar[str] = "tenant.closed.v1"

    actor_id: UserId


class PlanAssigned(Event):
    """The tenant has other limits."""

    type: ClassVar[str] = "tenant.plan-assigned.v1"

    plan: Plan
    previous_plan: Plan
    actor_id: UserId


class MemberAdded(Event):
    """A user belongs to the tenant."""

    type: ClassVar[str] = "tenant.member-added.v1"

    user_id: UserId
    role: Role
    email: Personal | None = None
    display_name: Personal | None = None
    actor_id: UserId


class MemberRoleChanged(Event):
    """A member may do something else."""

    type: ClassVar[str] = "tenant.member-role-changed.v1"

    user_id: UserId
    role: Role
    previous_role: Role
    actor_id: UserId


class MemberRemoved(Event):
    """A user does not belong to the tenant any more; `actor_id` is the user who left."""

    type: ClassVar[str] = "tenant.member-removed.v1"

    user_id: UserId
    role: Role
    actor_id: UserId


class MemberInvited(Event):
    """Whoever shows the token before `expires_at` becomes a member."""

    type: ClassVar[str] = "tenant.member-invited.v1"

    invitation_id: InvitationId
    role: Role
    email: Personal
    token_sha256: Hash
    expires_at: Moment
    actor_id: UserId


class InvitationAccepted(Event):
    """The token was shown; `tenant.member-added.v1` follows."""

    type: ClassVar[str] = "tenant.invitation-accepted.v1"

    invitation_id: InvitationId
    user_id: UserId


class InvitationRevoked(Event):
    """The token is worth nothing any more."""

    type: ClassVar[str] = "tenant.invitation-revoked.v1"

    invitation_id: InvitationId
    actor_id: UserId


class QuotaConsumed(Event):
    """Some of a quota is taken; `used` of `limit` are, with it."""

    type: ClassVar[str] = "tenant.quota-consumed.v1"

    quota: Quota
    amount: Amount
    used: int
    limit: int
    actor_id: UserId


class QuotaReleased(Event):
    """Some of a quota is free again; `used` are taken still."""

    type: ClassVar[str] = "tenant.quota-released.v1"

    quota: Quota
    amount: Amount
    used: int
    actor_id: UserId


class QuotasReset(Event):
    """What is counted by the day begins at 0."""

    type: ClassVar[str] = "tenant.quotas-reset.v1"

    period: Period
    actor_id: UserId


class MemberErased(Event):
    """The personal data of a user cannot be read any more, here or in any copy. Not taken back."""

    type: ClassVar[str] = "tenant.member-erased.v1"

    user_id: UserId
    actor_id: UserId


class TenantErased(Event):
    """No personal data of the tenant can be read any more, here or in any copy. Not taken back."""

    type: ClassVar[str] = "tenant.erased.v1"

    actor_id: UserId


class ErasureRecorded(Event):
    """What must be destroyed again when keys come back from a backup; `subject` None: all of them."""

    type: ClassVar[str] = "erasure.recorded.v1"

    tenant_id: Identifier
    subject: str | None
    key_id: str | None


TenantEvent = (
    TenantCreated
    | TenantActivated
    | TenantAbandoned
    | TenantRenamed
    | TenantSuspended
    | TenantResumed
    | TenantClosed
    | PlanAssigned
    | MemberAdded
    | MemberRoleChanged
    | MemberRemoved
    | MemberInvited
    | InvitationAccepted
    | InvitationRevoked
    | QuotaConsumed
    | QuotaReleased
    | QuotasReset
    | MemberErased
    | TenantErased
)

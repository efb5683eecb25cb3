"""What is asked of a tenant, with all that deciding it needs; and how it is refused."""

from dataclasses import dataclass
from typing import Literal

from flotilla import Rejected
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.tenant import (
    TenantCommand,
)
from flotilla_contracts.tenant_events import (
    SYSTEM,
    Moment,
    Quota,
    Role,
)
from svc_tenant.domain.tenant import Tenant

Who = Role | Literal["system"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a new invitation needs from chance and clock, and is the same whenever it is decided."""

    invitation_id: str
    token_sha256: str
    expires_at: Moment


@dataclass(frozen=True, slots=True)
class Asked:
    """A command with sealed personal fields, whose tenant it is about, and when it is asked."""

    command: TenantCommand
    tenant_id: str
    at: Moment
    drawn: Drawn | None = None
    """For `InviteMember`."""
    shown_sha256: str = ""
    """For `AcceptInvitation`: the hash of the token."""
    shown_id: str = ""
    """And the invitation that it names."""


def rejected(code: ErrorCode, detail: str) -> Rejected:
    """Return a refusal."""
    return Rejected(detail, code=code)


def not_found() -> Rejected:
    """Return the one answer for whoever does not belong, whether the tenant exists or not."""
    return rejected(ErrorCode.TENANT_NOT_FOUND, "there is no such tenant")


def within(quota: Quota, amount: int, tenant: Tenant) -> int:
    """Return how much is used with `amount` more; refuse what the plan does not allow."""
    used, limit = tenant.used(quota) + amount, tenant.limit(quota)
    if used > limit:
        raise rejected(
            ErrorCode.QUOTA_EXCEEDED, f"{tenant.plan} has {limit} {quota}; it would be {used}"
        )
    return used


def is_somebody(user: str) -> None:
    """Refuse the name of workflows for a user."""
    if user == SYSTEM:
        raise rejected(
            ErrorCode.USER_INVALID, f"`{SYSTEM}` is the name of workflows, not of a user"
        )

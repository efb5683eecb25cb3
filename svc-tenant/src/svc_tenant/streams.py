"""Where tenants and erasures are kept, and under which names their keys are."""

from flotilla import Rejected, StreamId, stream_id
from flotilla_contracts.errors import ErrorCode

AGGREGATE = "tenant"
ERASURES = stream_id("-", "erasure", "all")
"""All erasures of all tenants; `-` is nobody's tenant."""


def tenant_stream(tenant: str) -> StreamId:
    """Return the stream of a tenant. Raises `Rejected` (`tenant-invalid`) for what cannot be one."""
    if tenant == "-":
        raise Rejected("`-` is nobody's tenant", code=ErrorCode.TENANT_INVALID)
    try:
        return stream_id(tenant, AGGREGATE, tenant)
    except ValueError as error:
        raise Rejected(str(error), code=ErrorCode.TENANT_INVALID) from None


def subject_of(invitation_id: str) -> str:
    """Return under which name the key of an invitation is kept; that of a user is the user's id."""
    return f"invitation:{invitation_id}"

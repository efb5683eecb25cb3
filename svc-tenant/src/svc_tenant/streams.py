"""Where tenants and erasures are kept, and under which names their keys are."""

import re

from flotilla import Rejected, StreamId, stream_id
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.message import IDENTIFIER_LENGTH_MAX, IDENTIFIER_PATTERN

AGGREGATE = "tenant"
NOBODY = "-"
ERASURES = stream_id(NOBODY, "erasure", "all")
"""All erasures of all tenants; `-` is nobody's tenant."""


def tenant_stream(tenant: str) -> StreamId:
    """Return the stream of a tenant. Raises `Rejected` (`tenant-invalid`) for what cannot be one."""
    if tenant == NOBODY or not _is_identifier(tenant):
        raise Rejected(
            f"a tenant is called by letters, digits, `.`, `_`, `-`; at most {IDENTIFIER_LENGTH_MAX}"
            f" of them, not `{NOBODY}` alone",
            code=ErrorCode.TENANT_INVALID,
        )
    return stream_id(tenant, AGGREGATE, tenant)


def _is_identifier(name: str) -> bool:
    fits = len(name) <= IDENTIFIER_LENGTH_MAX
    return fits and re.fullmatch(IDENTIFIER_PATTERN, name) is not None


def subject_of(invitation_id: str) -> str:
    """Return under which name the key of an invitation is kept; that of a user is the user's id."""
    return f"invitation:{invitation_id}"

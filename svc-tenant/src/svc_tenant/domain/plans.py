"""What each plan allows. A quota is checked where the change is that it limits: in one decision."""

from collections.abc import Mapping
from types import MappingProxyType

from flotilla_contracts.tenant import MEMBERS_MAX, Plan, Quota

LIMITS: Mapping[Plan, Mapping[Quota, int]] = MappingProxyType(
    {
        "free": {"members": 5, "invitations": 10, "counters": 10},
        "team": {"members": 50, "invitations": 100, "counters": 1_000},
        "business": {"members": MEMBERS_MAX, "invitations": 1_000, "counters": 100_000},
    }
)
"""`members` and `counters` at a time, `invitations` a day (UTC)."""

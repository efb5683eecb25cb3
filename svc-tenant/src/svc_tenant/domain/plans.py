"""What each plan allows. A quota is checked where the change is that it limits: in one decision."""

from flotilla_contracts.tenant_views import PLAN_LIMITS as LIMITS

__all__ = ["LIMITS"]

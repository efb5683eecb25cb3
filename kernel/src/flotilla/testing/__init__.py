"""Tests the kernel lends to everybody who implements a port or writes an aggregate.

A port ships a behaviour suite here; an adapter's test is a subclass that says how to build an empty
one. Nothing in a suite skips.
"""

from flotilla.testing.outbox import OutboxContract
from flotilla.testing.shadows import ShadowStoreContract
from flotilla.testing.spec import Spec
from flotilla.testing.store import EventStoreContract
from flotilla.testing.views import ViewStoreContract
from flotilla.testing.worlds import ManualClock, eventually, new_event

__all__ = [
    "EventStoreContract",
    "ManualClock",
    "OutboxContract",
    "ShadowStoreContract",
    "Spec",
    "ViewStoreContract",
    "eventually",
    "new_event",
]

"""Tests the kernel lends to everybody who implements a port or writes an aggregate.

A port ships a behaviour suite here; an adapter's test is a subclass that says how to build an empty
one. Nothing in a suite skips.
"""

from flotilla.testing.due import DueStoreContract
from flotilla.testing.isolation import TenantIsolationContract, ViewIsolationContract
from flotilla.testing.keys import KeyStoreContract
from flotilla.testing.lease import LeaseStoreContract
from flotilla.testing.outbox import OutboxContract
from flotilla.testing.parking import ParkingContract
from flotilla.testing.shadows import ShadowStoreContract
from flotilla.testing.spec import Spec
from flotilla.testing.store import EventStoreContract
from flotilla.testing.views import ViewStoreContract
from flotilla.testing.worlds import ManualClock, SteppedClock, eventually, new_event

__all__ = [
    "DueStoreContract",
    "EventStoreContract",
    "KeyStoreContract",
    "LeaseStoreContract",
    "ManualClock",
    "OutboxContract",
    "ParkingContract",
    "ShadowStoreContract",
    "Spec",
    "SteppedClock",
    "TenantIsolationContract",
    "ViewIsolationContract",
    "ViewStoreContract",
    "eventually",
    "new_event",
]
